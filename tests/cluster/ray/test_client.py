"""What the client of Ray's jobs makes of logs, exit codes, addresses and answers; no cluster is needed."""

import os
from pathlib import Path
from types import SimpleNamespace
from zipfile import ZipFile

import pytest

pytest.importorskip("ray")

from ray._private.runtime_env.packaging import create_package
from ray.job_submission import JobStatus

from distseq.cluster.ray.inventory import read_answer
from distseq.cluster.ray.jobs import JobServer, _exit_code, _Log
from distseq.cluster.ray.session import Access
from distseq.cluster.ray.working_dir import contents
from tests.cluster.ray.head import free_port


def test_a_log_that_begins_again_is_written_once() -> None:
    written: list[str] = []
    log = _Log(written.append)
    for chunks in (["ab", "c"], [], ["a"], ["abc", "d"], ["ab", "cde", "f"]):
        log.rewind()
        for chunk in chunks:
            log.add(chunk)
    assert "".join(written) == "abcdef"


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (JobStatus.SUCCEEDED, 0, 0),
        (JobStatus.FAILED, 7, 7),
        (JobStatus.FAILED, -9, 137),
        (JobStatus.FAILED, None, 1),
        (JobStatus.FAILED, 0, 1),
        (JobStatus.STOPPED, None, 130),
    ],
)
def test_the_exit_code_is_the_entrypoint_s_where_ray_knows_it(
    status: JobStatus, code: int | None, expected: int
) -> None:
    details = SimpleNamespace(status=status, driver_exit_code=code, message="why, last available logs: many\nlines")
    said: list[str] = []
    assert _exit_code("job-1", details, said.append) == expected
    assert said == {
        JobStatus.FAILED: ["Ray job job-1 failed: why"],
        JobStatus.STOPPED: ["Ray job job-1 was stopped"],
    }.get(status, [])


@pytest.mark.parametrize("address", ["", "auto", "127.0.0.1:8265", "ray://127.0.0.1:10001", "http://", "http://h:x"])
def test_an_address_that_is_no_dashboard_s_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"the address of a cluster's job server must be like http://HOST:8265: got "):
        JobServer(Access(address))


def test_no_cluster_at_an_address_is_one_line() -> None:
    address = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ValueError, match=f"^no Ray cluster at {address}: Connection refused$"):
        JobServer(Access(address))


def test_the_contents_of_a_folder_are_what_ray_would_pack(tmp_path: Path) -> None:
    folder, packed = tmp_path / "work", tmp_path / "packed.zip"
    texts = {".gitignore": "*.bin\n/out/\n", "in/.rayignore": "secret", "a.py": "1", "in/b.py": "22", "distseq/c": "3"}
    texts |= {"big.bin": "4", "out/d": "5", "in/secret": "6", "in/out/e": "7", ".git/head": "8"}
    for path, text in texts.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    create_package(str(folder), packed, include_gitignore=True, include_parent_dir=False, excludes=["/distseq", ".git"])
    sizes = {entry.filename: entry.file_size for entry in ZipFile(packed).infolist() if not entry.is_dir()}
    assert contents(folder, ["/distseq"]) == sizes
    assert {"a.py", "in/b.py", "in/out/e"} <= sizes.keys()


def test_a_link_to_nowhere_is_no_file(tmp_path: Path) -> None:
    os.symlink("gone", tmp_path / "link")
    assert contents(tmp_path, []) == {}


def test_the_answer_of_the_nodes_is_found_among_other_lines() -> None:
    said = 'noise\ndistseq nodes: {"driver": {}, "nodes": []}\nmore noise\n'
    assert read_answer(said, "a", None) == {"driver": {}, "nodes": []}


@pytest.mark.parametrize(
    ("said", "source", "reason"),
    [
        (
            "Traceback\nConnectionError: none\n\n",
            None,
            r"cannot list the nodes of the cluster at .*: ConnectionError: none",
        ),
        ("", None, r"cannot list the nodes of the cluster at .*: the script wrote nothing"),
        ("RPC error: InvalidAuthToken: x\nConnectionError: y", "T", r"rejects the token of T \(403\)"),
        ("RPC error: InvalidAuthToken: x\nConnectionError: y", None, r"sent none \(401\)"),
    ],
)
def test_no_answer_of_the_nodes_says_why(said: str, source: str | None, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_answer(said, "127.0.0.1:6379", source)
