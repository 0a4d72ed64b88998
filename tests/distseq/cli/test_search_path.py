"""No file of the current folder hides an installed package; models of the current folder are still found."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
# As the console script that pip writes.
SCRIPT = ["-c", "import sys; sys.argv[0] = 'distseq'; from distseq.cli.main import main; main()"]
PACKAGES = ("numba", "numpy", "scipy", "ray", "pydantic", "torch", "click", "rich", "tomli_w", "boto3")
JOB = """
[run]
steps = 1
checks = 0
[pool]
kind = "POOL"
workers = 2
[scheduler]
scheme = "uncoded"
[[learner]]
name = "a"
model = "nets:build"
data = "text:text.txt"
data_args = { window = 4 }
batch = 4
"""


def distseq(*words: str, cwd: Path, start: list[str]) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *(["-P"] if start is SCRIPT else []), *start, *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in PACKAGES:
        (tmp_path / f"{name}.py").write_text(
            "open('ran', 'a').write(__name__ + ' ')\nraise SystemExit('of the folder')\n"
        )
    (tmp_path / "nets.py").write_text(
        "from distseq.models.char_lstm import CharLSTM\ndef build():\n    return CharLSTM(hidden=4)\n"
    )
    (tmp_path / "text.txt").write_text("to be or not to be, that is the question. " * 20)
    return tmp_path


@pytest.mark.parametrize("start", [["-m", "distseq"], SCRIPT], ids=["module", "script"])
def test_a_file_named_like_a_package_does_not_run_in_simulate(folder: Path, start: list[str]) -> None:
    ended = distseq("simulate", "--profile", "none", "--workers", "2", "--jobs", "2", cwd=folder, start=start)
    assert not (folder / "ran").exists()
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("pool", ["simulated", pytest.param("local", marks=pytest.mark.slow)])
def test_a_model_of_the_folder_is_found_beside_such_files(folder: Path, pool: str) -> None:
    (folder / "job.toml").write_text(JOB.replace("POOL", pool))
    ended = distseq("train", "job.toml", "--out", "run", cwd=folder, start=["-m", "distseq"])
    assert not (folder / "ran").exists()
    assert ended.returncode == 0, ended.stderr
    assert (folder / "run" / "weights" / "a.safetensors").is_file()
