"""The Scheduler protocol and its Decision: what to send, cancel and decode, and when to decide again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from distseq.cluster.pool import Delivery
from distseq.coding.plan import MiniTask
from distseq.coding.schemes.scheme import Scheme


@dataclass(frozen=True)
class Round:
    """A finished round, as the journal records it: its fields are journal keys. Times are pool seconds."""

    index: int
    schemes: tuple[str, ...]
    opened: int  # job that started in it, -1 for none
    begun: float
    ended: float
    waited: bool  # it lasted beyond its cutoff, because the rows in hand were not enough
    stragglers: tuple[int, ...]  # workers that had not sent all their rows of the round


@dataclass(frozen=True)
class Decision:
    """What the master does now.

    `decode`, when not empty, is carried out first, and the master asks for another decision before it polls the pool: the
    learners may have opened their next jobs meanwhile.
    """

    decode: Mapping[int, Mapping[MiniTask, float]] = field(default_factory=dict)  # job -> decode weights
    start: Mapping[int, Scheme] = field(default_factory=dict)  # job to publish -> scheme that lays it out
    send: Sequence[MiniTask] = ()
    cancel: Sequence[MiniTask] = ()
    wake: float | None = None  # pool time at which to decide again even if nothing has arrived
    ended: Sequence[Round] = ()
    chosen: Mapping[str, Any] | None = None  # journal record of a switch to another candidate, with the evidence for it
    roundless: bool = False  # there are no rounds: the journal records arrivals with the jobs of `decode`

    def beside(self, other: "Decision") -> "Decision":
        """The union of two schedulers' decisions about different jobs."""
        wakes = [one.wake for one in (self, other) if one.wake is not None]
        return Decision(
            {**self.decode, **other.decode},
            {**self.start, **other.start},
            (*self.send, *other.send),
            (*self.cancel, *other.cancel),
            min(wakes, default=None),
            (*self.ended, *other.ended),
            None,  # a switch is a decision about all schedulers together
            self.roundless or other.roundless,
        )


class Scheduler(Protocol):
    """A pure state machine that is told everything and reads no clock, so it can be copied, replayed and tested.

    `now` is pool time in seconds and never decreases. The master calls `step` after it has passed on what happened.
    """

    def opened(self, job: int, learner: int, cost: float, left: int, now: float) -> None:
        """A learner has opened a job; it will open `left` more after it. `cost`: compute, in units of a trace's slope."""
        ...

    def members(self, workers: Mapping[int, str], now: float) -> None:
        """The current worker -> host; a changed number of workers applies to jobs opened from now on."""
        ...

    def withdrawn(self, job: int, learner: int) -> None:
        """The learner of this job has failed: it opens no more jobs, and this one is abandoned."""
        ...

    def delivered(self, arrivals: Sequence[Delivery], now: float) -> None:
        """These rows and stale reports have arrived, in this order."""
        ...

    def step(self, now: float) -> Decision:
        """What to do now. Idempotent: a second call with nothing new in between decides nothing new."""
        ...

    def missing(self) -> Mapping[int, int]:
        """worker -> number of its rows that are waited for."""
        ...
