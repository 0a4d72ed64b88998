"""The one worker loop of every real pool: logical workers of one host, one computation at a time, rows sent one by one.

Each logical worker does its messages in order. A message may carry an injected start-up, which is slept beside the
computations of the host's other workers. Between mini-tasks the loop looks at its inbox, so work that was cancelled or whose
job is retired is passed over. Mini-tasks whose turn has come and whose rows have one shape may be computed in one pass. A pool
is only the transport of commands in and answers out.
"""

import os
import queue
import signal
import socket
import time
import traceback
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import cache, partial
from typing import NamedTuple

import numpy as np

from distseq.cluster.hosts.messages import Answer, Cancel, Command, Failure, Message, Publish, Retire, Stop
from distseq.cluster.hosts.prefetch import Prefetch
from distseq.cluster.pool import Fault, Payload
from distseq.cluster.reduction import digest
from distseq.cluster.work import ReadingWork, RowRequest, StackingWork, Work, WorkSpec, checked, fault_of
from distseq.coding.plan import MiniTask


class Inputs(NamedTuple):
    """What a row is computed from."""

    asked: RowRequest
    row: Callable[[], np.ndarray]  # computes it from what has been read; raises what reading has raised
    reading: float  # seconds
    shape: Hashable = None  # of rows that may be computed in one pass


class ReadyTask(NamedTuple):
    """A mini-task that is about to be computed."""

    task: MiniTask
    message: Message
    startup: float
    inputs: Inputs
    waited: float  # seconds that reading has held up the computation


@dataclass
class WorkerQueue:
    """One logical worker: its messages, and when the first of them has started up."""

    messages: deque[Message] = field(default_factory=deque)
    at: int = 0  # next mini-task of the first message
    begun: float | None = None
    ready: float = 0.0
    fruitful: bool = False


def compute_row(compute: Callable[[], np.ndarray]) -> tuple[np.ndarray | None, Fault | None]:
    """The row of a mini-task, or the fault: users' code may raise anything, SystemExit too, and return anything."""
    try:
        return checked(compute()), None
    except BaseException as error:
        return None, fault_of(error)._replace(machine=socket.gethostname())


def compute_rows(work: Work, turns: Sequence[ReadyTask]) -> list[tuple[np.ndarray | None, Fault | None]]:
    """Rows or faults, in one pass where there are several; if that fails one by one, so that a fault is that of its row."""
    if len(turns) > 1 and isinstance(work, StackingWork):
        with suppress(BaseException):
            rows = work.rows([turn.inputs.asked for turn in turns])
            return [(checked(row), None) for row, _ in zip(rows, turns, strict=True)]
    return [compute_row(turn.inputs.row) for turn in turns]


def _raise(error: BaseException) -> np.ndarray:
    raise error


