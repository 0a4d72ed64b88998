"""What looks on while the master runs, and changes nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from distseq.cluster.pool import Payload
from distseq.cluster.sums import weighted_sum
from distseq.cluster.work import Work
from distseq.coding.plan import MiniTask
from distseq.failing import Failed
from distseq.journal import Past
from distseq.scheduling.scheduler import Round, Scheduler


class Silent:
    """An observer that looks away; others override what they look at."""

    def job_decoded(self, payload: Payload, weights: Mapping[MiniTask, float], total: np.ndarray) -> None: ...
    def job_applied(self, learner: str, step: int, metrics: Mapping[str, float], now: float) -> None: ...
    def learner_failed(self, failed: Failed) -> None: ...
    def evaluated(self, learner: str, step: int, loss: float, now: float) -> None: ...
    def evaluation_failed(self, failed: Failed) -> None: ...
    def round_ended(self, ended: Round) -> None: ...
    def polled(self, scheduler: Scheduler, now: float) -> None: ...
    def pool_changed(self, line: str) -> None: ...
    def scheduling_changed(self, choice: Mapping[str, Any]) -> None: ...


class Tally(Silent):
    """Counts rounds, those that waited beyond their cutoff, and jobs; keeps each learner's losses, latest evaluation (step
    and loss) and failures."""

    def __init__(self) -> None:
        self.rounds = self.waits = self.jobs = 0
        self.choices: list[Mapping[str, Any]] = []  # changes of scheduling: the journal's records
        self.exact = True  # before it was resumed
        self.losses: dict[str, list[float]] = {}
        self.evaluations: dict[str, tuple[int, float]] = {}
        self.failed: dict[str, Failed] = {}
        self.evaluations_failed: dict[str, Failed] = {}

    def remember(self, past: Past) -> None:
        """Count what the run did before it was resumed."""
        self.rounds, self.waits, self.exact = past.rounds, past.waits, past.exact
        for job in past.jobs:
            self.job_applied(job["learner"], job["step"], job, job["decoded"])

    def round_ended(self, ended: Round) -> None:
        self.rounds += 1
        self.waits += ended.waited

    def job_applied(self, learner: str, step: int, metrics: Mapping[str, Any], now: float) -> None:
        self.jobs += 1
        if "loss" in metrics:
            self.losses.setdefault(learner, []).append(metrics["loss"])

    def scheduling_changed(self, choice: Mapping[str, Any]) -> None:
        self.choices.append(choice)

    def learner_failed(self, failed: Failed) -> None:
        self.failed[failed.learner] = failed

    def evaluated(self, learner: str, step: int, loss: float, now: float) -> None:
        self.evaluations[learner] = (step, loss)

    def evaluation_failed(self, failed: Failed) -> None:
        self.evaluations_failed[failed.learner] = failed


class Meter(Protocol):
    """Where figures of a run go while it goes."""

    def job(self, learner: str, loss: float | None) -> None: ...
    def round(self, seconds: float, waited: bool, stragglers: int) -> None: ...


class Metered(Silent):
    """Passes figures on to a meter."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def job_applied(self, learner: str, step: int, metrics: Mapping[str, float], now: float) -> None:
        self._meter.job(learner, metrics.get("loss"))

    def round_ended(self, ended: Round) -> None:
        self._meter.round(ended.ended - ended.begun, ended.waited, len(ended.stragglers))


class GradientCheck(Silent):
    """Compares the decoded sum with the full batch's at the parameters that the learner has when it takes the sum, computed
    on this machine, for `checks` jobs: evenly spaced over the steps, the learners in turn. `current`: learner -> its
    parameters now.

    Where the pool itself has computed in one pass (`one_pass`), the sum of the very rows is taken for the comparison.
    """

    def __init__(
        self, work: Work, steps: Sequence[int], checks: int, current: Callable[[int], np.ndarray], *, one_pass: bool
    ) -> None:
        self._work, self._current, self._one_pass = work, current, one_pass
        turns = ((c, c % len(steps)) for c in range(checks))
        self._chosen = {(m, (2 * c + 1) * steps[m] // (2 * checks)) for c, m in turns}  # (learner, step)
        self._before: dict[tuple[int, int], np.ndarray] = {}  # chosen (learner, step) -> parameters before it
        self.differences: list[float] = []  # |decoded - full| / |full| of each job looked at

    def job_decoded(self, payload: Payload, weights: Mapping[MiniTask, float], total: np.ndarray) -> None:
        learner, step = payload.learner, payload.step
        if (learner, step + 1) in self._chosen:
            self._before[learner, step + 1] = self._current(learner)
        if (learner, step) not in self._chosen:
            return
        # Those of the opening, for a job that was its learner's first in this process.
        before = self._before.pop((learner, step), payload.parameters)
        fresh = replace(payload, parameters=before, version=-1)
        full = self._work.row(fresh, payload.ids, np.ones(len(payload.ids))).astype(np.float64)
        decoded = self._rows(payload, weights) if self._one_pass else total
        if len(decoded) != len(full):
            raise ValueError(f"a row must have {len(full)} numbers: got {len(decoded)}")
        self.differences.append(float(np.linalg.norm(decoded - full) / np.linalg.norm(full)))

    def _rows(self, payload: Payload, weights: Mapping[MiniTask, float]) -> np.ndarray:
        cut = payload.layout
        return weighted_sum(
            (w, self._work.row(payload, *cut.row(task, payload.ids))) for task, w in sorted(weights.items())
        )
