"""Closing rules: pure functions that decide when a round may end.

`Safe`, our own rule, ends a round as soon as the ledger is safe, that is, no job can miss its deadline any more. `Mu` is the
rule of the papers: a worker is a straggler iff it takes more than (1 + mu) times as long as the fastest one, and the round then
waits only until the pattern of stragglers conforms to the scheme's model (Krishnan, Ebrahimi, Khisti, ICLR 2023, section 4).
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from distseq.coding.ledger import Ledger
from distseq.coding.stragglers import History


@dataclass
class Progress:
    """The state of a running round that a closing rule may use. Times are pool seconds."""

    begun: float
    waiting: list[int]  # rows of the round that each worker still owes
    first_arrival: float | None = None  # when the first row of this round arrived
    first_finish: float | None = None  # when the fastest worker had sent all its rows, in an invocation of this round

    def stragglers(self, n: int) -> np.ndarray:
        """(n,) bool: the workers that still owe rows."""
        return np.array(self.waiting[:n]) > 0


@dataclass
class Stream:
    """A ledger and the pattern of its stragglers so far."""

    ledger: Ledger
    history: History


class Closing(Protocol):
    """A rule that never ends a round if some job could then miss its deadline."""

    @property
    def early(self) -> bool:
        """True: a job is decoded as soon as it is complete, and its other rows are excused. False: with its round's end."""
        ...

    def cutoff(self, progress: Progress) -> float | None:
        """Earliest pool time at which the round may end while rows are missing; None = not known yet."""
        ...

    def enough(self, stream: Stream, progress: Progress) -> bool:
        """Whether this stream's rows suffice to end the round, once the cutoff has passed."""
        ...


@dataclass(frozen=True)
class Safe:
    """Ends a round at its first arrival at or after `after` seconds at which the ledger is safe."""

    after: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.after < np.inf:
            raise ValueError(f"closing=safe needs a finite cutoff >= 0 seconds: got {self.after}")

    @property
    def early(self) -> bool:
        # The learner steps while the round goes on, and workers drop what is not needed any more (docs/decisions/002).
        return True

    def cutoff(self, progress: Progress) -> float | None:
        # A ledger may be safe before anything has arrived (T > 0): a round still waits for one row, so that rounds cannot
        # follow each other without any work being done.
        return None if progress.first_arrival is None else max(progress.begun + self.after, progress.first_arrival)

    def enough(self, stream: Stream, progress: Progress) -> bool:
        return stream.ledger.safe()


@dataclass(frozen=True)
class Mu:
    """Ends a round at (1 + mu) times the fastest worker's time, or later, once the pattern of stragglers conforms."""

    mu: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.mu < np.inf:
            raise ValueError(f"closing=mu needs a finite mu >= 0: got {self.mu}")

    @property
    def early(self) -> bool:
        # The papers count a worker that owes rows of a finished job as a straggler: excusing those rows ended GC's rounds
        # before (1 + mu) times the fastest (docs/decisions/002).
        return False

    def cutoff(self, progress: Progress) -> float | None:
        if progress.first_finish is None:
            return None
        # Relative to the fastest worker of this round, so that the rule needs no time-out in seconds, which would have to be
        # tuned.
        return progress.begun + (1 + self.mu) * (progress.first_finish - progress.begun)

    def enough(self, stream: Stream, progress: Progress) -> bool:
        # Beyond conformance, the due job must be complete, so that no rule can end a round that breaks a promise.
        return stream.ledger.due_complete() and stream.history.allows(progress.stragglers(stream.ledger.scheme.n))


def closing_rule(name: str, *, cutoff: float = 0.0, mu: float = 1.0) -> Closing:
    """The closing rule called `name`. ValueError for an unknown name, or a parameter out of range.

    >>> closing_rule("mu", mu=0.5)
    Mu(mu=0.5)
    """
    if name == "safe":
        return Safe(cutoff)
    if name == "mu":
        return Mu(mu)
    raise ValueError(f"closing must be safe or mu: got {name!r}")
