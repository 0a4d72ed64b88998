"""A local Ray of a run's own, clusters that are gone, and clusters that cannot be trusted."""

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("ray")

from distseq.cluster.ray import control_store, session
from distseq.cluster.ray.session import Access, locate
from tests.cluster.ray.head import Cluster, free_port, head

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without a Ray: no variables, no token, no processes; the folder of its cluster file."""
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(session.services, "find_gcs_addresses", FakeSearch(frozenset()))
    monkeypatch.setattr(session, "_running", lambda: None)
    return tmp_path / "ray"


class FakeSearch:
    """Ray's search for control stores among the processes of this machine, which may run Rays of others."""

    def __init__(self, found: frozenset[str]) -> None:
        self._found = found

    def __call__(self) -> frozenset[str]:
        return self._found

    def cache_clear(self) -> None:
        """Keeps nothing."""


def test_without_an_address_a_run_has_a_ray_of_its_own(nothing: Path) -> None:
    assert locate(Access()) == ("local", "")


def test_a_cluster_file_of_a_cluster_that_is_gone_is_found_out_within_seconds(nothing: Path) -> None:
    gone = f"127.0.0.1:{free_port()}"
    nothing.mkdir()
    (nothing / "ray_current_cluster").write_text(f"{gone}\n")
    begun = time.monotonic()
    with pytest.raises(
        ValueError, match=rf"^no Ray cluster answers at {gone}, .*ray_current_cluster, of a cluster that is gone: "
    ):
        locate(Access("auto"))
    assert time.monotonic() - begun < 3


def test_a_machine_without_a_cluster_says_how_to_have_one(nothing: Path) -> None:
    with pytest.raises(
        ValueError, match=r"no Ray cluster runs on this machine: start one with `ray start --head`, or name"
    ):
        locate(Access("auto"))


def test_of_several_clusters_one_must_be_named(nothing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = FakeSearch(frozenset({"10.0.0.1:6379", "10.0.0.1:6380", "127.0.0.1:6381"}))
    monkeypatch.setattr(session.services, "find_gcs_addresses", found)
    with pytest.raises(
        ValueError, match=r"several Ray clusters run on this machine, 10\.0\.0\.1:6379, 10\.0\.0\.1:6380: name one"
    ):
        locate(Access("auto"))


def test_what_listens_but_is_no_control_store_is_said_within_seconds(
    nothing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_store, "SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_take, args=(server,), daemon=True)
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(
            ValueError, match=rf"what listens at {address} is no Ray cluster's control store \(.*\): its port"
        ):
            locate(Access(address))


def _take(server: socket.socket) -> None:
    """Accepts connections and says nothing."""
    kept = []
    try:
        while True:
            kept.append(server.accept())
    except OSError:
        for connection, _ in kept:
            connection.close()


LOCAL = """
import os
import sys
from pathlib import Path

from distseq.cluster.ray.pool import ray_pool
from distseq.cluster.work import WorkSpec

before = dict(os.environ)
pool = ray_pool(2, WorkSpec("distseq.cluster.probe:Probe", '{"size": 4}'), hosts=1)
session = os.getsid(0)
inodes = set()
for process in Path("/proc").glob("[0-9]*"):
    try:
        if before["MINE"].encode() in (process / "environ").read_bytes():
            inodes |= {os.readlink(file) for file in (process / "fd").iterdir()}
    except OSError:
        continue
heard = set()
for table in ("tcp", "tcp6"):
    for line in Path("/proc/net", table).read_text().splitlines()[1:]:
        words = line.split()
        if words[3] == "0A" and f"socket:[{words[9]}]" in inodes:
            heard.add(words[1].partition(":")[0])
print(*sorted(heard))
print(os.environ["RAY_AUTH_MODE"], len(os.environ["RAY_AUTH_TOKEN"]))
pool.close()
print({name for name in os.environ if name.startswith("RAY_AUTH")}, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" in os.environ)
"""
# 127.0.0.1, as the kernel writes it for IPv4 and for IPv6.
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}


@pytest.mark.ray
@pytest.mark.slow
def test_a_local_ray_listens_on_this_machine_alone_and_leaves_no_token(tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = kept | {"HOME": str(tmp_path), "MINE": tmp_path.name + str(os.getpid()), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", LOCAL], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    heard, token, after = done.stdout.splitlines()
    assert set(heard.split())
    assert set(heard.split()) <= LOOPBACK
    assert token == "token 64"
    assert after == "set() False"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.fixture(scope="module")
def open_cluster() -> Iterator[Cluster]:
    """A head without authentication, which listens on all interfaces, as `ray start --head` makes it."""
    with head("disabled") as found:
        yield found


def distseq(cluster: Cluster, folder: Path, *words: str, token: bool = True) -> "subprocess.CompletedProcess[str]":
    kept = {k: v for k, v in cluster.environment.items() if not k.startswith("RAY_AUTH")}
    given = {"RAY_AUTH_TOKEN": cluster.environment["RAY_AUTH_TOKEN"]} if token else {}
    environment = {**kept, "HOME": str(folder), "PYTHONPATH": str(ROOT), **given}
    command = [sys.executable, "-m", "distseq", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.ray
@pytest.mark.slow
def test_a_cluster_without_authentication_is_refused_unless_it_is_accepted(
    open_cluster: Cluster, tmp_path: Path
) -> None:
    profile = ("profile", "--pool", "ray", "--workers", "1", "--rounds", "2", "--out", "x.npz", "--address")
    refused = distseq(open_cluster, tmp_path, *profile, open_cluster.store)
    reason = (
        f"error: the Ray cluster at {open_cluster.store} has no authentication: whoever reaches it can run code there"
    )
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert refused.stderr.startswith(reason)
    assert "with --insecure (insecure = true in [pool])" in refused.stderr
    seen = distseq(open_cluster, tmp_path, "doctor", "--address", open_cluster.store)
    assert re.search(f"^error +cluster: {re.escape(reason.removeprefix('error: '))}", seen.stdout, re.MULTILINE)
    assert seen.returncode == 1
    accepted = distseq(open_cluster, tmp_path, *profile, open_cluster.store, "--insecure")
    assert accepted.returncode == 0, accepted.stderr


@pytest.mark.ray
@pytest.mark.slow
def test_the_doctor_fails_where_a_run_would_for_lack_of_a_token(cluster: Cluster, tmp_path: Path) -> None:
    profile = (
        "profile",
        "--pool",
        "ray",
        "--workers",
        "1",
        "--rounds",
        "2",
        "--out",
        "x.npz",
        "--address",
        cluster.store,
    )
    doctor = ("doctor", "--address", cluster.store)
    reason = f"the cluster at {cluster.store} requires a token and was sent none (401): put the cluster's token in"
    run, seen = (distseq(cluster, tmp_path, *words, token=False) for words in (profile, doctor))
    assert (run.returncode, seen.returncode, run.stderr.count("\n")) == (2, 1, 1)
    assert run.stderr.startswith(f"error: {reason}")
    assert reason in seen.stdout
    (tmp_path / "token").write_text(cluster.token)
    (tmp_path / "wrong").write_text("0" * 64)
    run, seen = (
        distseq(cluster, tmp_path, *words, "--token-file", "token", token=False) for words in (profile, doctor)
    )
    assert run.returncode == 0, run.stderr
    assert "ok       cluster: " in seen.stdout, seen.stdout
    wrong = distseq(cluster, tmp_path, *profile, "--token-file", "wrong", token=False)
    assert wrong.stderr.startswith(f"error: the cluster at {cluster.store} rejects the token of wrong (403)")
