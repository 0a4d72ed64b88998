"""Runs that are broken off in the middle, and what is asked of them afterwards."""

import io
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from rich.console import Console

import distseq
from distseq.artifacts.checkpointer import Checkpointer
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
optimizer = "muon"
optimizer_args = {{ lr = 0.02, full_precision = true }}
"""


class CrashError(BaseException):
    """The end of the process, not of a call."""


class CrashAfter(Observer):
    """Brings the driver down once so many jobs are applied."""

    def __init__(self, jobs: int, error: Callable[[], BaseException] = CrashError) -> None:
        self.left, self.error = jobs, error

    def job_applied(self, *job: object) -> None:
        self.left -= 1
        if not self.left:
            raise self.error()


@contextmanager
def crashes() -> Iterator[None]:
    """For a run that CrashAfter brings down, as if it were killed: nothing is kept that was not written before."""
    with pytest.raises(CrashError), patch.object(Checkpointer, "keep", lambda *state: False):
        yield


class Disk:
    """Kills the run at one of its operations on files, by their number; later ones fail as well, as those of the dead do."""

    WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT

    def __init__(self) -> None:
        self.left: float | None = None  # operations until the end; None: nobody counts
        self.folder = ""
        # A hook cannot be removed again; it does nothing while nobody counts.
        sys.addaudithook(self._operation)

    def _operation(self, event: str, args: tuple[Any, ...]) -> None:
        if self.left is None:
            return
        if event == "open":
            counts = isinstance(args[0], str) and args[0].startswith(self.folder) and bool(args[2] & self.WRITES)
        else:
            counts = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link")
        self.left -= counts
        if counts and self.left < 0:
            raise CrashError(f"{event} {args}")

    @contextmanager
    def killing(self, folder: Path, operation: int) -> Iterator[None]:
        self.folder, self.left = str(folder), operation
        try:
            yield
        except BaseException:
            assert self.left < 0, "something else went wrong"
        finally:
            self.reached, self.left = self.left < 0, None

    reached = False  # whether the latest run was killed, and did not end before


def train(*job: Path, **options: Any) -> tuple[distseq.Result, str]:
    printed = io.StringIO()
    return distseq.train(*job, console=Console(file=printed, width=400), **options), printed.getvalue()


def crashed(job: Path, jobs: int, name: str = "run", **options: Any) -> Path:
    """The folder of a run that broke down after so many jobs."""
    run = job.parent / name
    with crashes():
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
