"""A run folder is copied when its run ends or stops: whole, or not at all."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import distseq
from distseq.artifacts.upload import MARK, Upload, UploadError, uploaded
from distseq.config.upload_url import upload_folder


def quiet(line: str) -> None:
    """Takes what is said."""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return written(tmp_path / "runs" / "main-1")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


def written(folder: Path, text: str = "first") -> Path:
    (folder / "weights").mkdir(parents=True)
    (folder / "config.toml").write_text("[run]\n")
    (folder / "weights" / "a").write_text(text)
    (folder / ".distseq.lock").write_text("")
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_the_copy_is_whole_and_a_resumed_run_replaces_its_own(run: Path, store: Path) -> None:
    with uploaded(f"file://{store}", run, quiet):
        pass
    assert contents(store / "main-1").keys() == {"config.toml", "weights/a", MARK}
    (run / "weights" / "a").write_text("second")
    with uploaded(f"file://{store}", run, quiet):
        pass
    assert contents(store / "main-1")["weights/a"] == "second"
    assert [path.name for path in store.iterdir()] == ["main-1"]


def test_another_run_s_folder_is_never_replaced(run: Path, store: Path) -> None:
    with uploaded(f"file://{store}", run, quiet):
        pass
    shutil.rmtree(run)
    written(run, "of a new run")
    with pytest.raises(ValueError, match=r"store/main-1 is not of this run: choose another name with --out"):
        Upload(f"file://{store}", run)
    assert contents(store / "main-1")["weights/a"] == "first"


def test_a_run_that_is_stopped_is_copied_and_its_own_error_stays(run: Path, store: Path) -> None:
    with pytest.raises(KeyboardInterrupt), uploaded(f"file://{store}", run, quiet):
        raise KeyboardInterrupt
    assert "weights/a" in contents(store / "main-1")


def test_a_run_that_never_began_is_not_copied(tmp_path: Path, store: Path) -> None:
    with pytest.raises(ValueError, match="no room"), uploaded(f"file://{store}", tmp_path / "runs" / "main-1", quiet):
        raise ValueError("no room")
    assert list(store.iterdir()) == []


def test_a_copy_that_fails_leaves_the_one_before_and_the_run(
    run: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Upload(f"file://{store}", run).copy()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copy2", full)
    (run / "weights" / "a").write_text("second")
    with (
        pytest.raises(
            UploadError, match=r"could not be copied to .*store/main-1: .*No space left on device; it is whole in"
        ),
        uploaded(f"file://{store}", run, quiet),
    ):
        pass
    said: list[str] = []
    with pytest.raises(KeyError), uploaded(f"file://{store}", run, said.append):
        raise KeyError
    assert said[0].startswith("warning: the run folder could not be copied")
    assert contents(store / "main-1")["weights/a"] == "first"
    assert [path.name for path in store.iterdir()] == ["main-1"]


def test_a_crash_between_two_renames_loses_no_copy(run: Path, store: Path) -> None:
    Upload(f"file://{store}", run).copy()
    (store / "main-1").rename(store / ".main-1.old.tmp")
    Upload(f"file://{store}", run)
    assert contents(store / "main-1")["weights/a"] == "first"


def test_a_run_that_goes_on_where_its_copy_is_needs_no_other(run: Path) -> None:
    with uploaded(f"file://{run.parent}", run, quiet):
        pass
    assert [path.name for path in run.parent.iterdir()] == ["main-1"]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("s3://bucket/runs", r"takes file:// for now, and s3:// only once a pool needs it: copy to a mounted folder"),
        ("gs://bucket", r"gs:// only once a pool needs it"),
        ("/mnt/results", r"must be file:// and an absolute path, with three slashes, like file:///mnt/results: got"),
        ("file://mnt/results", "three slashes"),
        ("file:results", "must be file://"),
        ("file:///mnt?x=1", "must be file://"),
        ("file:///a%00b", "must be file://"),
        ("file://[", "must be a URL"),
        ("FTP://x/y", "must be file://"),
    ],
)
def test_what_is_no_folder_is_refused(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        upload_folder(url)


def test_names_are_unquoted() -> None:
    assert (
        upload_folder("file:///mnt/my%20runs") == Path("/mnt/my runs") == upload_folder("file://localhost/mnt/my runs")
    )


def test_a_folder_that_is_not_there_is_refused_before_anything_is_made(tmp_path: Path, run: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no folder .*gone: make it, or mount it"):
        Upload(f"file://{tmp_path}/gone", tmp_path / "new")
    with pytest.raises(ValueError, match="that is in the run folder"):
        Upload(f"file://{run}/weights", run)


LEARNER = {"name": "a", "model": "distseq.models.sequence:SequenceModel", "data": "aws:sqs", "batch": 4}
TABLES: dict[str, Any] = {
    "learner": [LEARNER | {"model_args": {"width": 4}, "data_args": {"window": 8}}],
    "run": {"steps": 2},
    "pool": {"kind": "simulated", "workers": 2},
    "scheduler": {"scheme": "gc:1"},
}


def test_a_run_is_copied_at_its_end(tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="there is no folder"):
        distseq.train(TABLES, out="run", console=Console(quiet=True), upload=f"file://{store}/gone")
    assert not Path("run").exists()
    distseq.train(TABLES, out="run", console=Console(quiet=True), upload=f"file://{store}")
    copy = store / "run"
    assert {"config.toml", "journal.jsonl", "summary.json", "weights/a.safetensors"} <= {
        path.relative_to(copy).as_posix() for path in copy.rglob("*")
    }
    assert (copy / "weights/a.safetensors").read_bytes() == Path("run/weights/a.safetensors").read_bytes()
