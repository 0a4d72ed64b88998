"""The command on machines that fail it: a full disk, a closed pipe, a console without Unicode, a read-only home, a pause."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.distseq.artifacts.crashing import JOBS, applied, assert_same_bits, train, weights
from tests.distseq.artifacts.test_any_end import Whole
from tests.distseq.artifacts.test_stop_signals import ROOT, start, until_some_jobs_are_done

pytestmark = pytest.mark.slow
DISTSEQ = f"{sys.executable} -m distseq"


def shell(job: Path, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(
        ["bash", "-c", script], cwd=job.parent, env=variables, capture_output=True, text=True, timeout=120, check=False
    )


def namespaces() -> bool:
    """Whether this user may mount file systems that only his own processes see."""
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "-o", "size=64k", "none", "/mnt"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


needs_mounts = pytest.mark.skipif(not namespaces(), reason="needs user namespaces, to mount a small file system")


@needs_mounts
def test_a_disk_that_fills_up_ends_in_one_line_and_the_run_goes_on_where_there_is_room(job: Path, whole: Whole) -> None:
    # It holds two checkpoints beside the journal, not the weights as well.
    script = f"""
    mkdir disk && mount -t tmpfs -o size=160k none disk
    {DISTSEQ} train job.toml --out disk/run > out.txt; echo $?
    cp -r disk/run saved
    """
    answer = shell(job, f"unshare -rm bash -c '{script}'")
    assert answer.stdout == "1\n", answer.stderr
    assert answer.stderr.count("\n") == 1
    assert re.search(
        r"cannot write disk/run/\S+: No space left on device; go on with: distseq train --resume disk/run",
        answer.stderr,
    )
    assert (job.parent / "out.txt").read_text().count("warning: ") <= 1
    result, _ = train(resume=job.parent / "saved")
    assert_same_bits(weights(result), whole())
    assert max(applied(job.parent / "saved").values()) == 1, "nothing that was applied is redone"


def test_a_closed_pipe_ends_nothing(job: Path, whole: Whole) -> None:
    answer = shell(job, f"{DISTSEQ} train job.toml --out run | head -1; echo ${{PIPESTATUS[0]}}")
    assert (answer.stdout.splitlines()[-1], answer.stderr) == ("0", "")
    assert_same_bits(weights(train(resume=job.parent / "run")[0]), whole())


@pytest.mark.parametrize(
    "command", ["simulate --profile bursts --scheme gc:1 --scheme uncoded", "--help", "plan --help"]
)
def test_other_commands_end_quietly_at_a_closed_pipe(job: Path, command: str) -> None:
    answer = shell(job, f"{DISTSEQ} {command} | true")
    assert answer.stderr == ""


def test_a_console_without_unicode_shows_what_it_can(job: Path) -> None:
    job.write_text(job.read_text().replace("clip = 0.1", 'clip = "–"'))
    answer = shell(job, f"{DISTSEQ} train job.toml", PYTHONIOENCODING="latin-1")
    assert answer.returncode == 2
    assert answer.stderr.startswith("error: ")
    assert answer.stderr.count("\n") == 1
    assert "\\u2013" in answer.stderr


@pytest.mark.parametrize("options", ["", "--scheduler auto"])
def test_a_home_that_cannot_be_written_matters_to_nobody(job: Path, options: str) -> None:
    answer = shell(
        job, f"{DISTSEQ} train job.toml --out run {options}", HOME="/dev/null/home", XDG_CACHE_HOME="/dev/null"
    )
    assert (answer.returncode, answer.stderr) == (0, "")


def test_few_descriptors_are_enough_for_a_run_in_the_simulator(job: Path) -> None:
    answer = shell(job, f"ulimit -n 40; {DISTSEQ} train job.toml --out run")
    assert (answer.returncode, answer.stderr) == (0, "")


def test_a_pause_of_a_run_on_the_local_pool_is_none_of_its_business(job: Path, whole: Whole) -> None:
    process = start("job.toml", "--pool", "local", "--hosts", "2", "--out", "run", cwd=job.parent)
    until_some_jobs_are_done(process)
    process.send_signal(signal.SIGSTOP)
    time.sleep(2.0)
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert "replaced" not in out
    assert_same_bits(weights(train(resume=job.parent / "run")[0]), whole())


def test_two_drivers_on_one_folder_are_one(job: Path, whole: Whole) -> None:
    both = [start("job.toml", "--out", "run", cwd=job.parent) for _ in range(2)]
    ends = [(process.communicate(timeout=120)[1], process.returncode) for process in both]
    (lost,) = [err for err, code in ends if code == 2]
    assert [code for _, code in ends if code != 2] == [0]
    assert lost.startswith("error: ")
    assert lost.count("\n") == 1
    assert "is in use by process" in lost or "is not empty" in lost
    result, printed = train(resume=job.parent / "run")
    assert f"is complete, {JOBS} jobs" in printed
    assert_same_bits(weights(result), whole())
