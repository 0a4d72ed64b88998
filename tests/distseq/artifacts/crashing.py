"""Runs that are broken off in the middle, and what is asked of them afterwards."""

import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import distseq
from distseq.cli.main import cli, one_line_errors
from distseq.engine.interfaces import Observer
from distseq.engine.journal import read_journal

STEPS, JOBS = 10, 30
JOB = f"""
[run]
steps = {STEPS}
checks = 0
[pool]
kind = "simulated"
workers = 8
delays = "bursts:base=0.1"
compute = "rows"
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
[[learner]]
name = "adam"
[[learner]]
name = "momentum"
optimizer = "sgd"
optimizer_args = {{ lr = 0.02, momentum = 0.9 }}
[[learner]]
name = "clipped"
clip = 0.1
"""


class CrashError(RuntimeError):
    pass


class CrashAfter(Observer):
    """Brings the driver down once so many jobs are applied."""

    def __init__(self, jobs: int, error: Callable[[], BaseException] = CrashError) -> None:
        self.left, self.error = jobs, error

    def job_applied(self, *job: object) -> None:
        self.left -= 1
        if not self.left:
            raise self.error()


def train(*job: Path, **options: Any) -> tuple[distseq.Result, str]:
    printed = io.StringIO()
    return distseq.train(*job, console=Console(file=printed, width=400), **options), printed.getvalue()


def crashed(job: Path, jobs: int, name: str = "run", **options: Any) -> Path:
    """The folder of a run that broke down after so many jobs."""
    run = job.parent / name
    with pytest.raises(CrashError):
        train(job, out=run, watchers=[CrashAfter(jobs)], **options)
    return run


def weights(result: distseq.Result) -> list[np.ndarray]:
    return [learner.publish() for learner in result.learners]


def assert_same_bits(ours: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def applied(run: Path) -> Counter[tuple[str, int]]:
    """(learner, step) -> how often it was applied, by the journal."""
    records = read_journal(run / "journal.jsonl")
    return Counter((record["learner"], record["step"]) for record in records if record["kind"] == "job")


def assert_little_redone(run: Path) -> None:
    times = applied(run)
    assert len(times) == JOBS
    again = Counter(learner for (learner, _), count in times.items() for _ in range(count - 1))
    assert all(count <= 1 for count in again.values()), again


def command(*words: str) -> int:
    return one_line_errors(lambda: cli(list(words), prog_name="distseq", standalone_mode=False))
