"""When a round may end: pure rules over what has arrived in it.

`Safe` is ours: as soon as the ledger is safe. `Mu` is the papers': a worker is a straggler iff it takes more than (1 + mu)
times the fastest; the round waits only until the pattern of stragglers conforms to the scheme's model
(Krishnan, Ebrahimi, Khisti, ICLR 2023, section 4).
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from distseq.coding.ledger import Ledger
from distseq.coding.stragglers import History


@dataclass
class Progress:
    """A running round: what a closing rule may look at."""

    begun: float
    waiting: list[int]  # rows of the round that each worker still owes
    first_arrival: float | None = None  # of a row of this round
    first_finish: float | None = None  # a worker has sent all of its rows, in an invocation of this round: the fastest

    def stragglers(self, n: int) -> np.ndarray:
        """(n,) bool: who still owes rows."""
        return np.array(self.waiting[:n]) > 0


@dataclass
class Stream:
    """A ledger and the pattern of its stragglers so far."""

    ledger: Ledger
    history: History


class Closing(Protocol):
    """Never let a round end that would make a job miss its deadline."""

    @property
    def early(self) -> bool:
        """Whether a job is decoded as soon as it is complete, and its other rows are not waited for; else with the round."""
        ...

    def cutoff(self, progress: Progress) -> float | None:
        """Time before which the round does not end while rows are missing; None = not known yet."""
        ...

    def enough(self, stream: Stream, progress: Progress) -> bool:
        """Whether, past the cutoff, what this stream has suffices."""
        ...


@dataclass(frozen=True)
class Safe:
    """End at the first arrival at or after `cutoff` seconds at which the ledger is safe."""

    after: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.after < np.inf:
            raise ValueError(f"closing=safe needs a finite cutoff >= 0 seconds: got {self.after}")

    @property
    def early(self) -> bool:
        return True

    def cutoff(self, progress: Progress) -> float | None:
        return None if progress.first_arrival is None else max(progress.begun + self.after, progress.first_arrival)

    def enough(self, stream: Stream, progress: Progress) -> bool:
        return stream.ledger.safe()


@dataclass(frozen=True)
class Mu:
    """End at (1 + mu) times the fastest worker's time, or later, when the pattern of stragglers conforms."""

    mu: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.mu < np.inf:
            raise ValueError(f"closing=mu needs a finite mu >= 0: got {self.mu}")

    @property
    def early(self) -> bool:
        return False

    def cutoff(self, progress: Progress) -> float | None:
        if progress.first_finish is None:
            return None
        return progress.begun + (1 + self.mu) * (progress.first_finish - progress.begun)

    def enough(self, stream: Stream, progress: Progress) -> bool:
        return stream.ledger.due_complete() and stream.history.allows(progress.stragglers(stream.ledger.scheme.n))


def closing_rule(name: str, *, cutoff: float = 0.0, mu: float = 1.0) -> Closing:
    """The rule of a name; ValueError for another name or a parameter out of range."""
    if name == "safe":
        return Safe(cutoff)
    if name == "mu":
        return Mu(mu)
    raise ValueError(f"closing must be safe or mu: got {name!r}")
