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

    kind: "work", or "straggler" if not all its rows came in time (before their round ended, their job was decoded, or another
    copy arrived). Of a message with a row that had been sent before: "copy", or "copy in vain" if none of its rows was decoded.
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
    used: bool = False  # a row of it was decoded


class Timeline:
    """Builds the spans of all workers from decisions and deliveries.

    unfinished: what happens to unfinished work (distseq.cluster.simulated).
    """

    def __init__(self, unfinished: str) -> None:
        self._lost, self._serial = unfinished == "lost", unfinished == "serial"
        self._messages: list[Dispatch] = []
        # Job -> its mini-tasks -> messages with them that are waited for, oldest first. By job, so that a decision costs what
        # it is about, however many jobs are open.
        self._waiting: dict[int, dict[MiniTask, deque[Dispatch]]] = defaultdict(dict)
        self._rows: dict[int, dict[MiniTask, Dispatch]] = defaultdict(
            dict
        )  # job -> rows that arrived -> their messages
        self._before: dict[int, set[int]] = defaultdict(set)  # job -> groups that were sent
        self._copied: dict[int, bool] = {}  # job -> whether a second row of a group is a copy, and not part of its code

    def decided(self, decision: Decision, now: float) -> None:
        for job, weights in decision.decode.items():
            rows = self._rows.pop(job, {})
            for task in weights:
                rows[task].used = True
        over = [task for job in decision.decode for task in self._waiting.get(job, ())]
        for task in {*decision.cancel, *over}:
            queue = self._waiting.get(task.job, {}).get(task)
            for message in queue or ():
                self._give_up(message, now)
            # Nothing more is heard of it.
            if queue is not None and self._lost:
                self._heard_of_all(task)
        # Under a code, rows of one group at several workers are its redundancy; only where any row suffices is a second one a
        # copy.
        self._copied |= {job: interchangeable(scheme) for job, scheme in decision.start.items()}
        fresh, messages = set[tuple[int, int]](), dict[int, Dispatch]()  # (job, group) sent first in this step
        for task in decision.send:
            message = messages.setdefault(task.worker, Dispatch(task.worker, now, now))
            self._waiting[task.job].setdefault(task, deque()).append(message)
            # Rows sent in this very step are compared with what was sent before it: the members of a replica set are sent
            # together.
            group, before = task.group, self._before[task.job]
            message.again |= group in before and (self._copied[task.job] or (task.job, group) not in fresh)
            if group not in before:
                before.add(group)
                fresh.add((task.job, group))
        self._messages += messages.values()

    def delivered(self, arrivals: Sequence[Delivery]) -> None:
        for delivery in arrivals:
            queue = self._waiting.get(delivery.task.job, {}).get(delivery.task)
            # Empty for a delivery of a message that was given up. Where work overlaps, a delivery of a row that was requested
            # twice is counted for the first message: a delivery does not tell which it answers.
            if queue:
                message = queue.popleft()
                message.heard, message.late = delivery.at, message.late or delivery.stale
                if not delivery.stale:
                    self._rows[delivery.task.job].setdefault(delivery.task, message)
            for other in queue or ():  # the same row, requested again
                self._give_up(other, delivery.at)
            if queue is not None and not queue:
                self._heard_of_all(delivery.task)

    def _heard_of_all(self, task: MiniTask) -> None:
        waiting = self._waiting[task.job]
        del waiting[task]
        if not waiting:
            del self._waiting[task.job]

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
                kind = (COPY if message.used else VAIN) if message.again else (STRAGGLER if message.late else WORK)
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
