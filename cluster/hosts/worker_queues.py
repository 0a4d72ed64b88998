"""The messages of a host's logical workers, and whose mini-task is next. It is told the time and computes nothing.

Each worker's messages are done in order. Among workers, the one whose message has been ready the longest comes first. No step
looks at all workers: a host may have a thousand.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import islice

from distseq.cluster.hosts.messages import Assign
from distseq.coding.plan import MiniTask

# Messages of a worker that are searched for the mini-task after the present one: a guess for prefetching, which must stay cheap
# where a slow worker has hundreds of messages whose jobs are over.
LOOK_AHEAD = 4


@dataclass(eq=False)
class WorkerQueue:
    """The messages of one logical worker, and the progress of the first of them."""

    messages: deque[Assign] = field(default_factory=deque)
    at: int = 0  # index of the first message's next mini-task
    begun: float | None = None  # when the first message started up; None before that
    ready: float = 0.0  # when its start-up ends
    answered: bool = False  # whether it has had a mini-task to compute
    entry: int = -1  # number of its entry in the heap; -1 = none

    @property
    def startup(self) -> float:
        """Seconds that the first message takes to start up."""
        return 0.0 if self.begun is None else self.ready - self.begun


@dataclass
class JobTasks:
    """What a host knows of the mini-tasks of a published job."""

    workers: set[int] = field(default_factory=set)  # those with messages that name the job
    cancelled: set[MiniTask] = field(default_factory=set)
    sent: set[MiniTask] = field(default_factory=set)  # rows that this host has computed


class WorkerQueues:
    """`starting` is called when a message starts up, `unanswered` with a message and its start-up when it ends without a row."""

    def __init__(self, starting: Callable[[Assign], None], unanswered: Callable[[Assign, float], None]) -> None:
        self._starting, self._unanswered = starting, unanswered
        self._queues: dict[int, WorkerQueue] = {}
        self._jobs: dict[int, JobTasks] = {}
        # (ready, entry, queue) of every queue whose first message has started. An entry whose number is not its queue's is void:
        # finding it in the middle of the heap would cost a search.
        self._heap: list[tuple[float, int, WorkerQueue]] = []
        self._entries = 0

    def publish(self, job: int) -> None:
        self._jobs[job] = JobTasks()

    def retire(self, job: int, now: float) -> None:
        retired = self._jobs.pop(job, None)
        for worker in () if retired is None else retired.workers:
            self._settle(self._queues[worker], now)

    def assign(self, message: Assign, now: float) -> None:
        for task in message.tasks:
            job = self._jobs.get(task.job)
            if job is not None:
                job.workers.add(message.worker)
                job.cancelled.discard(task)
                # A higher attempt says that the row was lost on the master's side, even if this host has sent it.
                if message.attempt > 1:
                    job.sent.discard(task)
        queue = self._queues.setdefault(message.worker, WorkerQueue())
        queue.messages.append(message)
        self._settle(queue, now)

    def cancel(self, tasks: Iterable[MiniTask], now: float) -> None:
        workers = set()
        for task in tasks:
            if task.job in self._jobs:
                self._jobs[task.job].cancelled.add(task)
                workers |= {task.worker} & self._queues.keys()
        for worker in workers:
            self._settle(self._queues[worker], now)

    def stale(self, task: MiniTask) -> bool:
        """Whether the row is not needed: its job is retired, it was cancelled, or this host has already sent it."""
        job = self._jobs.get(task.job)
        return job is None or task in job.cancelled or task in job.sent

    def first(self, now: float) -> WorkerQueue | None:
        """The queue whose next mini-task is ready first, perhaps in the future; None if no queue has work."""
        while self._heap:
            _, entry, queue = self._heap[0]
            if queue.entry == entry:
                self._settle(queue, now)
            if queue.entry == entry:
                return queue
            # Still at the top: a message that `_settle` has started is not ready before this one was.
            heappop(self._heap)
        return None

    def done(self, queue: WorkerQueue, task: MiniTask, sent: bool) -> None:
        """The queue's next mini-task has been taken; `sent`: it is being computed now."""
        queue.at += 1
        if sent:
            queue.answered = True
            self._jobs[task.job].sent.add(task)

    def not_sent(self, task: MiniTask) -> None:
        """The mini-task has ended without a row, so a later attempt at it is computed."""
        self._jobs[task.job].sent.discard(task)

    def upcoming(self, queue: WorkerQueue, now: float) -> MiniTask | None:
        """The mini-task that follows the first one of the first queue if no command arrives in between: a guess."""
        message, present = queue.messages[0], queue.messages[0].tasks[queue.at]
        own = self._fresh(islice(message.tasks, queue.at + 1, None), present)
        # Its message has been ready the longest, so the rest of it comes before everything else.
        if own is not None:
            return own
        candidates = []
        for later in islice(queue.messages, 1, 1 + LOOK_AHEAD):
            own = self._fresh(later.tasks, present)
            if own is not None:
                candidates.append((now + later.startup, own))
                break
        # The first entry is that of the queue itself, and one of these two is the next.
        for ready, entry, other in self._heap[1:3]:
            if other.entry == entry and not self.stale(task := other.messages[0].tasks[other.at]):
                candidates.append((ready, task))
        return min(candidates, key=lambda candidate: candidate[0], default=(0.0, None))[1]

    def _fresh(self, tasks: Iterable[MiniTask], present: MiniTask) -> MiniTask | None:
        return next((task for task in tasks if task != present and not self.stale(task)), None)

    def _settle(self, queue: WorkerQueue, now: float) -> None:
        """Advance to the next mini-task that is not stale, starting messages up and ending those that have none."""
        while queue.messages:
            # A start-up is never cut short, even if its mini-tasks are stale: its length is evidence of a straggler, and dropping
            # the longest ones would make replays look too fast (docs/decisions/004).
            if queue.begun is not None and now < queue.ready:
                return
            message = queue.messages[0]
            while queue.at < len(message.tasks) and self.stale(message.tasks[queue.at]):
                queue.at += 1
            if queue.at < len(message.tasks):
                if queue.begun is None:
                    self._start(queue, message, now)
                return
            self._finish(queue, message)

    def _start(self, queue: WorkerQueue, message: Assign, now: float) -> None:
        self._starting(message)
        queue.begun, queue.ready = now, now + message.startup
        # The count breaks ties in the order of starting, and keeps queues from being compared.
        queue.entry, self._entries = self._entries, self._entries + 1
        heappush(self._heap, (queue.ready, queue.entry, queue))

    def _finish(self, queue: WorkerQueue, message: Assign) -> None:
        if queue.begun is not None and not queue.answered:
            self._unanswered(message, queue.startup)
        queue.messages.popleft()
        queue.at, queue.begun, queue.answered, queue.entry = 0, None, False, -1
