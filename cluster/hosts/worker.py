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
from collections.abc import Callable, Hashable, Sequence
from contextlib import closing, suppress
from functools import cache, partial
from queue import Empty, SimpleQueue
from typing import NamedTuple

import numpy as np

from distseq.cluster.hosts.messages import Answer, Assign, Cancel, Command, Failure, Publish, Retire, Stop
from distseq.cluster.hosts.prefetch import Prefetch
from distseq.cluster.hosts.worker_queues import WorkerQueue, WorkerQueues
from distseq.cluster.pool import Fault, Payload
from distseq.cluster.reduction import digest
from distseq.cluster.work import (
    IdleWork,
    ReadingWork,
    RowRequest,
    StackingWork,
    Work,
    WorkSpec,
    checked,
    compute,
    fault_of,
    row_request,
)
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


class InHand(NamedTuple):
    """The mini-tasks being read or computed, and since when."""

    tasks: tuple[MiniTask, ...]
    begun: float  # time.monotonic


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
    """Call `post` from any thread, `run` from one thread, in which the functions given are then called.

    emit: takes answers. announce: takes a mini-task of an announced message before it begins, and returns when the driver will
    hear of it. pausing: nothing is left to compute for now.
    `in_hand` and `idle` may be read from any thread.
    """

    def __init__(
        self,
        spec: WorkSpec,
        emit: Callable[[Answer | Failure], None],
        announce: Callable[[MiniTask], None] = lambda task: None,
        pausing: Callable[[], None] = lambda: None,
    ) -> None:
        self._spec, self._emit, self._announce, self._pausing = spec, emit, announce, pausing
        self._inbox: SimpleQueue[Sequence[Command]] = SimpleQueue()
        self._queues = WorkerQueues(_begin, self._report)
        # By job: `cancel` and `retire` may come before, between and after the messages that they are about.
        self._payloads: dict[int, Callable[[], Payload | None]] = {}  # job -> fetches the payload, once
        self._set_aside: dict[MiniTask, Inputs] = {}  # read for a pass whose shape they do not have
        self._running = True
        self._idler: IdleWork | None = None  # the Work, if it prepares something while there is nothing to compute
        self.in_hand: InHand | None = None
        self.idle = True  # there is nothing to compute, now or after a start-up

    # A queue, and no lock: all tables are changed by the loop's own thread alone.
    def post(self, *commands: Command) -> None:
        """Commands to be handled together, before anything is computed."""
        self._inbox.put(commands)

    def run(self, loaded: Callable[[], None] = lambda: None) -> None:
        """Load the Work, call `loaded`, then process commands until Stop."""
        try:
            work = self._spec.load()
            # Once: asking whether an object has the methods of a protocol costs more than all else that the loop does for a row.
            reader = work if isinstance(work, ReadingWork) else None
            stacker = work if self._spec.stack > 1 and isinstance(work, StackingWork) else None
            reading = partial(self._reading, work, reader, stacker)
            self._idler = work if isinstance(work, IdleWork) else None
            with closing(Prefetch(reading, ahead=self._spec.prefetch and reader is not None)) as inputs:
                loaded()
                while self._running:
                    now = time.monotonic()
                    queue = self._queues.first(now)
                    wait = None if queue is None else max(0.0, queue.ready - now)
                    # Commands go before computing: a cancellation in the inbox saves the computation that it names.
                    if self._handle_commands(wait):
                        # Mini-tasks may have been cancelled whose samples are already read.
                        inputs.forget(self._queues.stale)
                        for task in [task for task in self._set_aside if self._queues.stale(task)]:
                            del self._set_aside[task]
                    elif wait == 0:
                        self._compute(work, self._next_batch(inputs))
        # Loading a Work runs users' code, which may raise anything, SystemExit too. Uncaught it would end this thread alone, and
        # leave a host that is silent but alive.
        except BaseException as error:
            self._emit(Failure(f"{type(error).__name__}: {error}", traceback.format_exc(), socket.gethostname()))

    def _handle_commands(self, wait: float | None) -> bool:
        """Handle what has been posted together, waiting for it at most `wait` seconds; whether there was something."""
        if wait != 0 and self._inbox.empty():
            self.idle = wait is None
            self._pausing()
            if self._idler is not None:
                wait = self._prepare_ahead(self._idler, wait)
        try:
            commands = self._inbox.get(wait != 0, wait)
        except Empty:
            return False
        self.idle = False
        self._handle(commands)
        return True

    def _prepare_ahead(self, idler: IdleWork, wait: float | None) -> float | None:
        """Have the Work prepare what it can until something comes; what is left of the seconds to wait."""
        begun = time.monotonic()
        while self._inbox.empty() and (wait is None or time.monotonic() - begun < wait) and idler.idle():
            pass
        return None if wait is None else max(0.0, wait - (time.monotonic() - begun))

    def _handle(self, commands: Sequence[Command]) -> None:
        now = time.monotonic()
        for command in commands:
            match command:
                case Assign():
                    self._queues.assign(command, now)
                case Publish():
                    # Fetched when the first row needs it, in the reading thread, and once: parameters may be large.
                    self._payloads[command.job] = cache(command.fetch)
                    self._queues.publish(command.job)
                case Cancel():
                    self._queues.cancel(command.tasks, now)
                case Retire():
                    self._payloads.pop(command.job, None)
                    self._queues.retire(command.job, now)
                case Stop():
                    self._running = False

    def _report(self, message: Assign, startup: float) -> None:
        # Nothing of this message was computed. Its start-up is reported all the same (docs/decisions/004).
        self._emit(Answer(message.tasks[-1], 0, message.attempt, message.invocation, startup, 0.0, None, 0))

    def _reading(
        self, work: Work, reader: ReadingWork | None, stacker: StackingWork | None, task: MiniTask
    ) -> Callable[[], Inputs | None]:
        """A function that fetches the payload and reads the samples of a row; it returns None if the job has been retired."""
        # Looked up here, in the loop's thread: the reading thread must not touch tables that commands change.
        fetch = self._payloads[task.job]

        def read() -> Inputs | None:
            payload = fetch()
            if payload is None:
                return None
            begun = time.monotonic()
            request, shape = row_request(payload, task), None
            row = partial(compute, work, request)
            if reader is not None:
                try:
                    request = request._replace(samples=reader.read(payload, request.ids, **request.options))
                    row = partial(reader.row, *request[:4], **request.options)
                    shape = None if stacker is None else stacker.shape(request)
                # A user's data set may raise anything, SystemExit too: a fault of this row alone, raised when it is computed.
                except BaseException as error:
                    row = partial(_raise, error)
            return Inputs(request, row, time.monotonic() - begun, shape)

        return read

    def _next_batch(self, inputs: Prefetch[MiniTask, Inputs | None]) -> list[ReadyTask]:
        """The mini-task that is due and those due after it that share its shape, in order; [] if its job has been retired."""
        batch: list[ReadyTask] = []
        while len(batch) < self._spec.stack or not batch:
            now = time.monotonic()
            queue = self._queues.first(now)
            # Only what is due already and only in order: a pass never waits for a start-up, and never delays an older mini-task.
            task = None if queue is None or queue.ready > now else self._next_task(inputs, queue, batch, now)
            if task is not None:
                batch.append(task)
            if task is None or task.inputs.shape is None:
                break
        return batch

    def _next_task(
        self, inputs: Prefetch[MiniTask, Inputs | None], queue: WorkerQueue, before: Sequence[ReadyTask], now: float
    ) -> ReadyTask | None:
        """Take the next mini-task off the queue; None if its job is over, or it cannot share a pass with those before it."""
        message = queue.messages[0]
        task = message.tasks[queue.at]
        if message.announced and before:
            return None
        shared = self.in_hand
        self.in_hand = InHand((task,), now) if shared is None else shared._replace(tasks=(*shared.tasks, task))
        coming = self._queues.upcoming(queue, now)
        if message.announced:
            self._announce(task)
            # Nothing is read beside it: if this process dies, it is this mini-task that was in hand.
            coming = None
        found = self._set_aside.pop(task, None) or inputs.take(task, coming)
        if found is not None and before and found.shape != before[0].inputs.shape:
            # It stays at the head of its queue. Its samples are kept, or they would be read twice.
            self._set_aside[task], self.in_hand = found, shared
            return None
        startup = queue.startup
        # Now, not when the answer is sent: another queue of this pass may hold the same mini-task.
        self._queues.done(queue, task, found is not None)
        if found is None:
            return None
        # Waiting for samples counts as computing this row; waiting for the payload is a delay of the network, not of the row.
        waited = min(time.monotonic() - now, found.reading)
        return ReadyTask(task, message, startup, found._replace(shape=None) if message.announced else found, waited)

    def _compute(self, work: Work, tasks: Sequence[ReadyTask]) -> None:
        """Compute mini-tasks in one pass and send their answers."""
        begun = time.monotonic()
        rows = compute_rows(work, tasks)
        self.in_hand = None
        # The rows of a pass cannot be timed apart: each is charged an equal share, so that the sum stays the host's time.
        share = (time.monotonic() - begun) / max(1, len(tasks))
        for (task, message, startup, found, waited), (row, fault) in zip(tasks, rows, strict=True):
            # A fault is no row: the mini-task counts as not sent, so a later attempt at it is computed.
            if row is None:
                self._queues.not_sent(task)
            identity = (task, found.request.payload.version, message.attempt, message.invocation)
            crc = 0 if row is None else digest(row)
            self._emit(Answer(*identity, startup, share + waited, row, crc, fault))


def _begin(message: Assign) -> None:
    # A scripted loss. SIGKILL, because a real loss runs no handlers and flushes nothing either.
    if message.startup == np.inf:
        os.kill(os.getpid(), signal.SIGKILL)
