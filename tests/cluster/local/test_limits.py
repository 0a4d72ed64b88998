"""Local pools under the limits of containers and shells: they run, or say in one line what is missing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from distseq.cluster.local.pool import ending, local_pool
from distseq.cluster.local.preparation import LONGEST, short_folder
from distseq.cluster.pool import Payload, Pool, PoolError
from distseq.cluster.work import WorkSpec
from distseq.coding.plan import MiniTask
from tests.cluster.local.test_shared_memory import in_small_shm
from tests.processes import Process, hosts_below, left_after, running

ROOT = Path(__file__).resolve().parents[3]
WORKS = "tests.cluster.local.works"
# Sums one job on `hosts` hosts.
RUN = """
import sys
from tests.cluster.local.test_limits import one_job
from distseq.cluster.local.pool import local_pool
from distseq.cluster.work import WorkSpec
hosts, size, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
spec = WorkSpec("tests.cluster.local.works:Wide", "{\\"size\\": %d}" % size)
pool = local_pool(hosts, spec, hosts=hosts, shared_memory=folder)
print(len(one_job(pool, hosts)))
pool.close()
"""


def one_job(pool: Pool, n: int, number: int = 0, size: int = 10) -> np.ndarray:
    """The sum of all rows of a job."""
    tasks = [MiniTask(number, 0, worker) for worker in range(n)]
    pool.publish(number, Payload(number, 0, 0, np.zeros(size, np.float32), np.arange(n), 0, "uncoded", n))
    pool.send(tasks)
    arrived = 0
    while arrived < n:
        arrived += len(pool.poll(None))
    total = pool.collect(number, dict.fromkeys(tasks, 1.0))
    pool.retire(number)
    return total


def run(
    limits: str, hosts: int = 2, size: int = 1, folder: str = "", **environment: str
) -> "subprocess.CompletedProcess[str]":
    """The job in a process of its own, in a shell after `limits`."""
    words = ["sh", "-c", f'{limits} && exec {sys.executable} -c "$CODE" {hosts} {size} "{folder}"']
    return subprocess.run(
        words, cwd=ROOT, env=os.environ | {"CODE": RUN} | environment, capture_output=True, text=True, check=False
    )


def last_line(found: "subprocess.CompletedProcess[str]") -> str:
    return found.stderr.splitlines()[-1]


def test_64_descriptors_are_enough_for_two_hosts() -> None:
    found = run("ulimit -n 64")
    assert (found.stdout, found.stderr) == ("1\n", "")


def test_a_low_soft_limit_is_raised_as_far_as_needed() -> None:
    found = run("ulimit -Sn 32")
    assert (found.stdout, found.stderr) == ("1\n", "")


def test_too_few_descriptors_are_refused_before_anything_starts() -> None:
    found = run("ulimit -n 64", hosts=9)
    assert found.returncode == 1
    assert "ValueError: 9 local processes need about " in last_line(found)
    assert "this process may open 64: allow more with ulimit -n 1" in last_line(found)


def test_a_temporary_folder_with_a_long_path_is_no_obstacle(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * (135 - len(str(tmp_path)) - 1))
    folder.mkdir()
    found = run("true", TMPDIR=str(folder))
    assert (found.stdout, found.stderr) == ("1\n", "")


@pytest.mark.parametrize("folder", ["/nowhere", "/proc"])
def test_nor_is_one_that_cannot_be_written_to(folder: str) -> None:
    found = run("true", TMPDIR=folder)
    assert (found.stdout, found.stderr) == ("1\n", "")


def test_where_no_temporary_folder_will_do_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    long = "/tmp/" + "x" * 140
    monkeypatch.setattr("tempfile.tempdir", long)
    monkeypatch.setattr("distseq.cluster.local.preparation._writable", lambda folder: folder == long)
    with pytest.raises(
        ValueError, match=rf"temporary folder with a path of at most {LONGEST - 32} bytes .* has 145, .* set TMPDIR"
    ):
        short_folder()


def test_a_pool_needs_no_room_in_dev_shm() -> None:
    found = in_small_shm(
        "4k", RUN.replace("int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]", '2, 1 << 20, ""').replace("'", '"')
    )
    assert (found.stdout, found.stderr) == ("1048576\n", "")


def test_a_host_that_finds_dev_shm_full_says_so() -> None:
    sizes = RUN.replace("int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]", '2, 1 << 20, "/dev/shm"')
    begun = time.monotonic()
    found = in_small_shm("6m", sizes)
    assert time.monotonic() - begun < 25, "sooner than a silent host is noticed"
    assert "PoolError: process host-" in last_line(found)
    assert "cannot go on: shared memory in /dev/shm is full: 8.00 MiB more are needed" in last_line(found)


def test_shared_memory_may_be_files_on_a_disk(tmp_path: Path) -> None:
    found = run("true", size=1 << 20, folder=str(tmp_path))
    assert (found.stdout, found.stderr) == ("1048576\n", "")
    assert not list(tmp_path.iterdir())


def test_a_host_that_may_open_no_more_files_says_so_at_once() -> None:
    pool = local_pool(1, WorkSpec(f"{WORKS}:Few"), hosts=1)
    with pytest.raises(PoolError, match=r"host-0 cannot go on: .*Too many open files.*: allow more .* ulimit -n"):
        one_job(pool, 1)
    assert pool.now() < 20
    pool.close()


def test_hosts_survive_an_interrupt_of_the_terminal_and_have_none() -> None:
    pool = local_pool(2, WorkSpec(f"{WORKS}:Wide"), hosts=2)
    one_job(pool, 2)
    before = pool.pids()
    for pid in before:
        assert os.getsid(pid) not in (os.getsid(0), 0)
        os.kill(pid, signal.SIGINT)
    one_job(pool, 2, number=1)
    assert pool.pids() == before
    pool.close()


def test_a_host_that_the_terminal_hangs_up_on_is_replaced_and_nothing_is_lost() -> None:
    pool = local_pool(2, WorkSpec(f"{WORKS}:Wide"), hosts=2)
    os.kill(pool.pids()[0], signal.SIGHUP)
    np.testing.assert_array_equal(one_job(pool, 2), [2.0])
    pool.close()


def test_a_host_that_was_stopped_and_goes_on_is_the_same_host() -> None:
    pool = local_pool(2, WorkSpec(f"{WORKS}:Wide"), hosts=2)
    before = pool.pids()
    os.kill(before[0], signal.SIGSTOP)
    pool.poll(pool.now() + 0.5)
    os.kill(before[0], signal.SIGCONT)
    np.testing.assert_array_equal(one_job(pool, 2), [2.0])
    assert pool.pids() == before
    pool.close()


@pytest.mark.parametrize(
    ("work", "blow"),
    [
        ("Stuck", signal.SIGKILL),
        ("Stopped", signal.SIGKILL),
        ("Wide", signal.SIGHUP),
        pytest.param("Wide", signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param("Stuck", signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_hosts_die_with_their_driver_whatever_they_do(work: str, blow: signal.Signals) -> None:
    code = f"""
from tests.cluster.local.test_limits import *
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it
pool = local_pool(1, WorkSpec("{WORKS}:{work}"), hosts=1)
pool.publish(0, Payload(0, 0, 0, np.zeros(1), np.arange(1), 0, "uncoded", 1))
pool.send([MiniTask(0, 0, 0)])
pool.poll(pool.now() + 1)
print("ready", flush=True)
signal.pause()
"""
    driver = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    assert driver.stdout.readline() == "ready\n"
    hosts: set[Process] = hosts_below(driver.pid)
    assert len(running(hosts)) == 1
    driver.send_signal(blow)
    driver.wait()
    driver.stdout.close()
    assert not left_after(10, hosts)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (3, "ended with exit code 3"),
        (-11, "was ended by SIGSEGV"),
        (-99, "was ended by signal 99"),
        (None, "has closed its socket"),
    ],
)
def test_how_a_process_ended_is_said_by_the_name_of_its_signal(code: int | None, words: str) -> None:
    assert ending(code) == words
