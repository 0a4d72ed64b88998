"""A simulated pool in virtual time, with delays from a trace: one thread, deterministic.

An invocation is one message to one worker. It starts up, then does its mini-tasks one by one, skipping stale ones.
`unfinished` says what happens to an unfinished invocation when its worker is sent new work:
  lost      one that is cancelled ends at once (the model of the papers); one that is still wanted goes first
  overlap   invocations are independent, and the old one keeps running beside the new one (serverless functions)
  serial    a worker is one process: the new invocation starts when the old one has ended, which a stale one does at the next
            mini-task boundary
"""

import heapq
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from distseq.cluster.pool import Delivery, FaultError, Payload, PoolError, check_new
from distseq.cluster.reduction import weighted_sum
from distseq.cluster.trace import Trace
from distseq.cluster.work import RowRequest, Work, checked, compute, fault_of, row_request
from distseq.coding.layout import block_numbers
from distseq.coding.plan import MiniTask

UNFINISHED = ("lost", "overlap", "serial")
ARRIVAL = ("row", "message")
COMPUTE = ("none", "decoded", "rows")
# Attempts at one invocation, each lost, before the pool gives it up: a trace column of nothing but losses would never end. It
# raises only when nothing else is going on: another worker may have a copy of what was given up.
ATTEMPTS = 4
# A lost invocation is noticed, and sent again, after this many median times: sooner would resend merely slow ones, and waiting
# for the rare events of 27 s would cost more than the resend.
NOTICED_AFTER = 3.0


def notice_seconds(trace: Trace) -> float:
    """Seconds after which a lost invocation is sent again."""
    # The median, since the mean of a trace with a heavy tail is ruled by the events that are to be cut short.
    finite = trace.times[np.isfinite(trace.times)]
    return NOTICED_AFTER * (float(np.median(finite)) if finite.size else 1.0)


@dataclass(eq=False, slots=True)
class Invocation:
    """One message at one worker."""

    worker: int
    tasks: deque[MiniTask]
    attempt: int = 1
    begun: float = np.inf  # inf until it starts
    startup: float = 0.0
    index: int = 0  # among the worker's invocations
    ended: bool = False
    held: list[tuple[MiniTask, float]] = field(
        default_factory=list
    )  # rows computed but not sent yet, with their seconds


