"""Triton's kernels without a GPU, run in the interpreter or compiled for a GPU that is not here: processes of their own.

Triton reads TRITON_INTERPRET when it decorates a kernel, so a process has one mode.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Resources:
    """Of one kernel: registers and stack bytes of a thread, shared bytes of a program, barriers in the body of a loop."""

    registers: int
    stack: int
    shared: int
    barriers: int


def python(*arguments: str, interpret: bool) -> str:
    """What such a process of Python prints; AssertionError with it where the process fails."""
    mine = ("PYTEST_", "DISTSEQ_", "TRITON_INTERPRET")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(mine)}
    environment = {**kept, "OMP_NUM_THREADS": "1", **({"TRITON_INTERPRET": "1"} if interpret else {})}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@cache
def compiled(case: str) -> dict[str, dict[str, Resources]]:
    """Launch -> kernel -> what it takes, for all entries of COMPILED of that case."""
    lines = [line.split(" ", 1) for line in python("-m", "tests.kernels.offline", case, interpret=False).splitlines()]
    return {
        launch: {kernel: Resources(**taken) for kernel, taken in json.loads(found).items()} for launch, found in lines
    }
