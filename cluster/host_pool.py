"""Every pool of real workers: who owes what, what is in hand, and who is dead. A transport only carries commands and answers.

n logical workers share k hosts, worker i on host i modulo k, so that neighbours, who hold the same parts, live on different
hosts. A host that dies, or that says nothing for too long, is replaced and what it owes is sent again, a bounded number of
times.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import numpy as np

from distseq.cluster.pool import Delivery, Payload, PoolError, check_new, weighted_sum
from distseq.cluster.stopwatch import Stopwatch
from distseq.cluster.trace import Trace
from distseq.cluster.worker import Answer, Cancel, Command, Failure, Message, Retire, digest
from distseq.coding.plan import MiniTask

READY_WITHIN = 300.0  # seconds for a host to be placed and to have loaded its Work
SILENT = 30.0  # seconds of silence after which a host is taken for hung, by default; a living one speaks every second
LOOK = 5.0  # seconds between two looks at who is silent
DEATHS = 4  # of one host without an answer in between, after which the pool gives up


class Death(NamedTuple):
    """A host will not answer any more."""

    cause: str


class Transport(Protocol):
    """How commands reach host processes and answers come back. A handle stands for one living host."""

    def spawn(self, name: str) -> Any:
        """Start a host; returns its handle at once."""
        ...

    def wait_ready(self, handles: Sequence[Any], seconds: float) -> None:
        """Block until every host has loaded its Work; PoolError if one does not within so many seconds."""
        ...

    def share(self, payload: Payload) -> Any:
        """Make a payload readable by every host; returns what `post` takes."""
        ...

    def unshare(self, shared: Any) -> None: ...
    def post(self, handle: Any, commands: list[Command], shared: Mapping[int, Any]) -> None:
        """Publish the shared payloads (job -> shared) to a host, then give it the commands. Never blocks on a hung host."""
        ...

    def wait(self, handles: Sequence[Any], seconds: float) -> list[tuple[Any, list[Answer | Failure] | Death]]:
        """What hosts have said, after at most so many seconds; [] if none has."""
        ...

    def pid(self, handle: Any) -> int:
        """Process id, 0 while it is not known. Never blocks."""
        ...

    def kill(self, handle: Any) -> None: ...
    def close(self) -> None: ...


@dataclass
class Seat:
    """A host's place in the pool: the host in it may be replaced."""

    name: str
    handle: Any
    heard: float  # time of its last answer, or of its start
    patience: float = READY_WITHIN  # seconds it may be silent
    known: set[int] = field(default_factory=set)  # jobs whose payload the host has been told
    deaths: int = 0


@dataclass
class Job:
    payload: Payload
    shared: Any
    rows: dict[MiniTask, tuple[np.ndarray, int]] = field(default_factory=dict)  # row and digest


