"""A run that is stopped, killed or broken anywhere and resumed ends with the weights of a run without a break."""

import contextlib
import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

import distseq
from distseq.artifacts.checkpoint import FORMAT, Checkpoint, _seal, encode, newest, numbered, read
from distseq.artifacts.checkpointer import Checkpointer, write_checkpoint
from distseq.cli.main import cli, one_line_errors
from distseq.cluster.errors import PoolError
from distseq.cluster.system.atomic_files import write_synced
from distseq.cluster.system.background_writer import Writer
from distseq.config.schema import CheckpointConfig
from distseq.config.toml_file import load_config
from distseq.engine.interfaces import Observer
from distseq.engine.journal import past, read_journal
from distseq.learners.learner import Learner
from distseq.learners.state_files import DamagedError

ROOT = Path(__file__).resolve().parents[3]
STEPS, JOBS = 10, 30
JOB = f"""
[run]
steps = {STEPS}
checks = 0
[pool]
kind = "simulated"
workers = 8
delays = "bursts:base=0.1"
compute = "rows"
[scheduler]
scheme = "msgc:1,2,2"
[checkpoint]
every = 1
[defaults]
model = "distseq.models.char_lstm:CharLSTM"
model_args = {{ hidden = 6 }}
data = "text:TEXT"
data_args = {{ window = 5 }}
batch = 20
optimizer_args = {{ lr = 0.02 }}
[[learner]]
name = "adam"
[[learner]]
name = "momentum"
optimizer = "sgd"
optimizer_args = {{ lr = 0.02, momentum = 0.9 }}
[[learner]]
name = "clipped"
clip = 0.1
"""


class CrashError(RuntimeError):
    pass


class CrashAfter(Observer):
    """Brings the driver down once so many jobs are applied."""

    def __init__(self, jobs: int, error: Callable[[], BaseException] = CrashError) -> None:
        self.left, self.error = jobs, error

    def job_applied(self, *job: object) -> None:
        self.left -= 1
        if not self.left:
            raise self.error()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "text.txt"
    path.write_text("".join(f"{k} green bottles hanging on the wall, and {k * k} more.\n" for k in range(90)))
    return path


@pytest.fixture
def job(tmp_path: Path, data: Path) -> Path:
    path = tmp_path / "job.toml"
    path.write_text(JOB.replace("TEXT", str(data)))
    return path


def train(*job: Path, **options: Any) -> tuple[distseq.Result, str]:
    printed = io.StringIO()
    return distseq.train(*job, console=Console(file=printed, width=400), **options), printed.getvalue()


def crashed(job: Path, jobs: int, name: str = "run", **options: Any) -> Path:
    """The folder of a run that broke down after so many jobs."""
    run = job.parent / name
    with pytest.raises(CrashError):
        train(job, out=run, watchers=[CrashAfter(jobs)], **options)
    return run


def weights(result: distseq.Result) -> list[np.ndarray]:
    return [learner.publish() for learner in result.learners]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Callable[..., list[np.ndarray]]:
    """Weights of runs without a break, each made once."""
    made: dict[str, list[np.ndarray]] = {}
    folder = tmp_path_factory.mktemp("whole")
    (folder / "job.toml").write_text(JOB.replace("TEXT", str(data)))

    def weights_of(**options: Any) -> list[np.ndarray]:
        key = repr(sorted(options.items()))
        if key not in made:
            made[key] = weights(train(folder / "job.toml", out=folder / f"run-{len(made)}", **options)[0])
        return made[key]

    return weights_of


def assert_same_bits(ours: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def applied(run: Path) -> Counter[tuple[str, int]]:
    """(learner, step) -> how often it was applied, by the journal."""
    records = read_journal(run / "journal.jsonl")
    return Counter((record["learner"], record["step"]) for record in records if record["kind"] == "job")


def assert_little_redone(run: Path) -> None:
    times = applied(run)
    assert len(times) == JOBS
    again = Counter(learner for (learner, _), count in times.items() for _ in range(count - 1))
    assert all(count <= 1 for count in again.values()), again


def assert_crash_leaves_no_trace(job: Path, jobs: int, whole: Callable[..., list[np.ndarray]], **options: Any) -> None:
    run = crashed(job, jobs, f"run-{jobs}", **options)
    result, _ = train(resume=run)
    assert_same_bits(weights(result), whole(**options))
    assert_little_redone(run)
    assert result.summary["jobs"] == JOBS
    shutil.rmtree(run)


@pytest.mark.parametrize("jobs", [1, 14, JOBS])
def test_a_crash_and_a_resume_leave_no_trace(job: Path, jobs: int, whole: Callable[..., list[np.ndarray]]) -> None:
    assert_crash_leaves_no_trace(job, jobs, whole)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["uncoded", "gc:2", "srsgc:1,2,3", "msgc:1,2,2", "msgc:1,3,3"])
