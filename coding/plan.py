"""Mini-tasks and plans: the key of a row everywhere, and who does which of them in a round."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

NOTHING = -1


class MiniTask(NamedTuple):
    """One row of one job: what `worker` computes for `group` of `job`."""

    job: int
    group: int
    worker: int


@dataclass(frozen=True)
class Plan:
    """The mini-tasks of one round, in each worker's order: slot k of worker i is group `groups[k, i]` of job `jobs[k, i]`.

    Jobs are named by the round in which they started. NOTHING in `groups` = an empty slot.
    """

    jobs: np.ndarray  # (slots, n) int
    groups: np.ndarray  # (slots, n) int

    def tasks(self) -> Iterator[MiniTask]:
        """Mini-tasks worker by worker, each worker's in its order."""
        busy = (self.groups != NOTHING).T
        workers = np.nonzero(busy)[0].tolist()
        return map(MiniTask._make, zip(self.jobs.T[busy].tolist(), self.groups.T[busy].tolist(), workers, strict=True))
