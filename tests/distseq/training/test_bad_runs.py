"""What a user can get wrong that shows only over real workers: one clear error, workers released, no process left.

Checkpoints that are truncated or of a newer version: tests/distseq/artifacts/test_checkpoint.py; of another run: test_resume.py
beside it.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.processes import Process, command_line, descendants, left_after

ROOT = Path(__file__).resolve().parents[3]
GONE_WITHIN = 30.0  # seconds for workers to end after their driver
JOB = """
[run]
steps = 3
[pool]
workers = 4
hosts = 2
[defaults]
model = "MODEL"
data = "text:TEXT"
data_args = { window = 5 }
batch = 8
[[learner]]
name = "a"
[[learner]]
name = "b"
"""
# A model of a module that is nowhere but in the driver, as one made in a notebook is.
HERE = """
import sys, types
sys.modules["only_here"] = types.ModuleType("only_here")
def build():
    from distseq.models.char_lstm import CharLSTM
    return CharLSTM(hidden=4)
sys.modules["only_here"].build = build
from distseq.cli.main import main
main()
"""
# A module that every host has and that builds another model on each.
TWO_SIZES = """
import os
from distseq.models.char_lstm import CharLSTM
def build():
    return CharLSTM(hidden=4 if os.environ.get("DRIVER") == str(os.getpid()) else 5)
"""
DRIVER = """
import os
os.environ["DRIVER"] = str(os.getpid())
from distseq.cli.main import main
main()
"""
# Workers whose rows are a number short: all of them, or those of some parts.
SHORT_ROWS = """
from distseq.gradients.work import GradientWork
class All(GradientWork):
    def row(self, *work):
        return super().row(*work)[:-1]
class Some(GradientWork):
    def row(self, payload, ids, *work):
        return super().row(payload, ids, *work)[: -1 if len(ids) and payload.ids[0] == ids[0] else None]
"""
SHORT = """
import distseq.learners.fleet
WorkSpec = distseq.learners.fleet.WorkSpec
distseq.learners.fleet.WorkSpec = lambda target, *rest, **named: WorkSpec("short_rows:WHICH", *rest, **named)
from distseq.cli.main import main
main()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text("a line of text that is long enough to train on\n" * 40)
    (tmp_path / "two_sizes.py").write_text(TWO_SIZES)
    (tmp_path / "short_rows.py").write_text(SHORT_ROWS)
    return tmp_path


class Ended(NamedTuple):
    code: int
    error: str
    processes: set[Process]  # that the driver has had below it


def train(folder: Path, model: str, *words: str, script: str = DRIVER) -> Ended:
    """`distseq train` in a process of its own, to its end."""
    text = JOB.replace("MODEL", model).replace("TEXT", str(folder / "text.txt"))
    (folder / "job.toml").write_text(text)
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{folder}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script, "train", "job.toml", "--out", "run", *words]
    processes = set[Process]()
    with open(folder / "out.txt", "w") as out, open(folder / "error.txt", "w") as error:
        driver = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=error)
        while driver.poll() is None:
            processes |= descendants(driver.pid)
            time.sleep(0.05)
    return Ended(driver.returncode, (folder / "error.txt").read_text(), processes)


def assert_gone(processes: set[Process]) -> None:
    left = left_after(GONE_WITHIN, processes)
    assert not left, {process.pid: command_line(process) for process in left}


def assert_one_error(ended: Ended, codes: tuple[int, ...], message: str) -> None:
    assert ended.code in codes, ended.error
    assert len(re.findall("^error: ", ended.error, re.MULTILINE)) == 1, ended.error
    assert re.search(message, ended.error), ended.error


POOLS = ["local", pytest.param("ray", marks=pytest.mark.ray)]
# What the driver does with a row, whatever the pool.
MOSTLY_LOCAL = ["local", pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.long])]


@pytest.mark.ray
@pytest.mark.timeout(90)
@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:1", "no Ray cluster at 127.0.0.1:1: Connection refused"),
        ("no-such-host.invalid:6379", "no Ray cluster at no-such-host.invalid:6379: "),
        ("ray://127.0.0.1:1", "address 'ray://127.0.0.1:1': ray:// addresses are those of Ray Client"),
        ("127.0.0.1:99999", "address must be HOST:PORT, auto or local: got '127.0.0.1:99999'"),
    ],
)
def test_where_no_cluster_listens_is_said_at_once(address: str, said: str, tmp_path: Path) -> None:
    """In a process of its own: one that has a Ray already uses it."""
    words = ["profile", "--pool", "ray", "--address", address, "--out", str(tmp_path / "x.npz")]
    command, environment = [sys.executable, "-m", "distseq", *words], os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"error: {said}")
    assert ended.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.ray
def test_a_run_on_no_cluster_leaves_no_folder_and_no_process(folder: Path) -> None:
    ended = train(folder, "two_sizes:build", "--pool", "ray", "--address", "127.0.0.1:1")
    assert_one_error(ended, (2,), "no Ray cluster at 127.0.0.1:1: Connection refused")
    assert ended.error.count("\n") == 1
    assert not (folder / "run").exists()
    assert_gone(ended.processes)


@pytest.mark.slow
@pytest.mark.parametrize("pool", POOLS)
def test_a_model_that_workers_cannot_import_is_one_error(folder: Path, pool: str) -> None:
    ended = train(folder, "only_here:build", "--pool", pool, script=HERE)
    assert_one_error(ended, (1,), "cannot import 'only_here:build': No module named 'only_here'")
    assert_gone(ended.processes)


@pytest.mark.slow
@pytest.mark.parametrize("pool", MOSTLY_LOCAL)
def test_a_model_that_workers_build_in_another_size_is_one_error(folder: Path, pool: str) -> None:
    ended = train(folder, "two_sizes:build", "--pool", pool)
    assert_one_error(ended, (1,), r"the model has \d+ parameters, the vector \d+")
    assert_gone(ended.processes)


@pytest.mark.slow
@pytest.mark.parametrize("pool", MOSTLY_LOCAL)
@pytest.mark.parametrize("which", ["All", "Some"])
def test_a_row_of_the_wrong_length_is_one_error(folder: Path, pool: str, which: str) -> None:
    ended = train(folder, "distseq.models.char_lstm:CharLSTM", "--pool", pool, script=SHORT.replace("WHICH", which))
    assert_one_error(ended, (1, 2), "a row must have|rows of one job must have equal lengths")
    assert_gone(ended.processes)
