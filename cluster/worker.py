"""The one worker loop of every real pool: logical workers of one host, one computation at a time, rows sent one by one.

Each logical worker does its messages in order. A message may carry an injected start-up, which is slept beside the
computations of the host's other workers. Between mini-tasks the loop looks at its inbox, so work that was cancelled or whose
job is retired is passed over. A pool is only the transport of commands in and answers out.
"""

import os
import queue
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from distseq.cluster.pool import Payload
from distseq.cluster.sums import digest
from distseq.cluster.work import Work, WorkSpec
from distseq.coding.plan import MiniTask


class Message(NamedTuple):
    """Work for one logical worker. `startup` seconds are slept first; inf kills the host (a scripted fault)."""

    worker: int
    tasks: tuple[MiniTask, ...]
    attempt: int
    invocation: int
    startup: float


class Publish(NamedTuple):
    """A job whose payload `fetch` brings when its first row is computed; None = the job is over by then."""

    job: int
    fetch: Callable[[], Payload | None]


class Cancel(NamedTuple):
    tasks: tuple[MiniTask, ...]


class Retire(NamedTuple):
    job: int


class Stop(NamedTuple):
    pass


Command = Message | Publish | Cancel | Retire | Stop


class Answer(NamedTuple):
    """A row, or word of a stale invocation (row None). On its way, `row` may be what stands for the vector."""

    task: MiniTask
    version: int
    attempt: int
    invocation: int
    startup: float
    compute: float
    row: Any
    digest: int


class Failure(NamedTuple):
    """The Work could not be loaded, or raised: no retry can help."""

    text: str
    traceback: str


@dataclass
class Line:
    """One logical worker: its messages, and when the first of them has started up."""

    messages: deque[Message] = field(default_factory=deque)
    at: int = 0  # next mini-task of the first message
    begun: float | None = None
    ready: float = 0.0
    fruitful: bool = False


class WorkerLoop:
    """`post` may be called from any thread, `run` from one; `emit` is called from that one."""

    def __init__(self, spec: WorkSpec, emit: Callable[[Answer | Failure], None]) -> None:
        self._spec, self._emit = spec, emit
        self._inbox: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._lines: dict[int, Line] = {}
        self._payloads: dict[int, Payload | Callable[[], Payload | None]] = {}
        self._cancelled: dict[int, set[MiniTask]] = {}
        self._sent: dict[int, set[MiniTask]] = {}
        self._running = True

    def post(self, command: Command) -> None:
        self._inbox.put(command)

    def run(self, loaded: Callable[[], None] = lambda: None) -> None:
        """Load the Work, then do commands until Stop. `loaded` is called in between."""
        try:
            work = self._spec.load()
            loaded()
            while self._running:
                line = self._next_line()
                if line is not None:
                    self._one_row(work, line)
        except BaseException as error:  # a worker's code may raise anything, SystemExit too; the master must hear of it
            self._emit(Failure(f"{type(error).__name__}: {error}", traceback.format_exc()))

    def _next_line(self) -> Line | None:
        """The line that has been ready the longest; None after waiting for a command or a start-up."""
        now = time.monotonic()
        busy = [line for line in self._lines.values() if self._prepare(line, now)]
        line = min(busy, key=lambda line: line.ready, default=None)
        wait = None if line is None else max(0.0, line.ready - now)
        try:
            self._take(self._inbox.get(timeout=wait) if wait != 0 else self._inbox.get_nowait())
            return None
        except queue.Empty:
            return line

    def _take(self, command: Command) -> None:
        match command:
            case Message():
                for task in command.tasks:
                    self._cancelled.get(task.job, set()).discard(task)
                self._lines.setdefault(command.worker, Line()).messages.append(command)
            case Publish():
                self._payloads[command.job] = command.fetch
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

    def _prepare(self, line: Line, now: float) -> bool:
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

    def _start(self, line: Line, message: Message, now: float) -> None:
        if message.startup == np.inf:
            os.kill(os.getpid(), signal.SIGKILL)
        line.begun, line.ready = now, now + message.startup

    def _finish(self, line: Line, message: Message) -> None:
        if line.begun is not None and not line.fruitful:
            startup = line.ready - line.begun
            self._emit(Answer(message.tasks[-1], 0, message.attempt, message.invocation, startup, 0.0, None, 0))
        line.messages.popleft()
        line.at, line.begun, line.fruitful = 0, None, False

    def _payload(self, job: int) -> Payload | None:
        payload = self._payloads[job]
        if isinstance(payload, Payload):
            return payload
        fetched = payload()
        if fetched is not None:
            self._payloads[job] = fetched
        return fetched

    def _one_row(self, work: Work, line: Line) -> None:
        message = line.messages[0]
        task = message.tasks[line.at]
        payload = None if self._stale(task) else self._payload(task.job)
        if payload is None:
            line.at += 1
            return
        begun = time.monotonic()
        row = work.row(payload, *payload.layout.row(task, payload.ids))
        compute = time.monotonic() - begun
        if row.ndim != 1 or row.dtype not in (np.float32, np.float64):
            raise TypeError(f"a row must be a float32 or float64 vector: got {row.dtype} of shape {row.shape}")
        startup = line.ready - (line.begun if line.begun is not None else line.ready)
        line.at, line.fruitful = line.at + 1, True
        self._sent[task.job].add(task)
        self._emit(
            Answer(task, payload.version, message.attempt, message.invocation, startup, compute, row, digest(row))
        )
