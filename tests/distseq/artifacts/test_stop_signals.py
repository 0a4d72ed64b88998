"""Signals: the first ends a run in order, with a checkpoint; the second at once."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.distseq.artifacts.crashing import applied, assert_same_bits, train, weights

ROOT = Path(__file__).resolve().parents[3]


def start(*words: str, cwd: Path, **options: Any) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "distseq", "train", *words]
    return subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
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
@pytest.mark.parametrize(
    ("number", "code"),
    [pytest.param(signal.SIGTERM, 143, marks=pytest.mark.long), (signal.SIGINT, 130), (signal.SIGHUP, 129)],
)
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
def test_ctrl_c_at_a_terminal_is_heard_by_the_driver_and_not_by_the_hosts_of_a_local_pool(job: Path) -> None:
    process = start(
        *("job.toml", "--pool", "local", "--hosts", "2", "--steps", "400", "--out", "run"),
        cwd=job.parent,
        start_new_session=True,
    )
    until_some_jobs_are_done(process)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    done = sum(applied(job.parent / "run").values())
    assert err == f"stopped after {done} of 1200 jobs; go on with: distseq train --resume run\n"


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


TWICE = """
import os, signal, sys
from distseq.cluster.system.stop_signals import StopRequest, end_at_second_signal
if sys.argv[2] == "ours":
    end_at_second_signal()
request = StopRequest()
before = signal.getsignal(signal.SIGINT)
request.install()
os.kill(os.getpid(), signal.SIGINT)
print(request.code, flush=True)
if sys.argv[1] == "twice":
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except KeyboardInterrupt:
        print("interrupted")
request.restore()
assert signal.getsignal(signal.SIGINT) is before
"""


@pytest.mark.parametrize(
    ("times", "whose", "code", "out"),
    [
        ("once", "ours", 0, "130\n"),
        ("twice", "ours", 143, "130\n"),
        # In a notebook or a script there is more to lose than the run.
        ("twice", "theirs", 0, "130\ninterrupted\n"),
    ],
)
def test_the_first_signal_is_noted_and_the_second_ends_the_process(times: str, whose: str, code: int, out: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    answer = subprocess.run(
        [sys.executable, "-c", TWICE, times, whose], env=environment, capture_output=True, text=True, check=False
    )
    assert (answer.returncode, answer.stdout, answer.stderr) == (code, out, "")
