"""Backup tasks: near the end of a round, each missing part is copied once to an idle worker."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf

from distseq.cluster.pool import Delivery
from distseq.coding.plan import MiniTask
from distseq.coding.schemes.backup_tasks import Backup
from distseq.coding.schemes.scheme import Scheme
from distseq.scheduling.closing import Closing
from distseq.scheduling.round_scheduler import RoundScheduler
from distseq.scheduling.scheduler import Decision, Scheduler


def round_scheduler(
    scheme: Scheme,
    closing: Closing | None = None,
    *,
    late: bool = True,
    left: Mapping[int, int] | None = None,
    most: float = inf,
) -> Scheduler:
    """A RoundScheduler for any scheme (see there for the arguments), with backup tasks if the scheme asks for them."""
    rounds = RoundScheduler(scheme, closing, late=late, left=left, most=most)
    return BackupScheduler(rounds) if isinstance(scheme, Backup) else rounds


class BackupScheduler:
    """Wraps `inner`, a scheduler of rounds, and adds copies of the last missing parts; whichever row comes first counts.

    Source: Dean and Ghemawat, "MapReduce", OSDI 2004, section 3.6. A worker is idle once it has answered; the one that answered
    first gets the first copy.
    """

    def __init__(self, inner: Scheduler) -> None:
        self._inner = inner
        self._reset()

    def _reset(self) -> None:
        self._job = -1  # job of the running round
        self._threshold = 0  # parts are copied once at most this many are missing
        self._missing: dict[int, None] = {}  # groups without a row, in ascending order
        self._copied: set[int] = set()  # groups
        self._copies: set[MiniTask] = set()  # copies that have not been answered
        self._idle: deque[int] = deque()

    def opened(self, job: int, learner: int, cost: float, left: int, now: float) -> None:
        self._inner.opened(job, learner, cost, left, now)

    def members(self, workers: Mapping[int, str], now: float) -> None:
        self._inner.members(workers, now)

    def withdrawn(self, job: int, learner: int) -> None:
        self._inner.withdrawn(job, learner)
        if job == self._job:
            self._reset()

    def delivered(self, arrivals: Sequence[Delivery], now: float) -> None:
        self._inner.delivered(arrivals, now)
        for delivery in arrivals:
            task = delivery.task
            if task.job == self._job and not delivery.stale:
                self._missing.pop(task.group, None)
                self._copies.discard(task)
                # A worker that answers for a copy is idle again, and may take the next one.
                self._idle.append(task.worker)

    def step(self, now: float) -> Decision:
        decision = self._inner.step(now)
        if self._job in decision.decode:
            self._reset()
        for job, scheme in decision.start.items():
            self._reset()
            assert isinstance(scheme, Backup), f"{scheme.spec} does not say when to copy"
            self._job, self._threshold = job, scheme.n - scheme.enough
            self._missing = dict.fromkeys(range(scheme.n))
        # Not while a job is being decoded or a round begun: its own decision comes first, copies follow in the next step.
        copies = [] if decision.decode or decision.send else self._copy()
        return replace(decision, send=copies) if copies else decision

    def _copy(self) -> list[MiniTask]:
        if len(self._missing) > self._threshold:
            return []
        # One copy each, as in MapReduce: the copy of a copy would only help where two workers are slow with one part.
        groups = [group for group in self._missing if group not in self._copied]
        copies = [MiniTask(self._job, group, self._idle.popleft()) for group in groups[: len(self._idle)]]
        self._copied.update(task.group for task in copies)
        self._copies.update(copies)
        return copies

    def missing(self) -> Mapping[int, int]:
        owed = dict(self._inner.missing())
        for task in self._copies:
            owed[task.worker] = owed.get(task.worker, 0) + 1
        return owed
