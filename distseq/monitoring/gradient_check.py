"""Compares decoded gradients with full-batch ones while a run goes on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from distseq.cluster.pool import Payload
from distseq.cluster.reduction import weighted_sum
from distseq.cluster.work import Work
from distseq.coding.plan import MiniTask
from distseq.engine.interfaces import Observer


class GradientCheck(Observer):
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