class HostPool:
    """n workers on `hosts` hosts of a transport (distseq.cluster.pool.Pool).

    `delays` (n columns) is injected: a worker's k-th message sleeps its start-up first, and a lost one kills its host. A host
    that says nothing for `silent_after` seconds is taken for hung and replaced. Raises PoolError when the hosts are not ready
    in time, ValueError for bad numbers.
    """

    def __init__(
        self, n: int, transport: Transport, hosts: int, *, delays: Trace | None = None, silent_after: float = SILENT
    ) -> None:
        check_numbers(n, hosts, delays)
        self._transport, self._delays, self._silent_after = transport, delays, silent_after
        self._started = time.monotonic()
        self._jobs: dict[int, Job] = {}
        self._version, self._last = 0, -1
        self._owed: dict[MiniTask, int] = {}  # sent, not arrived, not cancelled -> attempt
        self._invocations, self._stopwatch = [0] * n, Stopwatch()
        self.dropped = 0  # rows that came too late or twice
        self._seats = [self._seat(f"host-{j}") for j in range(hosts)]
        self._members = {i: f"host-{i % hosts}" for i in range(n)}
        try:
            transport.wait_ready([seat.handle for seat in self._seats], READY_WITHIN)
        except BaseException:
            self.close()
            raise
        for seat in self._seats:
            seat.heard, seat.patience = self.now(), silent_after

    def _seat(self, name: str, deaths: int = 0) -> Seat:
        return Seat(name, self._transport.spawn(name), self.now(), deaths=deaths)

    def pids(self) -> list[int]:
        """Process ids of the hosts; 0 for one that has not said it yet."""
        return [self._transport.pid(seat.handle) for seat in self._seats]

    def members(self) -> Mapping[int, str]:
        return self._members

    def now(self) -> float:
        return time.monotonic() - self._started

    def publish(self, job: int, payload: Payload) -> None:
        check_new(job, self._last)
        self._last, self._version = job, self._version + 1
        payload = replace(payload, version=self._version)
        self._jobs[job] = Job(payload, self._transport.share(payload))

    def send(self, tasks: Sequence[MiniTask]) -> None:
        for task in tasks:
            if task.job not in self._jobs:
                raise ValueError(f"job {task.job} was not published")
        self._send(tasks, dict.fromkeys(tasks, 1))

    def _send(self, tasks: Iterable[MiniTask], attempts: Mapping[MiniTask, int]) -> None:
        messages: dict[int, list[MiniTask]] = {}
        for task in tasks:
            messages.setdefault(task.worker, []).append(task)
            self._owed[task] = attempts[task]
        posts: list[list[Command]] = [[] for _ in self._seats]
        for worker, own in messages.items():
            posts[worker % len(self._seats)].append(self._message(worker, own, max(attempts[task] for task in own)))
        for seat, commands in zip(self._seats, posts, strict=True):
            if commands:
                self._post(seat, commands)

    def _message(self, worker: int, tasks: list[MiniTask], attempt: int) -> Message:
        invocation = self._invocations[worker]
        self._invocations[worker] += 1
        self._stopwatch.sent(worker, invocation, self._members[worker], self.now())
        startup = 0.0 if self._delays is None else max(0.0, self._delays.startup(invocation, worker))
        return Message(worker, tuple(tasks), attempt, invocation, startup)

    def _post(self, seat: Seat, commands: list[Command]) -> None:
        mentioned = {task.job for command in commands if isinstance(command, Message) for task in command.tasks}
        fresh = mentioned - seat.known
        seat.known |= fresh
        self._transport.post(seat.handle, commands, {job: self._jobs[job].shared for job in sorted(fresh)})

    def cancel(self, tasks: Sequence[MiniTask]) -> None:
        for task in tasks:
            self._owed.pop(task, None)
        for j, seat in enumerate(self._seats):
            own = tuple(task for task in tasks if task.worker % len(self._seats) == j)
            if own:
                self._post(seat, [Cancel(own)])

    def poll(self, until: float | None) -> list[Delivery]:
        while True:
            if until is None and not self._owed:
                raise PoolError("nothing is outstanding: waiting without a deadline would never end")
            wait = LOOK if until is None else min(LOOK, max(0.0, until - self.now()))
            seats = {id(seat.handle): seat for seat in self._seats}
            heard = self._transport.wait([seat.handle for seat in self._seats], wait)
            rows: list[Delivery] = []
            for handle, said in heard:
                rows += self._heard(seats.pop(id(handle)), said)
            for seat in seats.values():
                self._judge(seat)
            if rows or (until is not None and self.now() >= until):
                return rows

    def _heard(self, seat: Seat, said: list[Answer | Failure] | Death) -> list[Delivery]:
        if isinstance(said, Death):
            self._replace(seat, said.cause)
            return []
        seat.heard, seat.patience = self.now(), self._silent_after
        if said:
            seat.deaths = 0
        return [delivery for answer in said if (delivery := self._take(seat, answer)) is not None]

    def _judge(self, seat: Seat) -> None:
        silence = self.now() - seat.heard
        if silence > seat.patience:
            self._replace(seat, f"it was silent for {silence:.0f} s")

    def _take(self, seat: Seat, answer: Answer | Failure) -> Delivery | None:
        """None for word of a message that queued behind another and was stale when its turn came: it was never begun."""
        if isinstance(answer, Failure):
            raise PoolError(f"work failed on {seat.name}: {answer.text}\n{answer.traceback}")
        job, row = self._jobs.get(answer.task.job), answer.row
        stale = True
        if (
            job is not None
            and row is not None
            and job.payload.version == answer.version
            and answer.task not in job.rows
        ):
            self._owed.pop(answer.task, None)
            job.rows[answer.task] = (row, answer.digest)
            stale = False
        self.dropped += stale and row is not None
        a, now = answer, self.now()
        waited, queued = self._stopwatch.answered(a.task.worker, a.invocation, seat.name, a.compute, now)
        if row is None and queued and a.startup == 0:
            return None
        startup = max(a.startup, waited)
        return Delivery(a.task, now, startup, a.compute, seat.name, a.attempt, a.invocation, stale, a.digest)

    def _replace(self, seat: Seat, cause: str) -> None:
        if seat.deaths + 1 == DEATHS:
            raise PoolError(f"{seat.name} died {DEATHS} times without an answer; the last time: {cause}")
        self._transport.kill(seat.handle)
        j = self._seats.index(seat)
        self._seats[j] = self._seat(seat.name, seat.deaths + 1)
        again = {task: attempt + 1 for task, attempt in self._owed.items() if task.worker % len(self._seats) == j}
        self._send(again, again)

    def collect(self, job: int, weights: Mapping[MiniTask, float]) -> np.ndarray:
        rows = self._jobs[job].rows
        absent = set(weights) - set(rows)
        if absent:
            raise ValueError(f"rows {sorted(absent)[:3]} of job {job} are not in hand")
        for task in weights:
            row, sent = rows[task]
            if digest(row) != sent:
                raise PoolError(
                    f"the row of {task} was changed on its way: crc32 {digest(row):08x}, sent as {sent:08x}"
                )
        return weighted_sum((weights[task], rows[task][0]) for task in sorted(weights))

    def retire(self, job: int) -> None:
        retired = self._jobs.pop(job, None)
        if retired is None:
            return
        for task in [task for task in self._owed if task.job == job]:
            del self._owed[task]
        for seat in self._seats:
            if job in seat.known:
                seat.known.discard(job)
                self._post(seat, [Retire(job)])
        self._transport.unshare(retired.shared)

    def close(self) -> None:
        for seat in self._seats:
            self._transport.kill(seat.handle)
        for job in self._jobs.values():
            self._transport.unshare(job.shared)
        self._seats, self._jobs = [], {}
        self._owed.clear()
        self._transport.close()


def check_numbers(n: int, hosts: int, delays: Trace | None) -> None:
    """ValueError for numbers that no pool can have: to be asked before anything is started."""
    if n < 1 or not 1 <= hosts <= n:
        raise ValueError(f"a pool needs 1 <= hosts <= workers: got workers={n}, hosts={hosts}")
    if delays is not None and delays.workers != n:
        raise ValueError(f"injected delays need a column per worker: got {delays.workers} for n={n}")