class SimulatedPool:
    """A pool of as many workers as `trace` has columns; implements distseq.cluster.pool.Pool.

    `arrival`: rows arrive one by one ("row"), or all rows of a message together with its last one ("message").
    `compute`: no rows at all ("none": `collect` returns an empty vector), only the decoded vector, in one pass ("decoded":
    faults show in `collect`), or the rows that real workers would send ("rows": bit-identical to a real pool). The default is
    "none" without `work`, else "rows". Jobs of the kind "check" compute rows wherever there is work. ValueError for unknown
    values, or if `compute` and `work` do not fit together.
    """

    def __init__(
        self,
        trace: Trace,
        work: Work | None = None,
        *,
        unfinished: str = "lost",
        arrival: str = "row",
        compute: str | None = None,
    ) -> None:
        compute = compute or ("none" if work is None else "rows")
        for name, value, known in (
            ("unfinished", unfinished, UNFINISHED),
            ("arrival", arrival, ARRIVAL),
            ("compute", compute, COMPUTE),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}: got {value!r}")
        if (work is None) != (compute == "none"):
            raise ValueError(f"compute={compute!r} {'needs' if work is None else 'takes no'} work")
        self._trace, self._work, self._compute = trace, work, compute
        self._lost, self._beside, self._whole = unfinished == "lost", unfinished == "overlap", arrival == "message"
        self._notice = notice_seconds(trace)
        self._members = {i: f"simulated-{i}" for i in range(trace.workers)}
        self._now, self._count, self._version, self._last = 0.0, 0, 0, dict[str, int]()
        self._events: list[tuple[float, int, Invocation]] = []
        self._jobs: dict[int, Payload] = {}
        self._loads: dict[int, list[list[float]]] = {}
        self._in_hand: dict[
            int, dict[MiniTask, np.ndarray]
        ] = {}  # job -> its rows, of length 0 unless they are computed
        self._cancelled: dict[int, set[MiniTask]] = {}
        self._invocations = [0] * trace.workers
        self._queues: list[deque[Invocation]] = [deque() for _ in range(trace.workers)]
        self._given_up: list[MiniTask] = []  # lost in every attempt, and not sent again
        self._busy = 0.0  # seconds of the invocations that have ended

    def worker_seconds(self) -> float:
        """Busy time of all workers so far, in seconds, start-up included."""
        # Invocations that have not ended count up to now, those that still wait (begun = inf) not at all.
        running = (max(0.0, self._now - invocation.begun) for queue in self._queues for invocation in queue)
        return self._busy + sum(running)

    def members(self) -> Mapping[int, str]:
        return self._members

    def now(self) -> float:
        return self._now

    def publish(self, job: int, payload: Payload) -> None:
        check_new(job, payload.kind, self._last)
        self._version += 1
        self._jobs[job] = replace(payload, version=self._version)
        self._loads[job] = payload.layout.loads
        self._in_hand[job], self._cancelled[job] = {}, set()

    def send(self, tasks: Sequence[MiniTask]) -> None:
        messages: dict[int, deque[MiniTask]] = {}
        # Sent again, a mini-task that was cancelled is wanted again.
        for task in tasks:
            if task.job not in self._jobs:
                raise ValueError(f"job {task.job} was not published")
            self._cancelled[task.job].discard(task)
            messages.setdefault(task.worker, deque()).append(task)
        for worker, own in messages.items():
            self._queue(Invocation(worker, own))

    def _queue(self, invocation: Invocation) -> None:
        queue = self._queues[invocation.worker]
        queue.append(invocation)
        # Also under "lost": what is stale there has ended, and no worker does two things at once.
        if self._beside or len(queue) == 1:
            self._start(invocation)

    def _end(self, invocation: Invocation) -> None:
        invocation.ended = True
        queue = self._queues[invocation.worker]
        first = queue[0] is invocation
        queue.remove(invocation)
        # One that still waits (begun = inf) was not busy, and ends without making room.
        self._busy += max(0.0, self._now - invocation.begun)
        if first and not self._beside and queue:
            self._start(queue[0])

    def _stale(self, task: MiniTask) -> bool:
        """Whether the row is not needed: its job is retired, it was cancelled, or it is in hand."""
        job = task.job
        return job not in self._jobs or task in self._cancelled[job] or task in self._in_hand[job]

    def _start(self, invocation: Invocation) -> None:
        """Start an invocation; it ends at once if all its mini-tasks are stale by now."""
        worker, invocation.begun = invocation.worker, self._now
        # It takes no row of the trace either: invocation indices of a worker count the messages that it has really started.
        if not self._has_work(invocation):
            self._schedule(invocation, 0.0)
            return
        invocation.index = self._invocations[worker]
        invocation.startup = self._trace.startup(invocation.index, worker)
        self._invocations[worker] += 1
        lost = invocation.startup == np.inf
        self._schedule(invocation, self._notice if lost else invocation.startup + self._seconds(invocation.tasks[0]))

    def _seconds(self, task: MiniTask) -> float:
        return self._trace.slope * self._loads[task.job][task.group][task.worker] * self._jobs[task.job].cost

    def _schedule(self, invocation: Invocation, seconds: float) -> None:
        # The counter breaks ties in the order of scheduling: runs are deterministic, and invocations need not be comparable.
        self._count += 1
        heapq.heappush(self._events, (self._now + max(0.0, seconds), self._count, invocation))

    def _has_work(self, invocation: Invocation) -> bool:
        """Skip stale mini-tasks. Returns whether one is left."""
        tasks = invocation.tasks
        while tasks and self._stale(tasks[0]):
            tasks.popleft()
        return bool(tasks)

    def _event(self, invocation: Invocation) -> list[Delivery]:
        """Handle the end of a mini-task, or the moment at which a lost invocation is noticed."""
        # Its event was on the heap when it was dropped: removing it there would cost a search.
        if invocation.ended:
            return []
        if invocation.startup == np.inf:
            self._send_again(invocation)
            return []
        if invocation.tasks:
            task = invocation.tasks.popleft()
            invocation.held.append((task, self._seconds(task)) if task.job in self._jobs else (task, 0.0))
        ended = not self._has_work(invocation)
        if not ended:
            self._schedule(invocation, self._seconds(invocation.tasks[0]))
        if self._whole and not ended:
            return []
        rows, invocation.held = invocation.held, []
        deliveries = [self._delivery(invocation, task, seconds) for task, seconds in rows]
        # After the deliveries, which put rows in hand: the next invocation may hold the same mini-task, now to be skipped.
        if ended:
            self._end(invocation)
        return deliveries

    def _delivery(self, invocation: Invocation, task: MiniTask, compute: float) -> Delivery:
        stale, fault = self._stale(task), None
        if not stale:
            try:
                self._in_hand[task.job][task] = self._row_of(task)
            except FaultError as error:
                stale, fault = True, error.fault
        i, host = invocation, self._members[task.worker]
        return Delivery(task, self._now, i.startup, compute, host, i.attempt, i.index, stale, fault=fault)

    def _row_of(self, task: MiniTask) -> np.ndarray:
        payload = self._jobs[task.job]
        if self._work is None or not self._by_rows(payload):
            return np.zeros(0)
        return self._row(row_request(payload, task))

    def _by_rows(self, payload: Payload) -> bool:
        # A check compares what was decoded in one pass with what the rows of workers add up to.
        return self._compute == "rows" or payload.kind == "check"

    def _send_again(self, invocation: Invocation) -> None:
        # It counts as busy until it was noticed: a lost function is billed until its time-out.
        self._end(invocation)
        tasks = deque(task for task in invocation.tasks if not self._stale(task))
        if not tasks:
            return
        if invocation.attempt == ATTEMPTS:
            self._given_up = [task for task in self._given_up if not self._stale(task)] + list(tasks)
            return
        self._queue(Invocation(invocation.worker, tasks, invocation.attempt + 1))

    def cancel(self, tasks: Sequence[MiniTask]) -> None:
        workers = set()
        for task in tasks:
            if task.job in self._jobs:
                self._cancelled[task.job].add(task)
                workers.add(task.worker)
        self._drop_lost(workers)

    def _drop_lost(self, workers: Iterable[int]) -> None:
        """Under "lost", end invocations that have nothing left to do."""
        if self._lost:
            for invocation in [i for worker in workers for i in self._queues[worker]]:
                left = [*invocation.tasks, *(task for task, _ in invocation.held)]
                if all(self._stale(task) for task in left):
                    self._end(invocation)

    def poll(self, until: float | None) -> list[Delivery]:
        while self._events and (until is None or self._events[0][0] <= until):
            self._now = max(self._now, self._events[0][0])
            rows: list[Delivery] = []
            # Everything of one instant is delivered together, so that ties do not depend on how the scheduler reacts to each.
            while self._events and self._events[0][0] <= self._now:
                rows += self._event(heapq.heappop(self._events)[2])
            if rows:
                return rows
        wanted = [] if self._events else [task for task in self._given_up if not self._stale(task)]
        if wanted:
            raise PoolError(f"worker {wanted[0].worker} lost {wanted[0]} in each of {ATTEMPTS} attempts")
        if until is None:
            raise PoolError("nothing is outstanding: waiting without a deadline would never end")
        self._now = max(self._now, until)
        return []

    def collect(self, job: int, weights: Mapping[MiniTask, float]) -> np.ndarray:
        # Virtual time passes only here for the master: rows that arrive meanwhile are seen late, as by a real one.
        self._now += self._trace.master
        rows = self._in_hand[job]
        absent = set(weights) - set(rows)
        if absent:
            raise ValueError(f"rows {sorted(absent)[:3]} of job {job} are not in hand")
        if self._work is None:
            return np.zeros(0)
        payload = self._jobs[job]
        if not self._by_rows(payload):
            # The gradient is linear in the weights of the samples: one pass over the batch with weights a^T B is the decoded
            # sum, up to rounding, without computing a row for each replica.
            samples, blocks = len(payload.ids), payload.blocks
            combined = payload.layout.combined(dict(weights), samples, blocks)
            numbers = block_numbers(samples, blocks) if blocks else None
            return self._row(RowRequest(payload, payload.ids, combined, blocks=numbers)).astype(np.float64)
        return weighted_sum((weights[task], rows[task]) for task in sorted(weights))

    def _row(self, request: RowRequest) -> np.ndarray:
        assert self._work is not None, "there are rows only where there is work"
        try:
            row = compute(self._work, request)
            checked(row)
        # Everything that a worker would survive; but this is the driver's own process, where Ctrl-C belongs to the user.
        except (Exception, SystemExit) as error:
            raise FaultError(fault_of(error)) from error
        return row

    def retire(self, job: int) -> None:
        for table in (self._jobs, self._loads, self._in_hand, self._cancelled):
            table.pop(job, None)
        self._drop_lost(range(len(self._queues)))

    def news(self) -> list[str]:
        return []

    def close(self) -> None:
        self._events.clear()
        for queue in self._queues:
            queue.clear()
