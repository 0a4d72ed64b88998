"""A run folder has one owner at a time, who removes nothing that another has made; a damaged journal costs figures alone."""

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from distseq.artifacts.run_folder import RunFolder
from distseq.cluster.system.folder_lock import NAME, FolderLock
from distseq.config.toml_file import load_config
from tests.distseq.artifacts.crashing import assert_same_bits, command, crashed, train, weights


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != NAME}


def test_a_run_that_is_running_is_not_resumed(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = crashed(job, 9)
    before, lock = contents(run), FolderLock(run)
    assert command("train", "--resume", str(run)) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert f"cannot resume in run folder {run}: it is in use by process {os.getpid()} on " in err
    assert contents(run) == before
    lock.release()
    assert train(resume=run)[0].summary["jobs"] == 30
    assert not (run / NAME).exists()


def test_of_two_runs_that_begin_in_one_folder_the_second_is_refused_and_removes_nothing(
    job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = job.parent / "run"
    first = RunFolder.new(run, load_config(job), print)
    before = contents(run)
    assert {path.name for path in before} == {"config.toml", "journal.jsonl"}
    # It finds the folder as it was before the first made it.
    with pytest.raises(ValueError, match=f"cannot write run folder {run}: it is in use by process {os.getpid()} on "):
        RunFolder.new(run, load_config(job), print)
    assert contents(run) == before
    first.discard()
    assert not run.exists()


def test_runs_without_a_name_of_their_own_take_a_folder_each(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(job.parent)
    Path("runs/job-2").mkdir(parents=True)
    folders = [RunFolder.next_of("job", load_config(job), print) for _ in range(3)]
    assert [str(one.path) for one in folders] == ["runs/job-1", "runs/job-3", "runs/job-4"]
    for one in folders:
        one.discard()
    assert [path.name for path in Path("runs").iterdir()] == ["job-2"], "that was another's"
    Path("runs/job-2").rmdir()
    Path("runs").rmdir()
    Path("runs").write_text("")
    with pytest.raises(ValueError, match="cannot write run folder in runs: Not a directory"):
        RunFolder.next_of("job", load_config(job), print)


@pytest.mark.parametrize("left", [["config.toml"], ["config.toml", "journal.jsonl"], ["notes.txt", NAME]])
def test_files_that_no_run_has_made_are_not_taken_for_one(job: Path, left: list[str]) -> None:
    run = job.parent / "mine"
    run.mkdir()
    for name in left:
        (run / name).write_text("mine")
    with pytest.raises(ValueError, match=f"run folder {run} is not empty: choose another with --out"):
        train(job, out=run)
    assert sorted(path.name for path in run.iterdir()) == sorted(left)
    assert {path.read_text() for path in run.iterdir()} == {"mine"}


def test_a_folder_that_holds_a_run_says_how_to_go_on_with_it(job: Path) -> None:
    run = crashed(job, 9)
    with pytest.raises(ValueError, match=f"{run} is not empty: .* go on with --resume {run}"):
        train(job, out=run)


def test_where_there_are_no_locks_it_is_said(
    job: Path, monkeypatch: pytest.MonkeyPatch, whole: Callable[..., list[np.ndarray]]
) -> None:
    def flock(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    result, printed = train(job, out=job.parent / "run")
    assert_same_bits(weights(result), whole())
    line = (
        f"warning: cannot lock run folder {result.folder}: No locks available; make sure that no other process uses it"
    )
    assert printed.count(line) == 1


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "a line in two": lambda journal: journal.replace(b'"kind":"job"', b'"kind":\n"job"', 1),
    "no UTF-8": lambda journal: journal.replace(b'"kind":"job"', b'"kind":"\xff\xfe"', 1),
    "another's records": lambda journal: b'{"kind":"job"}\n{"kind":"resume","steps":7}\n[]\n{}\n' + journal,
    "nesting without an end": lambda journal: b"[" * 100_000 + b"\n" + journal,
    "binary": lambda journal: bytes(range(256)) * 9,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_journal_costs_figures_and_not_the_run(
    job: Path, damage: str, whole: Callable[..., list[np.ndarray]]
) -> None:
    run = crashed(job, 9)
    journal = run / "journal.jsonl"
    journal.write_bytes(DAMAGE[damage](journal.read_bytes()))
    result, printed = train(resume=run)
    assert_same_bits(weights(result), whole())
    assert printed.count("warning: ") == 1
    assert "figures of the summary will be missing" in printed


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"])
def test_a_journal_that_is_no_file_is_neither_waited_for_nor_read(job: Path, make: Callable[[Path], None]) -> None:
    run = crashed(job, 9)
    (run / "journal.jsonl").unlink()
    make(run / "journal.jsonl")
    with pytest.raises(ValueError, match=r"^cannot resume in run folder .*: Not a regular file$"):
        train(resume=run)


def test_a_missing_journal_costs_figures_and_not_the_run(job: Path, whole: Callable[..., list[np.ndarray]]) -> None:
    run = crashed(job, 9)
    (run / "journal.jsonl").unlink()
    result, printed = train(resume=run)
    assert_same_bits(weights(result), whole())
    assert f"warning: cannot read {run / 'journal.jsonl'}: No such file or directory" in printed
    assert result.summary["jobs"] == 30
