"""`distseq doctor` as it is used."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.ray.head import free_port

ROOT = Path(__file__).resolve().parents[4]
pytestmark = pytest.mark.slow


def doctor(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment = {**kept, "HOME": str(folder), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "distseq", "doctor", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_what_is_wrong_is_found_without_a_crash(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[run\n")
    address = f"127.0.0.1:{free_port()}"
    result = doctor(tmp_path, "bad.toml", "--address", address, "--json")
    answer = json.loads(result.stdout)
    fine = {finding["about"] for finding in answer["findings"] if finding["level"] == "ok"}
    wrong = {finding["about"]: finding["text"] for finding in answer["findings"] if finding["level"] == "error"}
    assert (result.returncode, answer["ok"], result.stderr) == (1, False, "")
    assert {"Python", "torch", "ray", "local pool", "open files", "Ray token"} <= fine
    assert wrong.keys() == {"cluster", "config file"}
    assert wrong["cluster"] == f"no Ray cluster at {address}: Connection refused"
    assert wrong["config file"].startswith("bad.toml is not TOML: ")
