"""The worker loop of every real pool: a host's logical workers, computing one row at a time.

Each logical worker processes its messages in order. A message may carry an injected start-up delay, which passes while the
host computes for its other workers. The loop reads its inbox between mini-tasks, so mini-tasks that were cancelled or whose
job is retired are skipped. Mini-tasks that are due together may be computed in one pass if the Work gives them the same shape.
"""

import os
import signal
import socket
import time
import traceback
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import cache, partial
from queue import Empty, SimpleQueue
from typing import NamedTuple

import numpy as np

from distseq.cluster.hosts.messages import Answer, Assign, Cancel, Command, Failure, Publish, Retire, Stop
from distseq.cluster.hosts.prefetch import Prefetch
from distseq.cluster.pool import Fault, Payload
from distseq.cluster.reduction import digest
from distseq.cluster.work import ReadingWork, RowRequest, StackingWork, Work, WorkSpec, checked, fault_of
from distseq.coding.plan import MiniTask


class Inputs(NamedTuple):
    """What a row is computed from, read in advance."""

    request: RowRequest
    row: Callable[[], np.ndarray]  # computes the row; raises what reading its samples has raised
    reading: float  # seconds that reading took
    shape: Hashable = None  # rows of equal shape may share a pass; None: computed alone


class ReadyTask(NamedTuple):
    """A mini-task that is computed next."""

    task: MiniTask
    message: Assign
    startup: float
    inputs: Inputs
    waited: float  # seconds that the computation waited for reading


@dataclass
class WorkerQueue:
    """The messages of one logical worker, and the progress of the first of them."""

    messages: deque[Assign] = field(default_factory=deque)
    at: int = 0  # index of the first message's next mini-task
    begun: float | None = None  # when the first message started up; None before that
    ready: float = 0.0  # when its start-up ends
    answered: bool = False  # whether it has had a mini-task to compute


def compute_row(compute: Callable[[], np.ndarray]) -> tuple[np.ndarray | None, Fault | None]:
    """The row of a mini-task, or its fault."""
    try:
        return checked(compute()), None
    # A user's model may raise anything, SystemExit too. The host has other learners' rows to compute and must survive it.
    except BaseException as error:
        return None, fault_of(error)._replace(machine=socket.gethostname())


def compute_rows(work: Work, tasks: Sequence[ReadyTask]) -> list[tuple[np.ndarray | None, Fault | None]]:
    """Rows or faults: several mini-tasks in one pass, or one by one."""
    if len(tasks) > 1 and isinstance(work, StackingWork):
        # A pass that raises does not say which row is at fault, so the rows are then computed one by one: only the learner
        # whose own row raises is stopped.
        with suppress(BaseException):
            rows = work.rows([task.inputs.request for task in tasks])
            return [(checked(row), None) for row, _ in zip(rows, tasks, strict=True)]
    return [compute_row(task.inputs.row) for task in tasks]


def _raise(error: BaseException) -> np.ndarray:
    raise error


