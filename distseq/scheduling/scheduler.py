"""The contract of every scheduler: told openings, deliveries and the time, it returns what to send, cancel and decode."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from distseq.cluster.pool import Delivery
from distseq.coding.plan import MiniTask
from distseq.coding.schemes.scheme import Scheme


@dataclass(frozen=True)
class Round:
    """A round that has ended, as the journal records it. Seconds are pool time."""

    index: int
    schemes: tuple[str, ...]
    opened: int  # job that started in it, -1 for none
    begun: float
    ended: float
    waited: bool  # it lasted beyond its cutoff, because what had arrived was not enough
    stragglers: tuple[int, ...]  # workers that had not sent all of the round's rows


@dataclass(frozen=True)
class Decision:
    """What to do now. `decode`, when not empty, comes first: its learners may open jobs before the next step."""

    decode: Mapping[int, Mapping[MiniTask, float]] = field(default_factory=dict)  # job -> weights
    start: Mapping[int, Scheme] = field(default_factory=dict)  # jobs to publish, and the scheme that lays them out
    send: Sequence[MiniTask] = ()
    cancel: Sequence[MiniTask] = ()
    wake: float | None = None  # look again at this time, even if nothing has arrived
    ended: Sequence[Round] = ()
    chosen: Mapping[str, Any] | None = None  # how it schedules from now on, and why: a record
    roundless: bool = False  # no round will end: what has arrived is journaled with the jobs of `decode`

    def beside(self, other: "Decision") -> "Decision":
        """What two schedulers have decided, of different jobs."""
        wakes = [one.wake for one in (self, other) if one.wake is not None]
        return Decision(
            {**self.decode, **other.decode},
            {**self.start, **other.start},
            (*self.send, *other.send),
            (*self.cancel, *other.cancel),
            min(wakes, default=None),
            (*self.ended, *other.ended),
            None,  # is said of all of them together
            self.roundless or other.roundless,
        )


class Scheduler(Protocol):
    """Pure, so it can be copied, replayed and tested without a clock. Times are seconds and never go back."""

    def opened(self, job: int, learner: int, cost: float, left: int, now: float) -> None:
        """A learner is ready with a job of this cost, after which it will open `left` more."""
        ...

    def members(self, workers: Mapping[int, str], now: float) -> None:
        """worker -> host, now; a changed number of workers counts for jobs opened from then on."""
        ...

    def withdrawn(self, job: int, learner: int) -> None:
        """The learner of this job has failed: it opens no more, and the job is no longer wanted, however far it has come."""
        ...

    def delivered(self, arrivals: Sequence[Delivery], now: float) -> None: ...

    def step(self, now: float) -> Decision:
        """What to do at this time. Idempotent between deliveries: a second call with nothing new decides nothing new."""
        ...

    def missing(self) -> Mapping[int, int]:
        """worker -> number of rows that are waited for, now."""
        ...
