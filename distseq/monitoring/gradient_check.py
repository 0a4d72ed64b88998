"""An observer that compares decoded gradients with full-batch ones."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from distseq.cluster.pool import Payload
from distseq.cluster.reduction import weighted_sum
from distseq.cluster.work import Work
from distseq.coding.plan import MiniTask
from distseq.engine.interfaces import Observer


class GradientCheck(Observer):
    """Compares decoded sums with the full batch's, recomputed on this machine, and keeps the relative `differences`.

    work: computes the full-batch gradient.
    steps: total steps of each learner.
    checks: jobs to compare, evenly spaced over the steps, the learners in turn.
    current: returns a learner's current parameters.
    one_pass: the pool decodes in one pass, without rows; then the rows are computed here too, and their weighted sum is compared.

    The reference uses the parameters that the learner has when the sum is applied, not those of the job's opening: there stale
    gradients would look exact (docs/decisions/013).
    """

    def __init__(
        self, work: Work, steps: Sequence[int], checks: int, current: Callable[[int], np.ndarray], *, one_pass: bool
    ) -> None:
        self._work, self._current, self._one_pass = work, current, one_pass
        turns = ((c, c % len(steps)) for c in range(checks))
        # The middles of `checks` equal intervals: neither the first step, where all is well, nor only the last.
        self._chosen = {(m, (2 * c + 1) * steps[m] // (2 * checks)) for c, m in turns}  # (learner, step)
        self._before: dict[tuple[int, int], np.ndarray] = {}  # chosen (learner, step) -> parameters before it
        self.differences: list[float] = []  # |decoded - full| / |full| of each job looked at

    def job_decoded(self, payload: Payload, weights: Mapping[MiniTask, float], total: np.ndarray) -> None:
        learner, step = payload.learner, payload.step
        # This is the moment before the next step of the learner: what it has now is what a chosen step will start from.
        if (learner, step + 1) in self._chosen:
            self._before[learner, step + 1] = self._current(learner)
        if (learner, step) not in self._chosen:
            return
        # No earlier job of this process has left its parameters: the learner has not changed since the job's opening.
        before = self._before.pop((learner, step), payload.parameters)
        # Another version, so that the Work does not take the parameters that it has loaded for these.
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