class WorkerLoop:
    """Call `post` from any thread, `run` from one thread, in which `emit` is then called."""

    def __init__(self, spec: WorkSpec, emit: Callable[[Answer | Failure], None]) -> None:
        self._spec, self._emit = spec, emit
        self._inbox: SimpleQueue[Command] = SimpleQueue()
        self._queues: dict[int, WorkerQueue] = {}
        # By job: `cancel` and `retire` may come before, between and after the messages that they are about.
        self._payloads: dict[int, Callable[[], Payload | None]] = {}  # job -> fetches the payload, once
        self._cancelled: dict[int, set[MiniTask]] = {}
        self._sent: dict[int, set[MiniTask]] = {}
        self._set_aside: dict[MiniTask, Inputs] = {}  # read for a pass whose shape they do not have
        self._running = True

    # A queue, and no lock: all tables are changed by the loop's own thread alone.
    def post(self, command: Command) -> None:
        self._inbox.put(command)

    def run(self, loaded: Callable[[], None] = lambda: None) -> None:
        """Load the Work, call `loaded`, then process commands until Stop."""
        try:
            work = self._spec.load()
            ahead = self._spec.prefetch and isinstance(work, ReadingWork)
            with closing(Prefetch(partial(self._reading, work), ahead=ahead)) as inputs:
                loaded()
                while self._running:
                    queue = self._next_queue()
                    if queue is None:
                        # A command was handled, which may have cancelled mini-tasks whose samples are already read.
                        inputs.forget(self._stale)
                        self._set_aside = {
                            task: each for task, each in self._set_aside.items() if not self._stale(task)
                        }
                    else:
                        self._compute(work, self._next_batch(inputs, queue))
        # Loading a Work runs users' code, which may raise anything, SystemExit too. Uncaught it would end this thread alone, and
        # leave a host that is silent but alive.
        except BaseException as error:
            self._emit(Failure(f"{type(error).__name__}: {error}", traceback.format_exc(), socket.gethostname()))

    def _next_queue(self) -> WorkerQueue | None:
        """The queue that has been ready the longest; None after a command was handled."""
        now = time.monotonic()
        queue = self._first_ready(now)
        wait = None if queue is None else max(0.0, queue.ready - now)
        # Commands go before computing, one at a time: a cancellation in the inbox saves the computation that it names.
        try:
            self._handle(self._inbox.get(timeout=wait) if wait != 0 else self._inbox.get_nowait())
            return None
        except Empty:
            return queue

    def _first_ready(self, now: float) -> WorkerQueue | None:
        """The queue whose next mini-task is ready first; None if no queue has work."""
        busy = [queue for queue in self._queues.values() if self._prepare(queue, now)]
        return min(busy, key=lambda queue: queue.ready, default=None)

    def _handle(self, command: Command) -> None:
        match command:
            case Assign():
                for task in command.tasks:
                    self._cancelled.get(task.job, set()).discard(task)
                    # A higher attempt says that the row was lost on the master's side, even if this host has sent it.
                    if command.attempt > 1:
                        self._sent.get(task.job, set()).discard(task)
                self._queues.setdefault(command.worker, WorkerQueue()).messages.append(command)
            case Publish():
                # Fetched when the first row needs it, in the reading thread, and once: parameters may be large.
                self._payloads[command.job] = cache(command.fetch)
                self._cancelled[command.job], self._sent[command.job] = set(), set()
            case Cancel():
                for task in command.tasks:
                    self._cancelled.get(task.job, set()).add(task)
            case Retire():
                for table in (self._payloads, self._cancelled, self._sent):
                    table.pop(command.job, None)
            case Stop():
                self._running = False

    def _stale(self, task: MiniTask) -> bool:
        """Whether the row is not needed: its job is retired, it was cancelled, or this host has already sent it."""
        job = task.job
        return job not in self._payloads or task in self._cancelled[job] or task in self._sent[job]

    def _prepare(self, queue: WorkerQueue, now: float) -> bool:
        """Advance the queue to its next mini-task that is not stale, starting messages up. Returns whether there is one."""
        while queue.messages:
            message = queue.messages[0]
            while queue.at < len(message.tasks) and self._stale(message.tasks[queue.at]):
                # A start-up is never cut short, even if its mini-tasks are stale: its length is evidence of a straggler, and
                # dropping the longest ones would make replays look too fast (docs/decisions/004).
                if queue.begun is not None and now < queue.ready:
                    return True
                queue.at += 1
            if queue.at < len(message.tasks):
                if queue.begun is None:
                    self._start(queue, message, now)
                return True
            self._finish(queue, message)
        return False

    def _start(self, queue: WorkerQueue, message: Assign, now: float) -> None:
        # A scripted loss. SIGKILL, because a real loss runs no handlers and flushes nothing either.
        if message.startup == np.inf:
            os.kill(os.getpid(), signal.SIGKILL)
        queue.begun, queue.ready = now, now + message.startup

    def _finish(self, queue: WorkerQueue, message: Assign) -> None:
        # Nothing of this message was computed. Its start-up is reported all the same (docs/decisions/004).
        if queue.begun is not None and not queue.answered:
            startup = queue.ready - queue.begun
            self._emit(Answer(message.tasks[-1], 0, message.attempt, message.invocation, startup, 0.0, None, 0))
        queue.messages.popleft()
        queue.at, queue.begun, queue.answered = 0, None, False

    def _reading(self, work: Work, task: MiniTask) -> Callable[[], Inputs | None]:
        """A function that fetches the payload and reads the samples of a row; it returns None if the job has been retired."""
        # Looked up here, in the loop's thread: the reading thread must not touch tables that commands change.
        fetch = self._payloads[task.job]

        def read() -> Inputs | None:
            payload = fetch()
            if payload is None:
                return None
            begun = time.monotonic()
            ids, weights = payload.layout.row(task, payload.ids)
            request, shape = RowRequest(payload, ids, weights), None
            row = partial(work.row, *request[:3])
            if isinstance(work, ReadingWork):
                try:
                    request = request._replace(samples=work.read(payload, ids))
                    row = partial(work.row, *request)
                    shape = work.shape(request) if self._spec.stack > 1 and isinstance(work, StackingWork) else None
                # A user's data set may raise anything, SystemExit too: a fault of this row alone, raised when it is computed.
                except BaseException as error:
                    row = partial(_raise, error)
            return Inputs(request, row, time.monotonic() - begun, shape)

        return read

    def _upcoming(self, present: MiniTask, now: float) -> MiniTask | None:
        """The mini-task that follows the present one if no command arrives in between: a guess, for prefetching."""
        candidates = []
        for queue in self._queues.values():
            for k, message in enumerate(queue.messages):
                tasks = message.tasks[queue.at :] if k == 0 else message.tasks
                fresh = next((task for task in tasks if task != present and not self._stale(task)), None)
                if fresh is not None:
                    ready = queue.ready if k == 0 and queue.begun is not None else now + message.startup
                    candidates.append((ready, fresh))
                    break
        return min(candidates, key=lambda candidate: candidate[0], default=(0.0, None))[1]

    def _next_batch(self, inputs: Prefetch[MiniTask, Inputs | None], queue: WorkerQueue | None) -> list[ReadyTask]:
        """The mini-task that is due and those due after it that share its shape, in order; [] if its job has been retired."""
        batch: list[ReadyTask] = []
        # Only what is due already and only in order: a pass never waits for a start-up, and never delays an older mini-task.
        while queue is not None and queue.ready <= time.monotonic():
            task = self._next_task(inputs, queue, batch)
            if task is not None:
                batch.append(task)
            if task is None or task.inputs.shape is None or len(batch) == self._spec.stack:
                break
            queue = self._first_ready(time.monotonic())
        return batch

    def _next_task(
        self, inputs: Prefetch[MiniTask, Inputs | None], queue: WorkerQueue, before: Sequence[ReadyTask]
    ) -> ReadyTask | None:
        """Take the next mini-task off the queue; None if it is stale, or differs in shape from those before it."""
        message, begun = queue.messages[0], time.monotonic()
        task, found = message.tasks[queue.at], None
        if not self._stale(task):
            found = self._set_aside.pop(task, None) or inputs.take(task, self._upcoming(task, begun))
        if found is not None and before and found.shape != before[0].inputs.shape:
            # It stays at the head of its queue. Its samples are kept, or they would be read twice.
            self._set_aside[task] = found
            return None
        queue.at += 1
        if found is None:
            return None
        # Waiting for samples counts as computing this row; waiting for the payload is a delay of the network, not of the row.
        waited = min(time.monotonic() - begun, found.reading)
        queue.answered = True
        # Now, not when the answer is sent: another queue of this pass may hold the same mini-task.
        self._sent[task.job].add(task)
        startup = queue.ready - (queue.begun if queue.begun is not None else queue.ready)
        return ReadyTask(task, message, startup, found, waited)

    def _compute(self, work: Work, tasks: Sequence[ReadyTask]) -> None:
        """Compute mini-tasks in one pass and send their answers."""
        begun = time.monotonic()
        rows = compute_rows(work, tasks)
        # The rows of a pass cannot be timed apart: each is charged an equal share, so that the sum stays the host's time.
        share = (time.monotonic() - begun) / max(1, len(tasks))
        for (task, message, startup, found, waited), (row, fault) in zip(tasks, rows, strict=True):
            # A fault is no row: the mini-task counts as not sent, so a later attempt at it is computed.
            if row is None:
                self._sent[task.job].discard(task)
            identity = (task, found.request.payload.version, message.attempt, message.invocation)
            crc = 0 if row is None else digest(row)
            self._emit(Answer(*identity, startup, share + waited, row, crc, fault))
