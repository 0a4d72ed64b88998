"""The training loop that docs/port.md ports: few lines change, and the weights do not."""

import difflib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[3]
BEFORE, AFTER = (ROOT / "examples" / "port" / name for name in ("before.py", "after.py"))


def changed() -> list[str]:
    """Lines taken away and lines put in."""
    before, after = (path.read_text(encoding="utf-8").splitlines() for path in (BEFORE, AFTER))
    return [line for line in difflib.ndiff(before, after) if line[0] in "-+"]


def test_porting_the_loop_changes_at_most_15_lines() -> None:
    assert 0 < len(changed()) <= 15


def test_the_documentation_shows_the_changed_lines() -> None:
    page = (ROOT / "docs" / "port.md").read_text(encoding="utf-8")
    assert [line for line in changed() if line[2:] and line[0] + line[2:] not in page.splitlines()] == []


@pytest.mark.slow
def test_the_ported_loop_ends_with_the_same_weights(tmp_path: Path) -> None:
    for path in (BEFORE, AFTER):
        command = [sys.executable, str(path), "4", f"{path.stem}.pt"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=250)
        assert done.returncode == 0, done.stderr
    before, after = (torch.load(tmp_path / f"{path.stem}.pt") for path in (BEFORE, AFTER))
    assert before.keys() == after.keys()
    for key in before:
        torch.testing.assert_close(after[key], before[key], rtol=1e-4, atol=1e-5)
