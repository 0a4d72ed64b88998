"""A run folder arrives whole, whatever is cut off on the way; the sender's script is run as the cluster does, without one."""

import base64
import json
import subprocess
import sys
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from distseq.cli.fetch import sender_script
from distseq.cli.fetch.receiver import receive, take
from distseq.cli.fetch.sender_script import MARK
from distseq.cluster.errors import PoolError

Ask = Callable[[Mapping[str, int]], str]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "cluster" / "job-1"
    (folder / "weights").mkdir(parents=True)
    (folder / "config.toml").write_text("[run]\n")
    (folder / "weights" / "a b.safetensors").write_bytes(bytes(range(256)) * 700)
    (folder / "empty").touch()
    (folder / ".distseq.lock").touch()
    (folder / "link").symlink_to("/etc/hostname")
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "job-1"


def sender(run: Path, most: int = 1 << 20) -> Ask:
    """Runs the script in a folder of its own, among other lines."""

    def ask(have: Mapping[str, int]) -> str:
        (run.parent / "state.json").write_text(json.dumps(dict(have)))
        command = [sys.executable, "-I", sender_script.__file__, str(run), str(most)]
        done = subprocess.run(command, cwd=run.parent, capture_output=True, text=True, check=True)
        return f"a line of Ray\n{done.stdout}another\n"

    return ask


def quiet(line: str) -> None:
    """Takes what is said."""


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def expected(run: Path) -> dict[str, bytes]:
    return {name: (run / name).read_bytes() for name in ("config.toml", "empty", "weights/a b.safetensors")}


@pytest.mark.parametrize("most", [100_000, 1 << 20])
def test_a_run_arrives_in_windows_without_links_and_locks(run: Path, target: Path, most: int) -> None:
    said: list[str] = []
    receive(target, sender(run, most), said.append)
    assert contents(target) == expected(run)
    assert [path.name for path in target.parent.iterdir()] == ["job-1"]
    assert said == (["100,000 of 179,206 bytes"] if most == 100_000 else [])


def test_what_was_cut_off_goes_on_where_it_ended(run: Path, target: Path) -> None:
    asked: list[dict[str, int]] = []

    def cut(have: Mapping[str, int]) -> str:
        asked.append(dict(have))
        if len(asked) == 2:
            raise PoolError("lost the cluster")
        return sender(run, 100_000)(have)

    with pytest.raises(PoolError, match="lost the cluster"):
        receive(target, cut, quiet)
    assert not target.exists()
    receive(target, cut, quiet)
    assert contents(target) == expected(run)
    assert asked[2] == {"config.toml": 6, "weights/a b.safetensors": 99_994}


def test_a_file_that_changes_meanwhile_is_fetched_again(run: Path, target: Path) -> None:
    changes = iter([b"1" * 300_000, b"2" * 200_000])

    def ask(have: Mapping[str, int]) -> str:
        answer = sender(run, 150_000)(have)
        if (new := next(changes, None)) is not None:
            (run / "weights" / "a b.safetensors").write_bytes(new)
            (run / "journal.jsonl").write_bytes(b"{}\n")
        return answer

    receive(target, ask, quiet)
    assert contents(target) == expected(run) | {"journal.jsonl": b"{}\n"}


def test_a_run_that_always_changes_ends_in_one_line(run: Path, target: Path) -> None:
    def ask(have: Mapping[str, int]) -> str:
        return answer({"file": "a", "size": 1, "sha256": "0"}, data("a", b"x"), {"end": "all"})

    with pytest.raises(PoolError, match="the run changes while it is copied: fetch it again"):
        receive(target, ask, quiet)


def test_what_is_no_run_is_refused_and_leaves_nothing(tmp_path: Path, run: Path, target: Path) -> None:
    (run / "config.toml").unlink()
    with pytest.raises(ValueError, match=r"job-1 on .* is no run folder: it has no config.toml"):
        receive(target, sender(run), quiet)
    assert list(target.parent.iterdir()) == []
    target.mkdir()
    with pytest.raises(ValueError, match="exists: choose another folder with --out"):
        receive(target, sender(run), quiet)


def answer(*records: Mapping[str, Any]) -> str:
    return "".join(f"{MARK}{json.dumps(record)}\n" for record in records)


def data(path: str, content: bytes, at: int = 0) -> dict[str, Any]:
    return {"data": path, "at": at, "zlib": base64.b64encode(zlib.compress(content)).decode()}


A = {"file": "a", "size": 3, "sha256": ""}


@pytest.mark.parametrize(
    "text",
    [
        "",
        answer(A),
        answer({"file": "../a", "size": 3, "sha256": ""}, {"end": "all"}),
        answer({"file": "/a", "size": 3, "sha256": ""}, {"end": "all"}),
        answer({"file": "", "size": 3, "sha256": ""}, {"end": "all"}),
        answer({"file": "a", "size": -1, "sha256": ""}, {"end": "all"}),
        answer({"file": "a", "size": "3", "sha256": ""}, {"end": "all"}),
        answer(data("a", b"abc"), {"end": "all"}),
        answer(A, data("b", b"abc"), {"end": "all"}),
        answer(A, data("a", b"abcd"), {"end": "all"}),
        answer(A, data("a", b"abc", at=1), {"end": "all"}),
        answer(A, data("a", b"abc", at=-1), {"end": "all"}),
        answer(A, {"data": "a", "at": 0, "zlib": "!"}, {"end": "all"}),
        answer(A, {"data": "a", "at": 0, "zlib": "YWJj"}, {"end": "all"}),
        answer({"file": "a", "size": 1 << 20, "sha256": ""}, data("a", bytes(1 << 20)), {"end": "all"}),
        answer(A) + MARK + "{",
        MARK + "[]\n",
        MARK + "null\n",
    ],
)
def test_an_answer_that_is_damaged_or_hostile_writes_nothing_outside_and_is_one_line(text: str, tmp_path: Path) -> None:
    folder = tmp_path / "staging"
    folder.mkdir()
    with pytest.raises(PoolError, match="the cluster's answer") as error:
        take(text, folder)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["staging"]


def test_a_run_without_room_is_refused_before_it_is_written(tmp_path: Path) -> None:
    huge = {"file": "a", "size": 1 << 60, "sha256": ""}
    with pytest.raises(ValueError, match=r"has room for"):
        take(answer(huge, data("a", b"x"), {"end": "more"}), tmp_path)
    assert list(tmp_path.iterdir()) == []
