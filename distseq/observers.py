"""What looks on while the master runs, and changes nothing."""

from collections.abc import Mapping

import numpy as np

from distseq.cluster.pool import Payload
from distseq.cluster.work import Work
from distseq.scheduling.scheduler import Round, Scheduler


class Silent:
    """An observer that looks away; others override what they look at."""

    def job_decoded(self, payload: Payload, total: np.ndarray) -> None: ...
    def job_applied(self, learner: str, step: int, metrics: Mapping[str, float], now: float) -> None: ...
    def round_ended(self, ended: Round) -> None: ...
    def polled(self, scheduler: Scheduler, now: float) -> None: ...


class Tally(Silent):
    """Counts rounds, those that waited beyond their cutoff, and jobs; keeps each learner's losses."""

    def __init__(self) -> None:
        self.rounds = self.waits = self.jobs = 0
        self.losses: dict[str, list[float]] = {}

    def round_ended(self, ended: Round) -> None:
        self.rounds += 1
        self.waits += ended.waited

    def job_applied(self, learner: str, step: int, metrics: Mapping[str, float], now: float) -> None:
        self.jobs += 1
        if "loss" in metrics:
            self.losses.setdefault(learner, []).append(metrics["loss"])


class GradientCheck(Silent):
    """Computes the full batch's sum on this machine for `checks` of `jobs` jobs, evenly spaced, and compares."""

    def __init__(self, work: Work, jobs: int, checks: int) -> None:
        self._work, self._every = work, max(1, jobs // checks) if checks else 0
        self.differences: list[float] = []  # |decoded - full| / |full| of each job looked at

    def job_decoded(self, payload: Payload, total: np.ndarray) -> None:
        if self._every and payload.job % self._every == 0:
            full = self._work.row(payload, payload.ids, np.ones(len(payload.ids))).astype(np.float64)
            self.differences.append(float(np.linalg.norm(total - full) / np.linalg.norm(full)))
