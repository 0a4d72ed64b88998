"""What looks on while the master runs, and changes nothing."""

from collections.abc import Mapping

import numpy as np

from distseq.cluster.pool import Payload, weighted_sum
from distseq.cluster.work import Work
from distseq.coding.plan import MiniTask
from distseq.scheduling.scheduler import Round, Scheduler


class Silent:
    """An observer that looks away; others override what they look at."""

    def job_decoded(self, payload: Payload, weights: Mapping[MiniTask, float], total: np.ndarray) -> None: ...
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
    """Compares the decoded sum with the full batch's for `checks` of `jobs` jobs, evenly spaced, by computing on this machine.

    Where the pool itself has computed in one pass (`one_pass`), the sum of the very rows is taken for the comparison.
    """

    def __init__(self, work: Work, jobs: int, checks: int, *, one_pass: bool) -> None:
        self._work, self._every, self._one_pass = work, max(1, jobs // checks) if checks else 0, one_pass
        self.differences: list[float] = []  # |decoded - full| / |full| of each job looked at

    def job_decoded(self, payload: Payload, weights: Mapping[MiniTask, float], total: np.ndarray) -> None:
        if not self._every or payload.job % self._every:
            return
        full = self._work.row(payload, payload.ids, np.ones(len(payload.ids))).astype(np.float64)
        decoded = self._rows(payload, weights) if self._one_pass else total
        self.differences.append(float(np.linalg.norm(decoded - full) / np.linalg.norm(full)))

    def _rows(self, payload: Payload, weights: Mapping[MiniTask, float]) -> np.ndarray:
        cut = payload.layout
        return weighted_sum(
            (w, self._work.row(payload, *cut.row(task, payload.ids))) for task, w in sorted(weights.items())
        )