def test_a_crash_after_any_job_leaves_no_trace(job: Path, scheme: str, whole: Callable[..., list[np.ndarray]]) -> None:
    for jobs in range(1, JOBS + 1):
        assert_crash_leaves_no_trace(job, jobs, whole, scheme=scheme)


def test_a_run_may_crash_again_and_again(job: Path, whole: Callable[..., list[np.ndarray]]) -> None:
    run = crashed(job, 7)
    for jobs in (2, 5, 1, 4):
        with pytest.raises(CrashError):
            train(resume=run, watchers=[CrashAfter(jobs)])
    result, _ = train(resume=run)
    assert_same_bits(weights(result), whole())
    kinds = Counter(record["kind"] for record in read_journal(run / "journal.jsonl"))
    assert (kinds["run"], kinds["resume"]) == (1, 5)


def test_between_checkpoints_fewer_jobs_than_every_are_redone(
    job: Path, whole: Callable[..., list[np.ndarray]]
) -> None:
    job.write_text(job.read_text().replace("every = 1", "every = 8"))
    run = crashed(job, 21)
    assert [number for number, _ in numbered(run / "checkpoints")] == [16, 8, 0]
    result, _ = train(resume=run)
    assert_same_bits(weights(result), whole())
    assert sum(count - 1 for count in applied(run).values()) == 5
    assert result.summary["jobs"] == JOBS
    counted = past(read_journal(run / "journal.jsonl"), dict.fromkeys(("adam", "momentum", "clipped"), STEPS)).jobs
    assert sorted((job["learner"], job["step"]) for job in counted) == sorted(applied(run)), "each job counts once"


def test_with_every_0_only_the_start_and_the_end_are_kept(job: Path) -> None:
    job.write_text(job.read_text().replace("every = 1", "every = 0"))
    train(job, out=job.parent / "run")
    assert [number for number, _ in numbered(job.parent / "run" / "checkpoints")] == [JOBS, 0]


def test_the_last_few_checkpoints_are_kept(job: Path) -> None:
    job.write_text(job.read_text().replace("every = 1", "every = 4\nkeep = 2"))
    train(job, out=job.parent / "run")
    names = sorted(path.name for path in (job.parent / "run" / "checkpoints").iterdir())
    assert names == ["00000028", "00000030"]


def test_the_seconds_of_all_pools_and_the_jobs_that_count_are_summed(job: Path) -> None:
    run = crashed(job, 11)
    before = past(read_journal(run / "journal.jsonl"), dict.fromkeys(("adam", "momentum", "clipped"), STEPS))
    assert len(before.jobs) == 11
    result, _ = train(resume=run)
    after = past(read_journal(run / "journal.jsonl"), dict.fromkeys(("adam", "momentum", "clipped"), STEPS))
    assert len(after.jobs) == JOBS
    assert after.seconds == pytest.approx(result.summary["total_seconds"], abs=1e-4)
    assert after.seconds > before.seconds
    assert after.rounds == result.summary["rounds"] > before.rounds


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "options",
    [
        {"workers": 5},
        {"scheme": "gc:3"},
        {"scheme": "gc:2,code=cyclic", "workers": 7},
        {"scheduler": "pipeline", "parts": 5, "workers": 6},
    ],
)
def test_resuming_with_other_workers_or_another_scheme_is_exact(job: Path, dtype: str, options: dict[str, Any]) -> None:
    job.write_text(job.read_text().replace("checks = 0", f'checks = 0\ndtype = "{dtype}"'))
    reference, _ = train(job, out=job.parent / "whole")
    run = crashed(job, 13)
    result, _ = train(resume=run, delays="heavy-tail:base=0.1", **options)
    tolerance = {"float32": 1e-6, "float64": 1e-12}[dtype]
    for a, b in zip(weights(result), weights(reference), strict=True):
        assert np.linalg.norm(a - b) / np.linalg.norm(b) <= tolerance
    config = load_config(run / "config.toml")
    assert config.pool.workers == options.get("workers", 8)
    assert config.scheduler.scheme == options.get("scheme", "msgc:1,2,2")
    assert config.scheduler.kind == options.get("scheduler", "rounds")


