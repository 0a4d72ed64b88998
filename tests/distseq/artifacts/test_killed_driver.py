"""SIGKILL of the driver over pools of real workers: what remains is its run folder, and from that the same weights."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from distseq.engine.journal import read_journal
from tests.processes import Process, command_line, descendants, hosts_below, left_after

ROOT = Path(__file__).resolve().parents[3]
LEARNERS, STEPS = ("a", "b", "c", "d"), 15
JOBS = STEPS * len(LEARNERS)
GONE_WITHIN = 30.0  # seconds for the workers of a dead driver to end
# Ray's own agents first try to tell a head that is dead too, for a minute.
AGENTS, AGENTS_GONE_WITHIN = ("ray::DashboardAgent", "ray::RuntimeEnvAgent"), 150.0
# With as many learners, any three jobs in a row are of different ones: that many can be lost with every = 1, one being
# written, one waiting for that, one waiting for its turn to wait.
JOB = f"""
[run]
steps = {STEPS}
checks = 0
[pool]
workers = 6
hosts = 2
delays = "bursts:base=0.03"
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
{"".join(f'[[learner]]{chr(10)}name = "{name}"{chr(10)}' for name in LEARNERS)}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a job and its data."""
    (tmp_path / "text.txt").write_text("".join(f"{k} green bottles, and {k * k} more.\n" for k in range(90)))
    (tmp_path / "job.toml").write_text(JOB.replace("TEXT", str(tmp_path / "text.txt")))
    return tmp_path


def start(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with open(folder / "output.txt", "ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "distseq", "train", *words],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=output,
        )


def finish(folder: Path, *words: str) -> None:
    assert start(folder, *words).wait(timeout=400) == 0, (folder / "output.txt").read_text()


def done(run: Path) -> int:
    """Jobs that the journal has applied, those that a resumed run has done again counted once."""
    path = run / "journal.jsonl"
    records = read_journal(path) if path.exists() else ()
    return len({(record["learner"], record["step"]) for record in records if record["kind"] == "job"})


def redone(run: Path) -> list[dict[str, int]]:
    """For each time that the run was resumed, the jobs of each learner that were applied before and are done again."""
    made, again = dict.fromkeys(LEARNERS, 0), list[dict[str, int]]()
    for record in read_journal(run / "journal.jsonl"):
        if record["kind"] == "job":
            made[record["learner"]] = record["step"] + 1
        elif record["kind"] == "resume":
            again.append({name: made[name] - record["steps"][name] for name in LEARNERS})
            made = dict(record["steps"])
    return again


def weights(run: Path) -> list[bytes]:
    return [(run / "weights" / f"{name}.safetensors").read_bytes() for name in LEARNERS]


class Killed:
    """A driver is killed once so many jobs are done: the processes it had.

    It is stopped for that look: what it had is then what it dies with.
    """

    def __init__(self, driver: subprocess.Popen[bytes], others: set[Process], run: Path, jobs: int) -> None:
        """`others`: hosts of this process itself, from before the driver."""
        while done(run) < jobs:
            assert driver.poll() is None, (run.parent / "output.txt").read_text()
            time.sleep(0.002)
        driver.send_signal(signal.SIGSTOP)
        # The actors of a cluster are children of its node, and that of this process.
        self.processes = (descendants(driver.pid) | hosts_below(os.getpid())) - others
        self.agents = {process for process in self.processes if command_line(process).startswith(AGENTS)}
        driver.kill()
        assert driver.wait(timeout=10) == -signal.SIGKILL, "the run was over before it was killed"

    def assert_workers_are_gone(self) -> None:
        assert_gone(GONE_WITHIN, self.processes - self.agents)


def assert_gone(seconds: float, processes: set[Process]) -> None:
    left = left_after(seconds, processes)
    assert not left, {process.pid: command_line(process) for process in left}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pool", "times"),
    [
        ("local", 2),
        pytest.param("local", 5, marks=pytest.mark.long),
        # A driver with a Ray of its own, and one that is a guest of a cluster.
        pytest.param("ray", 2, marks=pytest.mark.ray),
        pytest.param("ray", 5, marks=[pytest.mark.ray, pytest.mark.long]),
    ],
)
def test_a_driver_killed_again_and_again_ends_with_the_same_weights_and_leaves_nothing_behind(
    folder: Path, pool: str, times: int, request: pytest.FixtureRequest
) -> None:
    address: tuple[str, ...] = ()
    if pool == "ray":
        import ray

        request.getfixturevalue("ray_session")
        address = ("--address", ray.get_runtime_context().gcs_address)
    run = folder / "run"
    finish(folder, "job.toml", "--out", "whole", "--pool", pool, *address)
    kills = sorted(np.random.default_rng(5).choice(np.arange(2, JOBS - 8, 4), times, replace=False).tolist())
    # The first driver has a Ray of its own, which must go with it; the others are guests of a cluster.
    agents: set[Process] = set()
    words: tuple[str, ...] = ("job.toml", "--out", "run", "--pool", pool)
    for jobs in kills:
        others = hosts_below(os.getpid())
        killed = Killed(start(folder, *words), others, run, jobs)
        assert killed.processes
        killed.assert_workers_are_gone()
        agents |= killed.agents
        words = ("--resume", "run", *address)
    finish(folder, *words)
    assert weights(run) == weights(folder / "whole")
    again = redone(run)
    assert len(again) == times
    assert all(0 <= jobs <= 1 for each in again for jobs in each.values()), again
    assert_gone(AGENTS_GONE_WITHIN, agents)
