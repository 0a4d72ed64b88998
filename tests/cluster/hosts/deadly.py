"""A Work that ends or blocks its process where it is told to, for tests of what becomes of the others."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

from distseq.cluster.pool import Payload
from distseq.cluster.probe import feature
from distseq.cluster.work import WorkSpec

ROOT = Path(__file__).parents[3]
SIZE = 4


class Deadly:
    """A Probe, but for the rows of `learner`, and of those only with `sample` if it is given, and only the first `times` of them.

    how: "segfault", "exit", "hang" or "stop" (the whole process, as a debugger would) in `row`; with "read ", before it. Each
    that happens leaves a byte in the file `log`.
    """

    def __init__(
        self, how: str, log: str, learner: int = 0, sample: int | None = None, times: int = 10**9, seconds: float = 0.0
    ) -> None:
        self.how, self.log, self.learner, self.sample, self.times = how, Path(log), learner, sample, times
        self.seconds = seconds

    def read(self, payload: Payload, ids: np.ndarray) -> Any:
        if self.how.startswith("read "):
            self._strike(payload, ids)
        return ids

    def row(self, payload: Payload, ids: np.ndarray, weights: np.ndarray, samples: Any = None) -> np.ndarray:
        if not self.how.startswith("read "):
            self._strike(payload, ids)
        time.sleep(self.seconds)
        row: np.ndarray = (weights @ feature(ids, SIZE)).astype(np.float32)
        return row

    def _strike(self, payload: Payload, ids: np.ndarray) -> None:
        if payload.learner != self.learner or (self.sample is not None and self.sample not in ids):
            return
        if strikes(self.log) >= self.times:
            return
        with self.log.open("ab") as file:
            file.write(b".")
        # A signal takes a moment, in which the thread that sends it would answer.
        match self.how.removeprefix("read "):
            case "segfault":
                os.kill(os.getpid(), signal.SIGSEGV)
                time.sleep(1e6)
            case "exit":
                os._exit(3)
            case "hang":
                time.sleep(1e6)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
                time.sleep(1e6)


def strikes(log: Path) -> int:
    """How often it has struck."""
    return log.stat().st_size if log.exists() else 0


def deadly(how: str, log: Path, **options: Any) -> WorkSpec:
    config = json.dumps({"how": how, "log": str(log), **options})
    return WorkSpec("tests.cluster.hosts.deadly:Deadly", config, paths=(str(ROOT),))