def test_a_pipelined_run_that_is_broken_twice_ends_with_the_same_bits_and_may_end_in_rounds(job: Path) -> None:
    job.write_text(job.read_text().replace('scheme = "msgc:1,2,2"', 'kind = "pipeline"\nparts = 3'))
    reference, _ = train(job, out=job.parent / "whole")
    run = crashed(job, 7)
    with pytest.raises(CrashError):
        train(resume=run, watchers=[CrashAfter(9)])
    result, _ = train(resume=run)
    assert_same_bits(weights(result), weights(reference))
    assert result.summary["jobs"] == JOBS
    other = crashed(job, 13, "other")
    in_rounds, _ = train(resume=other, scheme="gc:3")
    assert (load_config(other / "config.toml").scheduler.kind, in_rounds.summary["jobs"]) == ("rounds", JOBS)


def test_more_steps_are_more_of_the_same(job: Path, whole: Callable[..., list[np.ndarray]]) -> None:
    train(job, out=job.parent / "run", steps=4)
    result, _ = train(resume=job.parent / "run", steps=STEPS)
    assert_same_bits(weights(result), whole())


def test_a_complete_run_has_nothing_to_do(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = job.parent / "run"
    first, _ = train(job, out=run)
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    again, printed = train(resume=run)
    assert printed == f"nothing to do: {run} is complete, {JOBS} jobs\n"
    assert_same_bits(weights(again), weights(first))
    assert again.summary == first.summary
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == files
    assert command("train", "--resume", str(run)) == 0
    assert "nothing to do" in " ".join(capsys.readouterr().out.split())


def test_a_run_killed_before_its_weights_were_saved_ends_properly(
    job: Path, whole: Callable[..., list[np.ndarray]]
) -> None:
    run = job.parent / "run"
    train(job, out=run)
    shutil.rmtree(run / "weights")
    (run / "summary.json").unlink()
    result, _ = train(resume=run)
    assert_same_bits(weights(result), whole())
    assert len(list((run / "weights").iterdir())) == 3
    assert json.loads((run / "summary.json").read_text())["jobs"] == JOBS


def test_a_half_written_last_line_of_the_journal_is_cut(job: Path, whole: Callable[..., list[np.ndarray]]) -> None:
    run = crashed(job, 9)
    with open(run / "journal.jsonl", "a") as file:
        file.write('{"kind":"round","index":12,"arri')
    result, _ = train(resume=run)
    assert_same_bits(weights(result), whole())
    assert_little_redone(run)


def test_a_pool_that_gives_up_leaves_a_checkpoint_and_says_how_to_go_on(
    job: Path, whole: Callable[..., list[np.ndarray]]
) -> None:
    job.write_text(job.read_text().replace("every = 1", "every = 0"))
    run = job.parent / "run"
    with pytest.raises(PoolError, match=f"no more; go on with: distseq train --resume {run}"):
        train(job, out=run, watchers=[CrashAfter(12, lambda: PoolError("no more"))])
    result, _ = train(resume=run)
    assert_same_bits(weights(result), whole())
    assert max(applied(run).values()) == 1


def command(*words: str) -> int:
    return one_line_errors(lambda: cli(list(words), prog_name="distseq", standalone_mode=False))


def flip(path: Path, at: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(at * (len(data) - 1))] ^= 4
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "bits of the tensors": lambda folder: flip(folder / "adam.safetensors", 0.7),
    "bits of their names": lambda folder: flip(folder / "adam.safetensors", 0.01),
    "bits of the state": lambda folder: flip(folder / "state.json", 0.5),
    "the format's number": lambda folder: (folder / "state.json").write_text(
        (folder / "state.json").read_text().replace('"format": 1', '"format": 9')
    ),
    "cut tensors": lambda folder: os.truncate(folder / "adam.safetensors", 1000),
    "cut state": lambda folder: os.truncate(folder / "state.json", 300),
    "an empty state": lambda folder: os.truncate(folder / "state.json", 0),
    "no state": lambda folder: (folder / "state.json").unlink(),
    "no tensors": lambda folder: (folder / "momentum.safetensors").unlink(),
    "a state of another kind": lambda folder: (folder / "state.json").write_text("[1, 2]"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    job: Path, damage: str, whole: Callable[..., list[np.ndarray]]
) -> None:
    run = crashed(job, 9)
    (_, latest), *before = numbered(run / "checkpoints")
    DAMAGE[damage](latest)
    result, printed = train(resume=run)
    assert printed.count("warning: ") == 1
    assert f"warning: checkpoint {latest} is damaged: " in printed
    assert f"going on from job {before[0][0]}" in printed
    assert_same_bits(weights(result), whole())


def test_damaged_checkpoints_that_were_passed_over_go(job: Path) -> None:
    run = crashed(job, 9)
    for _, path in numbered(run / "checkpoints")[:2]:
        flip(path / "state.json", 0.5)
    with pytest.raises(CrashError):
        train(resume=run, watchers=[CrashAfter(1)])
    assert [number for number, _ in numbered(run / "checkpoints")] == [8, 7]
    assert newest(run / "checkpoints")[1] == []


def test_when_all_checkpoints_are_damaged_it_is_one_line(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = crashed(job, 9)
    for _, path in numbered(run / "checkpoints"):
        flip(path / "state.json", 0.5)
    journal = (run / "journal.jsonl").read_bytes()
    assert command("train", "--resume", str(run)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "00000009 is damaged: " in err
    assert "no whole one before it" in err
    assert (run / "journal.jsonl").read_bytes() == journal


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object], number: int = FORMAT) -> None:
    """Change the state of a checkpoint, with its checksum."""
    state = json.loads((folder / "state.json").read_text())["state"]
    change(state)
    envelope = {"format": number, "sha256": _seal(number, state), "state": state}
    (folder / "state.json").write_text(json.dumps(envelope))


def test_a_newer_format_is_refused(job: Path) -> None:
    run = crashed(job, 9)
    rewrite(numbered(run / "checkpoints")[0][1], lambda state: None, FORMAT + 1)
    with pytest.raises(ValueError, match=r"00000009 has format 2, this version of distseq reads 1"):
        train(resume=run)


def test_another_run_s_checkpoint_is_refused(job: Path) -> None:
    run, other = crashed(job, 9), crashed(job, 9, "other", seed=1)
    shutil.rmtree(run / "checkpoints")
    shutil.copytree(other / "checkpoints", run / "checkpoints")
    with pytest.raises(ValueError, match="is of a run with other learners, data, seed or dtype"):
        train(resume=run)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"hidden" = 6', '"hidden" = 7', r"learner adam: embedding.weight of its model is float32 \(97, 7\)"),
        ('name = "clipped"', 'name = "else"', "has learners adam, momentum, clipped, the job adam, momentum, else"),
        ("batch = 20", "batch = 21", "is of a run with other learners"),
        ('dtype = "float32"', 'dtype = "float64"', r"of its model is float64 .*, in the checkpoint float32"),
    ],
)
def test_a_changed_configuration_is_refused(job: Path, old: str, new: str, message: str) -> None:
    run = crashed(job, 5)
    text = (run / "config.toml").read_text()
    assert old in text
    (run / "config.toml").write_text(text.replace(old, new))
    before = (run / "journal.jsonl").read_bytes()
    with pytest.raises(ValueError, match=message):
        train(resume=run)
    assert (run / "journal.jsonl").read_bytes() == before


