"""Backup tasks on top of rounds: the last missing parts are copied once, each to an idle worker; the first row counts."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace

from distseq.cluster.pool import Delivery
from distseq.coding.plan import MiniTask
from distseq.coding.schemes.backup_tasks import Backup
from distseq.coding.schemes.scheme import Scheme
from distseq.scheduling.closing import Closing
from distseq.scheduling.round_scheduler import RoundScheduler
from distseq.scheduling.scheduler import Decision, Scheduler


def round_scheduler(
    scheme: Scheme, closing: Closing | None = None, *, late: bool = True, left: Mapping[int, int] | None = None
) -> Scheduler:
    """Rounds under any scheme; see RoundScheduler."""
    rounds = RoundScheduler(scheme, closing, late=late, left=left)
    return BackupScheduler(rounds) if isinstance(scheme, Backup) else rounds


class BackupScheduler:
    """Adds the copies to the rounds that `inner` holds. A worker is idle once it has answered, in the order of answers."""

    def __init__(self, inner: Scheduler) -> None:
        self._inner = inner
        self._over()

    def _over(self) -> None:
        self._job, self._few = -1, 0  # job of the round; it is copied when no more of its parts are missing
        self._missing: dict[int, None] = {}  # its groups without a row, in the order of their numbers
        self._copied: set[int] = set()  # groups
        self._copies: set[MiniTask] = set()  # that have not been answered
        self._idle: deque[int] = deque()

    def opened(self, job: int, learner: int, cost: float, left: int, now: float) -> None:
        self._inner.opened(job, learner, cost, left, now)

    def members(self, workers: Mapping[int, str], now: float) -> None:
        self._inner.members(workers, now)

    def withdrawn(self, job: int, learner: int) -> None:
        self._inner.withdrawn(job, learner)
        if job == self._job:
            self._over()

    def delivered(self, arrivals: Sequence[Delivery], now: float) -> None:
        self._inner.delivered(arrivals, now)
        for delivery in arrivals:
            task = delivery.task
            if task.job == self._job and not delivery.stale:
                self._missing.pop(task.group, None)
                self._copies.discard(task)
                self._idle.append(task.worker)

    def step(self, now: float) -> Decision:
        decision = self._inner.step(now)
        if self._job in decision.decode:
            self._over()
        for job, scheme in decision.start.items():
            self._over()
            assert isinstance(scheme, Backup), f"{scheme.spec} does not say when to copy"
            self._job, self._few = job, scheme.n - scheme.enough
            self._missing = dict.fromkeys(range(scheme.n))
        copies = [] if decision.decode or decision.send else self._copy()
        return replace(decision, send=copies) if copies else decision

    def _copy(self) -> list[MiniTask]:
        if len(self._missing) > self._few:
            return []
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
