"""What a host's signs of life say about it: whether its row takes too long, or what it was sent has been lost."""

from distseq.cluster.hosts.job_table import JobRows, JobTable
from distseq.cluster.hosts.messages import Answer, Progress
from distseq.cluster.hosts.placement import HostSlot
from distseq.cluster.hosts.row_limits import RowKind, RowLimits
from distseq.coding.plan import MiniTask


class Deadlines:
    """`idle_limit`: seconds that a host may say it is idle although it owes rows."""

    def __init__(self, jobs: JobTable, limits: RowLimits, idle_limit: float) -> None:
        self._jobs, self._limits, self._idle_limit = jobs, limits, idle_limit

    def measured(self, slot: HostSlot, job: JobRows, answer: Answer) -> None:
        """A host has computed a row."""
        self._limits.measured(_kind(slot, job), job.samples(answer.task), answer.compute)
        slot.met.add((job.payload.learner, job.payload.kind))

    def overdue(self, slot: HostSlot, progress: Progress, listened: float) -> str | None:
        """Why the host is to be replaced, if it is. `listened`: seconds that the pool has listened so far."""
        limit = sum(self._limit(slot, task) for task in progress.tasks)
        if progress.tasks and progress.seconds > limit:
            task = progress.tasks[0]
            what = f"group {task.group} of job {task.job} for worker {task.worker} took {_rounded(progress.seconds)} s"
            return f"{what}, longer than its limit of {_rounded(limit)} s (row_timeout)"
        if not progress.idle or slot.idle_since is None:
            slot.idle_since = listened if progress.idle else None
            return None
        since = slot.idle_since
        if listened - since <= self._idle_limit:
            return None
        # A message that a host could not read never becomes a mini-task in hand, and its limit would never run out.
        owed = self._jobs.owed(lambda owed: owed.slot is slot and owed.sent < since)
        return f"it says that it is idle, but owes {len(owed)} rows" if owed else None

    def _limit(self, slot: HostSlot, task: MiniTask) -> float:
        """Seconds that a mini-task may take on a host."""
        job = self._jobs.get(task.job)
        if job is None:
            return self._limits.unknown
        deaths = job.owed[task].attempt.deaths if task in job.owed else 0
        return self._limits.seconds(_kind(slot, job), job.samples(task), deaths)


def _kind(slot: HostSlot, job: JobRows) -> RowKind:
    key = (job.payload.learner, job.payload.kind)
    return RowKind(*key, first=key not in slot.met)


def _rounded(seconds: float) -> str:
    return f"{seconds:.0f}" if seconds >= 10 else f"{seconds:.2g}"
