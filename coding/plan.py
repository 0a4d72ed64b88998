"""Mini-tasks, which identify rows everywhere, and plans, which assign them for one round."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

NOTHING = -1


class MiniTask(NamedTuple):
    """The computation of one row: what `worker` computes for `group` of `job`."""

    job: int
    group: int
    worker: int


@dataclass(frozen=True)
class Plan:
    """The mini-tasks of one round: the k-th of worker i is for group `groups[k, i]` of job `jobs[k, i]`.

    Jobs are named by the round in which they started. NOTHING in `groups` is an empty slot.
    """

    # Arrays, not objects: a plan for 256 workers with eleven slots is 2,816 mini-tasks, and one is made in every round.

    jobs: np.ndarray  # (slots, n) int
    groups: np.ndarray  # (slots, n) int

    def among(self, order: np.ndarray) -> "Plan":
        """The same plan with the mini-tasks of worker k given to worker `order[k]`; `order` (n,) is a permutation."""
        place = np.argsort(order)
        return Plan(self.jobs[:, place], self.groups[:, place])

    def tasks(self, names: Mapping[int, int] | None = None) -> list[MiniTask]:
        """All mini-tasks, worker by worker, each worker's in order. `names`: round in which a job started -> its number."""
        # Transposed, so that nonzero goes through workers first: the tasks of one worker travel in one message.
        busy = (self.groups != NOTHING).T
        jobs, groups, workers = self.jobs.T[busy], self.groups.T[busy], np.nonzero(busy)[0]
        if names is not None and jobs.size:
            # A small table instead of a dictionary: one look-up for all mini-tasks at once.
            first = int(jobs.min())
            jobs = np.array([names.get(start, NOTHING) for start in range(first, int(jobs.max()) + 1)])[jobs - first]
        return list(map(MiniTask._make, zip(jobs.tolist(), groups.tolist(), workers.tolist(), strict=True)))
