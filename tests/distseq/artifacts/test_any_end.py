"""However a run ends, its last state is kept and the command that goes on is said; what only shows a run does not end it."""

import errno
import io
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import distseq
from distseq.artifacts import run_folder
from distseq.artifacts.checkpoint import newest
from distseq.engine import journal
from distseq.engine.failures import UnwrittenError
from distseq.scheduling.round_scheduler import RoundScheduler
from tests.distseq.artifacts.crashing import JOBS, CrashAfter, applied, assert_same_bits, command, train, weights

Whole = Callable[..., list[np.ndarray]]


@pytest.fixture
def seldom(job: Path) -> Path:
    """The job, with a checkpoint only where its run ends."""
    job.write_text(job.read_text().replace("every = 1", "every = 0"))
    return job


def assert_kept(run: Path, jobs: int, whole: Whole) -> None:
    assert sum(newest(run / "checkpoints")[0].steps.values()) == jobs
    result, _ = train(resume=run)
    assert_same_bits(weights(result), whole())
    assert max(applied(run).values()) == 1, "nothing that was applied is redone"


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_watcher_that_ends_the_program_loses_nothing(seldom: Path, error: type[BaseException], whole: Whole) -> None:
    run, printed = seldom.parent / "run", io.StringIO()
    with pytest.raises(error) as raised:
        distseq.train(
            seldom, out=run, console=Console(file=printed, width=400), watchers=[CrashAfter(11, lambda: error("now"))]
        )
    said = printed.getvalue() + str(raised.value)
    assert f"after 11 of {JOBS} jobs; go on with: distseq train --resume {run}" in said
    assert_kept(run, 11, whole)


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.EMFILE, "Too many open files"), RuntimeError("a bug")])
def test_an_error_of_the_loop_loses_nothing(
    seldom: Path, error: Exception, whole: Whole, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, left, step = seldom.parent / "run", iter(range(20)), RoundScheduler.step

    def broken(self: RoundScheduler, now: float) -> Any:
        if next(left, None) is None:
            raise error
        return step(self, now)

    monkeypatch.setattr(RoundScheduler, "step", broken)
    words = ("train", str(seldom), "--out", str(run))
    if isinstance(error, RuntimeError):
        with pytest.raises(RuntimeError, match="a bug"):
            command(*words)
    else:
        assert command(*words) == 1
    monkeypatch.undo()
    out, err = capsys.readouterr()
    (jobs,) = re.findall(rf"ended after (\d+) of {JOBS} jobs; go on with: distseq train --resume ", out)
    assert 0 < int(jobs) < JOBS
    assert err.count("\n") == (0 if isinstance(error, RuntimeError) else 1)
    assert_kept(run, int(jobs), whole)


class Fails(distseq.Observer):
    def job_applied(self, *job: object) -> None:
        raise RuntimeError("no connection – try later")

    def round_ended(self, *ended: object) -> None:
        raise OSError("no connection – try later")


class Closed(io.StringIO):
    """A pipe whose reader has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def test_watchers_that_fail_are_a_warning_each(job: Path, whole: Whole) -> None:
    result, printed = train(job, out=job.parent / "run", watchers=[Fails(), object()])
    assert_same_bits(weights(result), whole())
    assert printed.count("warning: ") == 2
    assert "Fails.job_applied raised RuntimeError: no connection – try later; training goes on" in printed


def ascii_console() -> Console:
    return Console(file=io.TextIOWrapper(io.BytesIO(), encoding="ascii"))


@pytest.mark.parametrize(
    "console", [lambda: Console(file=Closed()), lambda: Console(file=Closed(), force_terminal=True), ascii_console]
)
def test_a_console_that_fails_ends_nothing(job: Path, console: Callable[[], Console], whole: Whole) -> None:
    result = distseq.train(job, out=job.parent / "run", console=console(), watchers=[Fails()])
    assert_same_bits(weights(result), whole())


def test_a_journal_on_a_full_disk_costs_figures(job: Path, whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    left, write = iter(range(9)), journal._write_all

    def full(file: int, data: bytes) -> None:
        # It takes a part of the record, as an almost full disk does; there is room again for some later ones.
        if next(left, None) is None and b'"kind":"job"' in data:
            write(file, data[:20])
            raise OSError(errno.ENOSPC, "No space left on device")
        write(file, data)

    monkeypatch.setattr(journal, "_write_all", full)
    result, printed = train(job, out=job.parent / "run")
    assert_same_bits(weights(result), whole())
    assert printed.count("warning: ") == 1
    assert "journal.jsonl: No space left on device; figures of the summary will be missing" in printed
    assert list(journal.read_journal(result.folder / "journal.jsonl")), "without half a record"


@pytest.mark.parametrize("name", ["momentum.safetensors", "summary.json"])
def test_results_that_cannot_be_written_are_one_line_and_written_by_a_resumed_run(
    seldom: Path, name: str, whole: Whole, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write, run = run_folder.write_whole, seldom.parent / "run"

    def full(path: Path, content: Any) -> None:
        if path.name == name:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, content)

    monkeypatch.setattr(run_folder, "write_whole", full)
    assert command("train", str(seldom), "--out", str(run)) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert re.search(rf"cannot write \S*{name}: No space left on device; go on with: distseq train --resume ", err)
    assert issubclass(UnwrittenError, RuntimeError)
    monkeypatch.undo()
    result, _ = train(resume=run)
    assert_same_bits(weights(result), whole())
    assert max(applied(run).values()) == 1


class Looks(distseq.Observer):
    """What is on disk when the final evaluation is there."""

    def __init__(self, run: Path) -> None:
        self.run, self.seen = run, set[str]()

    def evaluated(self, *evaluation: object) -> None:
        self.seen |= {path.name for path in self.run.rglob("*")}


def test_weights_and_a_checkpoint_come_before_the_final_evaluation(seldom: Path) -> None:
    looks = Looks(seldom.parent / "run")
    train(seldom, out=looks.run, watchers=[looks])
    assert {"adam.safetensors", "momentum.safetensors", "clipped.safetensors", f"{JOBS:08d}"} <= looks.seen
    assert "summary.json" not in looks.seen


def test_a_run_in_another_thread_leaves_signals_alone(job: Path, whole: Whole) -> None:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(train(job, out=job.parent / "run")))
    thread.start()
    thread.join()
    assert_same_bits(weights(results[0][0]), whole())


def test_a_stopped_run_is_a_keyboard_interrupt_for_programs() -> None:
    assert issubclass(distseq.Stopped, KeyboardInterrupt)
    assert not issubclass(distseq.Stopped, Exception)
