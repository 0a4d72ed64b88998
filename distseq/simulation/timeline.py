"""Per-worker timeline, recorded by a scheduler wrapper that changes no decision."""

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from distseq.cluster.pool import Delivery
from distseq.coding.plan import MiniTask
from distseq.coding.schemes.scheme import interchangeable
from distseq.scheduling.scheduler import Decision, Scheduler

WORK, STRAGGLER, COPY, VAIN = KINDS = ("work", "straggler", "copy", "copy in vain")


class Span(NamedTuple):
    """The time that a worker spent on one message; between spans it waited.

    kind: "work", or "copy" if a row of the message had been sent before. If not all its rows came in time (before their round
    ended, their job was decoded, or another copy arrived): "straggler" or "copy in vain".
    """

    worker: int
    begun: float  # pool seconds
    ended: float  # pool seconds of the last delivery, or of giving up
    kind: str


@dataclass(eq=False)
class Dispatch:
    """A message to one worker. Times are pool seconds."""

    worker: int
    sent: float
    heard: float  # latest delivery
    again: bool = False  # a row of it had been sent before
    late: bool = False  # not all its rows came in time


class Timeline:
    """Builds the spans of all workers from decisions and deliveries.

    unfinished: what happens to unfinished work (distseq.cluster.simulated).
    """

    def __init__(self, unfinished: str) -> None:
        self._lost, self._serial = unfinished == "lost", unfinished == "serial"
        self._messages: list[Dispatch] = []
        self._waiting: dict[MiniTask, deque[Dispatch]] = defaultdict(deque)  # oldest first
        self._before: set[tuple[int, int]] = set()  # (job, group) that were sent
        self._copied: dict[int, bool] = {}  # job -> whether a second row of a group is a copy, and not part of its code

    def decided(self, decision: Decision, now: float) -> None:
        over = [task for task in self._waiting if task.job in decision.decode]
        for task in {*decision.cancel, *over}:
            for message in self._waiting.pop(task, ()) if self._lost else self._waiting[task]:
                self._give_up(message, now)
        # Under a code, rows of one group at several workers are its redundancy; only where any row suffices is a second one a
        # copy.
        self._copied |= {job: interchangeable(scheme) for job, scheme in decision.start.items()}
        # Rows sent in this very step are compared with what was sent before it: the members of a replica set are sent
        # together.
        earlier, messages = set(self._before), dict[int, Dispatch]()
        for task in decision.send:
            message = messages.setdefault(task.worker, Dispatch(task.worker, now, now))
            self._waiting[task].append(message)
            row = task.job, task.group
            message.again |= row in (self._before if self._copied[task.job] else earlier)
            self._before.add(row)
        self._messages += messages.values()

    def delivered(self, arrivals: Sequence[Delivery]) -> None:
        for delivery in arrivals:
            queue = self._waiting[delivery.task]
            # Empty for a delivery of a message that was given up. Where work overlaps, a delivery of a row that was requested
            # twice is counted for the first message: a delivery does not tell which it answers.
            if queue:
                message = queue.popleft()
                message.heard, message.late = delivery.at, message.late or delivery.stale
            for other in queue:  # the same row, requested again
                self._give_up(other, delivery.at)

    def _give_up(self, message: Dispatch, now: float) -> None:
        """Marks a message whose rows will not all be in time."""
        # Unless its work is lost, the worker goes on with it, and a later delivery extends the span.
        if self._lost or not message.late:
            message.late, message.heard = True, now

    def spans(self) -> list[Span]:
        """All spans, in the order in which messages were sent."""
        free, spans = defaultdict[int, float](float), list[Span]()
        for message in self._messages:
            # Under "serial" a message begins when the worker has done the one before it.
            begun = max(message.sent, free[message.worker]) if self._serial else message.sent
            if message.heard > begun:
                kind = (VAIN if message.late else COPY) if message.again else (STRAGGLER if message.late else WORK)
                spans.append(Span(message.worker, begun, message.heard, kind))
                free[message.worker] = message.heard
        return spans


class RecordedScheduler:
    """Wraps a scheduler and records its decisions and deliveries in `timeline`."""

    def __init__(self, scheduler: Scheduler, timeline: Timeline) -> None:
        self._scheduler, self._timeline = scheduler, timeline
        # Delegated as they are: a timeline needs none of them.
        self.opened, self.withdrawn, self.members = scheduler.opened, scheduler.withdrawn, scheduler.members

    def delivered(self, arrivals: Sequence[Delivery], now: float) -> None:
        self._timeline.delivered(arrivals)
        self._scheduler.delivered(arrivals, now)

    def step(self, now: float) -> Decision:
        decision = self._scheduler.step(now)
        self._timeline.decided(decision, now)
        return decision

    def missing(self) -> Mapping[int, int]:
        return self._scheduler.missing()