def test_what_cannot_be_resumed_is_one_line_and_two(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = crashed(job, 9)
    for words, message in (
        (["--resume", "gone"], "cannot read job file gone/config.toml: No such file or directory"),
        ([str(job), "--resume", str(run)], "train needs either a job or the run folder to resume"),
        (["--resume", str(run), "--out", "x"], "a resumed run goes on in its own folder"),
        (["--resume", str(run), "--seed", "4"], "is of a run with other learners, data, seed or dtype"),
        (["--resume", str(run), "--steps", "2"], "learner adam has made 3 steps already: got steps=2"),
        (["--resume", str(run), "--workers", "0"], "pool.workers must be at least 1: got 0"),
    ):
        assert command("train", *words) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert message in err
    shutil.rmtree(run / "checkpoints")
    assert command("train", "--resume", str(run)) == 2
    assert "no checkpoint in " in capsys.readouterr().err


def learner(seed: int = 0, optimizer: str = "Adam", inputs: int = 3, **args: Any) -> Learner:
    torch.manual_seed(seed)
    model = nn.Linear(inputs, 2)
    made = getattr(torch.optim, optimizer)(model.parameters(), lr=0.1, **args)
    return Learner("m", model, made, data=range(9), batch=2, steps=9, loss=no_loss)


def no_loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    raise AssertionError("only the learner's side is looked at")


def checkpoint(one: Learner, step: int) -> dict[str, bytes]:
    return encode(Checkpoint("configuration", step, {"m": step}, {"m": one.snapshot()}))


class Dies(BaseException):
    """The process, not the call."""


class Failing:
    """Writes the first so many bytes, over all files, then fails."""

    def __init__(self, left: int, error: BaseException) -> None:
        self.left, self.error = left, error

    def __call__(self, path: Path, data: bytes) -> None:
        write_synced(path, data[: self.left])
        self.left -= len(data)
        if self.left < 0:
            raise self.error


def test_a_crash_in_the_middle_of_writing_leaves_the_last_good_one(tmp_path: Path) -> None:
    files = checkpoint(learner(), 4)
    write_checkpoint(tmp_path, 4, files, keep=2)
    later = checkpoint(learner(1), 5)
    size = sum(map(len, later.values()))
    for k in [*range(0, size, 97), *np.cumsum([len(data) for data in later.values()])[:-1], size - 1]:
        with pytest.raises(Dies):
            write_checkpoint(tmp_path, 5, later, 2, Failing(int(k), Dies()))
        kept, damaged = newest(tmp_path)
        assert (kept.steps, damaged) == ({"m": 4}, [])
    write_checkpoint(tmp_path, 5, later, 2)
    assert newest(tmp_path)[0].steps == {"m": 5}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000004", "00000005"], "what crashes left is gone"


def test_a_full_disk_is_one_warning_and_leaves_the_last_good_one(tmp_path: Path) -> None:
    printed, one = io.StringIO(), learner()
    disk = Failing(10**6, OSError(errno.ENOSPC, "No space left on device"))
    console = Console(file=printed, width=400)
    keeper = Checkpointer(tmp_path, [one], "c", CheckpointConfig(1, 3), console, lambda: False, write=disk)
    keeper.begin([0], 0, resumed=False)
    keeper.applied([1], 1)
    assert keeper.finish()
    disk.left = 300
    for step in range(2, 6):
        keeper.applied([step], step)
    assert not keeper.finish()
    assert printed.getvalue() == (
        f"warning: cannot write checkpoints to {tmp_path}: No space left on device; training goes on\n"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000000", "00000001"]
    disk.left = 10**6
    assert keeper.finish()
    assert newest(tmp_path)[0].steps == {"m": 5}
    keeper.close()


class Spoil(Observer):
    """Puts a file where the checkpoints' folder is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def job_applied(self, learner: str, step: int, *rest: object) -> None:
        while step == 4 and not self.folder.is_file():
            shutil.rmtree(self.folder, ignore_errors=True)
            with contextlib.suppress(IsADirectoryError):  # the writer was faster
                self.folder.write_text("")


def test_training_goes_on_where_checkpoints_cannot_be_written(
    job: Path, whole: Callable[..., list[np.ndarray]]
) -> None:
    run = job.parent / "run"
    result, printed = train(job, out=run, watchers=[Spoil(run / "checkpoints")])
    assert_same_bits(weights(result), whole())
    assert 1 <= printed.count("warning: cannot write checkpoints to ") <= 2


def test_a_crash_while_an_old_one_is_removed_leaves_no_half_of_it(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        write_checkpoint(tmp_path, step, checkpoint(learner(), step), keep=9)
    # As `remove_folder` leaves it half-way.
    (tmp_path / "00000001").rename(tmp_path / ".00000001.77.old.tmp")
    (tmp_path / ".00000001.77.old.tmp" / "state.json").unlink()
    assert [number for number, _ in numbered(tmp_path)] == [3, 2]
    write_checkpoint(tmp_path, 4, checkpoint(learner(), 4), keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000003", "00000004"]


OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {}),
    ("SGD", {"momentum": 0.9, "nesterov": True}),
    ("Adam", {"betas": (0.8, 0.99), "amsgrad": True}),
    ("AdamW", {"weight_decay": 0.1}),
    ("Adagrad", {}),
    ("RMSprop", {"momentum": 0.5, "centered": True}),
    ("NAdam", {}),
    ("Rprop", {}),
]


@pytest.mark.parametrize(("optimizer", "args"), OPTIMIZERS)
def test_every_optimizer_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, optimizer: str, args: dict[str, Any]
) -> None:
    totals = np.random.default_rng(3).normal(size=(8, 10))
    one, other = learner(0, optimizer, **args), learner(1, optimizer, **args)
    for total in totals[:4]:
        one.apply(total)
    write_checkpoint(tmp_path, 4, checkpoint(one, 4), keep=1)
    other.restore(read(tmp_path / "00000004").snapshots["m"])
    for total in totals[4:]:
        one.apply(total)
        other.apply(total)
    np.testing.assert_array_equal(one.publish(), other.publish())
    assert repr(one.optimizer.state_dict()) == repr(other.optimizer.state_dict())


def test_a_schedule_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    def scheduled() -> Learner:
        model = nn.Linear(3, 2)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(0.5)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 5], gamma=0.5)
        return Learner("m", model, optimizer, data=range(9), batch=2, steps=9, loss=no_loss, schedule=schedule)

    one, other = scheduled(), scheduled()
    for _ in range(3):
        one.apply(np.ones(10))
    write_checkpoint(tmp_path, 3, checkpoint(one, 3), keep=1)
    other.restore(read(tmp_path / "00000003").snapshots["m"])
    for _ in range(4):
        one.apply(np.ones(10))
        other.apply(np.ones(10))
    np.testing.assert_array_equal(one.publish(), other.publish())
    assert other.optimizer.param_groups[0]["lr"] == 0.25


def test_a_learner_that_does_not_fit_is_left_as_it_was() -> None:
    one = learner()
    before = one.publish()
    wide = learner(inputs=4)
    with pytest.raises(
        ValueError, match=r"weight of its model is float32 \(2, 3\), in the checkpoint float32 \(2, 4\)"
    ):
        one.restore(wide.snapshot())
    np.testing.assert_array_equal(one.publish(), before)


def test_state_that_is_not_plain_data_is_refused() -> None:
    one = learner()
    one.optimizer.param_groups[0]["hook"] = print
    with pytest.raises(ValueError, match=r"a checkpoint cannot hold optimizer\.param_groups\.0\.hook"):
        checkpoint(one, 0)


def test_there_is_no_pickle_in_a_checkpoint(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1, checkpoint(learner(), 1), keep=1)
    assert sorted(path.name for path in (tmp_path / "00000001").iterdir()) == ["m.safetensors", "state.json"]
    (tmp_path / "00000001" / "state.json").write_bytes(b"\x80\x04.")
    with pytest.raises(DamagedError):
        read(tmp_path / "00000001")


def test_a_writer_works_in_order_and_returns_each_error_once() -> None:
    writer, done = Writer(), list[int]()

    def fail() -> None:
        raise OSError("full")

    for k in range(5):
        assert writer.submit(lambda k=k: done.append(k)) == []  # type: ignore[misc]
    writer.submit(fail)
    assert [str(error) for error in writer.flush()] == ["full"]
    assert writer.flush() == []
    assert done == list(range(5))
    writer.close()
    assert writer.close() == []


def start(*words: str, cwd: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "distseq", "train", *words]
    return subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def until_some_jobs_are_done(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert any(line.startswith("job ") for line in process.stdout)


def signalled(job: Path, number: int) -> tuple[int, str, Path]:
    """Exit code and standard error of a process that is sent a signal in the middle of its run, and its folder."""
    run = job.parent / "run"
    process = start("job.toml", "--out", "run", "--steps", "40", cwd=job.parent)
    until_some_jobs_are_done(process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert sum(applied(run).values()) < 120, "the signal came too late to test anything"
    return process.returncode, err, run


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_the_run_which_resumes_to_the_same_weights(
    job: Path, number: int, code: int, whole: Callable[..., list[np.ndarray]]
) -> None:
    job.write_text(job.read_text().replace("every = 1", "every = 0"))
    returned, err, run = signalled(job, number)
    assert returned == code
    done = sum(applied(run).values())
    assert err == f"stopped after {done} of 120 jobs; go on with: distseq train --resume run\n"
    process = start("--resume", "run", cwd=job.parent)
    assert process.communicate(timeout=120)[1] == ""
    assert process.returncode == 0
    assert max(applied(run).values()) == 1, "nothing that was applied is redone"
    assert_same_bits(weights(train(resume=run)[0]), whole(steps=40))


@pytest.mark.slow
def test_a_killed_process_resumes_to_the_same_weights(job: Path, whole: Callable[..., list[np.ndarray]]) -> None:
    returned, _, run = signalled(job, signal.SIGKILL)
    assert returned == -signal.SIGKILL
    result, _ = train(resume=run)
    assert_same_bits(weights(result), whole(steps=40))
    times = applied(run)
    assert len(times) == 120
    # One checkpoint was being written, one waited for it, and one waited for that.
    assert sum(times.values()) - 120 <= 3


@pytest.mark.ray
def test_a_run_that_broke_in_the_simulator_goes_on_on_ray_to_the_same_bits(
    job: Path, ray_session: None, whole: Callable[..., list[np.ndarray]]
) -> None:
    run = crashed(job, 14)
    result, _ = train(resume=run, pool="ray", delays="bursts:base=0.01")
    assert_same_bits(weights(result), whole())
    assert_little_redone(run)


def test_where_learners_end_at_different_steps_a_resumed_run_is_exact_to_rounding(job: Path) -> None:
    # The scheme moves to a smaller delay when the short learner has ended, and a resumed run does so at another job.
    job.write_text(job.read_text().replace('name = "momentum"', 'name = "momentum"\nsteps = 3'))
    job.write_text(job.read_text().replace(f"steps = {STEPS}", "steps = 5").replace("msgc:1,2,2", "msgc:1,3,3"))
    reference = weights(train(job, out=job.parent / "whole")[0])
    for jobs in (5, 11, 12):
        result, _ = train(resume=crashed(job, jobs, f"run-{jobs}"))
        for a, b in zip(weights(result), reference, strict=True):
            assert np.linalg.norm(a - b) / np.linalg.norm(b) <= 1e-6


TWICE = """
import os, signal, sys
from distseq.cluster.system.stop_signals import StopRequest
request = StopRequest()
before = signal.getsignal(signal.SIGINT)
request.install()
os.kill(os.getpid(), signal.SIGINT)
print(request.code, flush=True)
if sys.argv[1] == "twice":
    os.kill(os.getpid(), signal.SIGTERM)
request.restore()
assert signal.getsignal(signal.SIGINT) is before
"""


@pytest.mark.parametrize(("times", "code"), [("once", 0), ("twice", 143)])
def test_the_first_signal_is_noted_and_the_second_ends_the_process(times: str, code: int) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    answer = subprocess.run(
        [sys.executable, "-c", TWICE, times], env=environment, capture_output=True, text=True, check=False
    )
    assert (answer.returncode, answer.stdout, answer.stderr) == (code, "130\n", "")


def test_the_steps_of_a_run_with_a_schedule_cannot_change(job: Path) -> None:
    job.write_text(job.read_text().replace("[[learner]]", '[[learner]]\nschedule = "cosine"', 1))
    run = crashed(job, 4)
    with pytest.raises(ValueError, match=r"its schedule is .* steps long in the checkpoint and 99 in the job"):
        train(resume=run, steps=99)
    train(resume=run)
