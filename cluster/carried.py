"""The state that a learner carries from job to job beside its parameters, such as the memory of a temporal graph model.

Each host keeps a replica of it, which it advances by itself: the state after a batch is a function of the state before it and of
the job's parameters. A payload says which state its rows read, and holds what a host needs that has none, or an older one.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

# Gets a vector; None once the job that it was sent with is over.
Fetch = Callable[[], np.ndarray | None]


@dataclass(frozen=True, eq=False)
class Held:
    """A vector that is at hand."""

    vector: np.ndarray

    def __call__(self) -> np.ndarray:
        return self.vector


@dataclass(frozen=True)
class Carried:
    """The state that the rows of a job read.

    batch: samples of a job, from which hosts know how the stream is cut. version: its number; digest: 8 bytes that two replicas
    of it have in common. since: the number of the state in `snapshot`, which is None where that is the empty one; past: the
    parameters (P,) of the jobs that have led from there to `version`, in order.

    >>> Carried(8, 2, b"........", 1, None, (Held(np.zeros(3)),)).whole
    False
    """

    batch: int
    version: int
    digest: bytes
    since: int
    snapshot: Fetch | None
    past: tuple[Fetch, ...]

    @property
    def whole(self) -> bool:
        """Whether the snapshot is the state itself."""
        return self.since == self.version

    def fetched_by(self, change: Callable[[Fetch], Fetch]) -> "Carried":
        """The same with each vector fetched in another way."""
        snapshot = None if self.snapshot is None else change(self.snapshot)
        return replace(self, snapshot=snapshot, past=tuple(map(change, self.past)))

    @property
    def vectors(self) -> tuple[Fetch, ...]:
        """All that can be fetched."""
        return (*(() if self.snapshot is None else (self.snapshot,)), *self.past)