class WorkerLoop:
    """`post` may be called from any thread, `run` from one; `emit` is called from that one."""

    def __init__(self, spec: WorkSpec, emit: Callable[[Answer | Failure], None]) -> None:
        self._spec, self._emit = spec, emit
        self._inbox: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._lines: dict[int, WorkerQueue] = {}
        self._payloads: dict[int, Callable[[], Payload | None]] = {}  # fetched once
        self._cancelled: dict[int, set[MiniTask]] = {}
        self._sent: dict[int, set[MiniTask]] = {}
        self._held: dict[MiniTask, Inputs] = {}  # read for a pass that they did not fit
        self._running = True

    def post(self, command: Command) -> None:
        self._inbox.put(command)

    def run(self, loaded: Callable[[], None] = lambda: None) -> None:
        """Load the Work, then do commands until Stop. `loaded` is called in between."""
        try:
            work = self._spec.load()
            ahead = self._spec.prefetch and isinstance(work, ReadingWork)
            with closing(Prefetch(partial(self._reading, work), ahead=ahead)) as inputs:
                loaded()
                while self._running:
                    line = self._next_line()
                    if line is None:
                        inputs.forget(self._stale)
                        self._held = {task: each for task, each in self._held.items() if not self._stale(task)}
                    else:
                        self._one_pass(work, self._turns(inputs, line))
        except BaseException as error:  # a worker's code may raise anything, SystemExit too; the master must hear of it
            self._emit(Failure(f"{type(error).__name__}: {error}", traceback.format_exc(), socket.gethostname()))

    def _next_line(self) -> WorkerQueue | None:
        """The line that has been ready the longest; None after waiting for a command or a start-up."""
        now = time.monotonic()
        line = self._first(now)
        wait = None if line is None else max(0.0, line.ready - now)
        try:
            self._take(self._inbox.get(timeout=wait) if wait != 0 else self._inbox.get_nowait())
            return None
        except queue.Empty:
            return line

    def _first(self, now: float) -> WorkerQueue | None:
        """Of the lines that have work, the one that is ready first."""
        busy = [line for line in self._lines.values() if self._prepare(line, now)]
        return min(busy, key=lambda line: line.ready, default=None)

    def _take(self, command: Command) -> None:
        match command:
            case Message():
                for task in command.tasks:
                    self._cancelled.get(task.job, set()).discard(task)
                    if command.attempt > 1:  # the row that this host has sent, if it has, is gone
                        self._sent.get(task.job, set()).discard(task)
                self._lines.setdefault(command.worker, WorkerQueue()).messages.append(command)
            case Publish():
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
        """Whether nobody needs the row: its job is retired, it was cancelled, or this host has sent it."""
        job = task.job
        return job not in self._payloads or task in self._cancelled[job] or task in self._sent[job]

    def _prepare(self, line: WorkerQueue, now: float) -> bool:
        """Bring the line to its next mini-task that is not stale, starting messages up; whether there is one."""
        while line.messages:
            message = line.messages[0]
            while line.at < len(message.tasks) and self._stale(message.tasks[line.at]):
                if line.begun is not None and now < line.ready:
                    return True  # a start-up is not cut short: its length is evidence
                line.at += 1
            if line.at < len(message.tasks):
                if line.begun is None:
                    self._start(line, message, now)
                return True
            self._finish(line, message)
        return False

    def _start(self, line: WorkerQueue, message: Message, now: float) -> None:
        if message.startup == np.inf:
            os.kill(os.getpid(), signal.SIGKILL)
        line.begun, line.ready = now, now + message.startup

    def _finish(self, line: WorkerQueue, message: Message) -> None:
        if line.begun is not None and not line.fruitful:
            startup = line.ready - line.begun
            self._emit(Answer(message.tasks[-1], 0, message.attempt, message.invocation, startup, 0.0, None, 0))
        line.messages.popleft()
        line.at, line.begun, line.fruitful = 0, None, False

    def _reading(self, work: Work, task: MiniTask) -> Callable[[], Inputs | None]:
        """What fetches the payload and reads the samples of a row; None once its job is over."""
        fetch = self._payloads[task.job]

        def read() -> Inputs | None:
            payload = fetch()
            if payload is None:
                return None
            begun = time.monotonic()
            ids, weights = payload.layout.row(task, payload.ids)
            asked, shape = RowRequest(payload, ids, weights), None
            row = partial(work.row, *asked[:3])
            if isinstance(work, ReadingWork):
                try:
                    asked = asked._replace(samples=work.read(payload, ids))
                    row = partial(work.row, *asked)
                    shape = work.shape(asked) if self._spec.stack > 1 and isinstance(work, StackingWork) else None
                except BaseException as error:  # a user's data set may raise anything, SystemExit too
                    row = partial(_raise, error)
            return Inputs(asked, row, time.monotonic() - begun, shape)

        return read

    def _coming(self, present: MiniTask, now: float) -> MiniTask | None:
        """The mini-task whose turn is after the present one, unless a command comes in between."""
        turns = []
        for line in self._lines.values():
            for k, message in enumerate(line.messages):
                tasks = message.tasks[line.at :] if k == 0 else message.tasks
                fresh = next((task for task in tasks if task != present and not self._stale(task)), None)
                if fresh is not None:
                    ready = line.ready if k == 0 and line.begun is not None else now + message.startup
                    turns.append((ready, fresh))
                    break
        return min(turns, key=lambda turn: turn[0], default=(0.0, None))[1]

    def _turns(self, inputs: Prefetch[MiniTask, Inputs | None], line: WorkerQueue | None) -> list[ReadyTask]:
        """The mini-task whose turn it is, and those of its shape whose turn is next; none if its job is over."""
        turns: list[ReadyTask] = []
        while line is not None and line.ready <= time.monotonic():
            turn = self._turn(inputs, line, turns)
            if turn is not None:
                turns.append(turn)
            if turn is None or turn.inputs.shape is None or len(turns) == self._spec.stack:
                break
            line = self._first(time.monotonic())
        return turns

    def _turn(
        self, inputs: Prefetch[MiniTask, Inputs | None], line: WorkerQueue, before: Sequence[ReadyTask]
    ) -> ReadyTask | None:
        """The next mini-task off the line; None if nobody needs it, or it has another shape than those before."""
        message, begun = line.messages[0], time.monotonic()
        task, found = message.tasks[line.at], None
        if not self._stale(task):
            found = self._held.pop(task, None) or inputs.take(task, self._coming(task, begun))
        if found is not None and before and found.shape != before[0].inputs.shape:
            self._held[task] = found
            return None
        line.at += 1
        if found is None:
            return None
        # The wait for the samples is work of this row; the wait for the payload is not.
        waited = min(time.monotonic() - begun, found.reading)
        line.fruitful = True
        self._sent[task.job].add(task)  # asked for again in the same pass, it is passed over
        startup = line.ready - (line.begun if line.begun is not None else line.ready)
        return ReadyTask(task, message, startup, found, waited)

    def _one_pass(self, work: Work, turns: Sequence[ReadyTask]) -> None:
        begun = time.monotonic()
        rows = compute_rows(work, turns)
        share = (time.monotonic() - begun) / max(1, len(turns))
        for (task, message, startup, found, waited), (row, fault) in zip(turns, rows, strict=True):
            if row is None:
                self._sent[task.job].discard(task)
            identity = (task, found.asked.payload.version, message.attempt, message.invocation)
            crc = 0 if row is None else digest(row)
            self._emit(Answer(*identity, startup, share + waited, row, crc, fault))
