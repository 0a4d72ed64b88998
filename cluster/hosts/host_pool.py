"""Every pool of real workers: who owes what, what is in hand, and who is dead. A transport only carries commands and answers.

n logical workers share k hosts, worker i on host i modulo k, so that neighbours, who hold the same parts, live on different
hosts. A host that dies, or that says nothing for too long, is replaced; until its successor has loaded its Work, the other
hosts do what it owed and stand in for its workers. Where a transport's room changes, hosts come and go with it.
"""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from distseq.cluster.hosts.message_timing import MessageTimer
from distseq.cluster.hosts.messages import Answer, Cancel, Command, Failure, Message, Retire
from distseq.cluster.hosts.placement import READY_WITHIN, HostSlot, Placement
from distseq.cluster.hosts.transport import Death, LostError, Part, Transport
from distseq.cluster.pool import Delivery, Fault, FaultError, Payload, PoolError, check_new
from distseq.cluster.trace import Trace
from distseq.coding.plan import MiniTask

SILENT = 30.0  # seconds of silence after which a host is taken for hung, by default; a living one speaks every second
LOOK = 5.0  # seconds between two looks at who is silent, and at the room there is
DEATHS = 4  # of one host without an answer in between, after which the pool gives up
ATTEMPTS = 6  # to have one mini-task done, its host dying each time, after which the pool gives up


@dataclass(frozen=True)
class Row:
    row: Any
    digest: int
    attempt: int
    seat: HostSlot


@dataclass
class Job:
    payload: Payload
    shared: Any
    rows: dict[MiniTask, Row] = field(default_factory=dict)
    lost: set[MiniTask] = field(default_factory=set)  # delivered, gone with their host, and owed again
    fault: Fault | None = None  # of one that was to be made again


class HostPool:
    """n workers on `hosts` hosts of a transport (distseq.cluster.pool.Pool).

    `delays` (n columns) is injected: a worker's k-th message sleeps its start-up first, and a lost one kills its host. A host
    that says nothing for `silent_after` seconds is taken for hung and replaced. Raises PoolError when the hosts are not ready
    in time, ValueError for bad numbers.

    Where the transport's room changes there are as many hosts as it has room for, at most `most` (default: `hosts`). With
    `elastic` there is one worker per host, at most n; else n workers share whatever hosts there are.
    """

    def __init__(
        self,
        n: int,
        transport: Transport,
        hosts: int,
        *,
        delays: Trace | None = None,
        silent_after: float = SILENT,
        elastic: bool = False,
        most: int | None = None,
    ) -> None:
        check_numbers(n, hosts, delays)
        self._transport, self._delays, self._silent_after = transport, delays, silent_after
        self._started = time.monotonic()
        self._jobs: dict[int, Job] = {}
        self._version, self._last = 0, dict[str, int]()
        self._owed: dict[
            MiniTask, tuple[int, HostSlot]
        ] = {}  # sent, not arrived, not cancelled -> attempt, and to whom
        self._invocations: defaultdict[int, int] = defaultdict(int)
        self._stopwatch = MessageTimer()
        self._kept: list[Delivery] = []  # heard while a sum was waited for
        self._news: list[str] = []
        self._deaths = 0
        self.dropped = 0  # rows that came too late or twice
        self._seats = Placement(n, most or hosts, elastic)
        self._seats.placed = [self._seat(f"host-{j}") for j in range(hosts)]
        self._members: Mapping[int, str] = {}
        try:
            transport.wait_ready([seat.handle for seat in self._seats.placed], READY_WITHIN)
        except BaseException:
            self.close()
            raise
        for seat in self._seats.placed:
            seat.heard, seat.patience, seat.living = self.now(), silent_after, True
        self._looked = self.now()
        self._settle()

    def _seat(self, name: str, deaths: int = 0) -> HostSlot:
        return HostSlot(name, self._transport.spawn(name), self.now(), deaths=deaths)

    def _settle(self) -> None:
        """Say anew who lives where."""
        members = self._seats.members()
        if members != self._members:
            self._members = members

    def pids(self) -> list[int]:
        """Process ids of the hosts; 0 for one that has not said it yet."""
        return [self._transport.pid(seat.handle) for seat in self._seats.placed]

    def members(self) -> Mapping[int, str]:
        return self._members

    def news(self) -> list[str]:
        news, self._news = self._news, []
        return news

    def now(self) -> float:
        return time.monotonic() - self._started

    def publish(self, job: int, payload: Payload) -> None:
        check_new(job, payload.kind, self._last)
        self._version += 1
        payload = replace(payload, version=self._version)
        self._jobs[job] = Job(payload, self._transport.share(payload))

    def send(self, tasks: Sequence[MiniTask]) -> None:
        for task in tasks:
            if task.job not in self._jobs:
                raise ValueError(f"job {task.job} was not published")
        self._send(dict.fromkeys(tasks, 1))

    def _send(self, attempts: Mapping[MiniTask, int]) -> None:
        messages: dict[int, list[MiniTask]] = {}
        for task in attempts:
            messages.setdefault(task.worker, []).append(task)
        posts: dict[HostSlot, list[Command]] = {}
        for worker, own in messages.items():
            seat = self._seats.home(worker)
            self._owed |= {task: (attempts[task], seat) for task in own}
            message = self._message(worker, own, max(attempts[task] for task in own))
            self._stopwatch.sent(worker, message.invocation, seat.name, self.now())
            posts.setdefault(seat, []).append(message)
        for seat, commands in posts.items():
            self._post(seat, commands)

    def _message(self, worker: int, tasks: list[MiniTask], attempt: int) -> Message:
        invocation = self._invocations[worker]
        self._invocations[worker] += 1
        delays = self._delays
        startup = 0.0 if delays is None else max(0.0, delays.startup(invocation, worker % delays.workers))
        return Message(worker, tuple(tasks), attempt, invocation, startup)

    def _post(self, seat: HostSlot, commands: list[Command]) -> None:
        mentioned = {task.job for command in commands if isinstance(command, Message) for task in command.tasks}
        fresh = mentioned - seat.known
        seat.known |= fresh
        self._transport.post(seat.handle, commands, {job: self._jobs[job].shared for job in sorted(fresh)})

    def cancel(self, tasks: Sequence[MiniTask]) -> None:
        cancelled: dict[HostSlot, list[MiniTask]] = {}
        for task in tasks:
            if task in self._owed:
                _, seat = self._owed.pop(task)
                cancelled.setdefault(seat, []).append(task)
        for seat, own in cancelled.items():
            self._post(seat, [Cancel(tuple(own))])

    def poll(self, until: float | None) -> list[Delivery]:
        while True:
            if until is None and not self._owed and not self._kept:
                raise PoolError("nothing is outstanding: waiting without a deadline would never end")
            wait = LOOK if until is None else min(LOOK, max(0.0, until - self.now()))
            heard = self._hear(0.0 if self._kept else wait)
            rows, self._kept = self._kept + heard, []
            if rows or self._news or (until is not None and self.now() >= until):
                return rows

    def _hear(self, seconds: float) -> list[Delivery]:
        """Take what hosts have said; see to those that are dead, silent, come or go."""
        seats = {id(seat.handle): seat for seat in self._seats.all()}
        heard = self._transport.wait([seat.handle for seat in seats.values()], seconds)
        rows: list[Delivery] = []
        for handle, said in heard:
            rows += self._heard(seats.pop(id(handle)), said)
        for seat in seats.values():
            self._judge(seat)
        if self.now() - self._looked > LOOK:
            self._looked = self.now()
            self._resize()
        return rows

    def _heard(self, seat: HostSlot, said: list[Answer | Failure] | Death) -> list[Delivery]:
        if isinstance(said, Death):
            self._died(seat, said.cause)
            return []
        failed = [answer for answer in said if isinstance(answer, Failure)]
        if failed and seat in self._seats.coming:
            self._seats.most = len(self._seats.placed)
            self._leave(seat, f"it cannot join: {failed[0].text}")
            return []
        seat.heard, seat.patience = self.now(), self._silent_after
        if said:
            seat.deaths = 0
        if not seat.living:
            self._arrive(seat)
        return [delivery for answer in said if (delivery := self._take(seat, answer)) is not None]

    def _arrive(self, seat: HostSlot) -> None:
        if self._seats.arrive(seat):
            self._news.append(f"{seat.name} joined")
        self._settle()
        # Sent while no host lived: who was to do it may never come to life.
        self._send({task: attempt + 1 for task, (attempt, at) in self._owed.items() if not at.living})

    def _judge(self, seat: HostSlot) -> None:
        silence = self.now() - seat.heard
        if silence <= seat.patience:
            return
        cause = f"it was silent for {silence:.0f} s"
        if self._seats.others_live(seat):
            self._leave(seat, cause)
        else:
            self._died(seat, cause)

    def _resize(self) -> None:
        """Let hosts that find no room go, and new ones come where there is room."""
        room = self._transport.room()
        if room is None:
            return
        leaving, names = self._seats.resize(room)
        for seat in leaving:
            self._leave(seat, f"there is room for {room} hosts only")
        self._seats.coming += [self._seat(name) for name in names]

    def _take(self, seat: HostSlot, answer: Answer | Failure) -> Delivery | None:
        """None for word of a message that queued behind another and was stale when its turn came: it was never begun."""
        if isinstance(answer, Failure):
            raise PoolError(f"work failed on {seat.name} on {answer.machine}: {answer.text}\n{answer.traceback}")
        job, a = self._jobs.get(answer.task.job), answer
        fault = a.fault if job is not None and job.payload.version == a.version else None
        stale = a.row is None
        if fault is not None and job is not None:
            self._owed.pop(a.task, None)
            if a.task in job.lost:
                job.fault = fault
        if a.row is not None and (job is None or job.payload.version != a.version or a.task in job.rows):
            self._transport.free(seat.handle, [a.row])
            self.dropped += 1
            stale = True
        elif a.row is not None and job is not None:
            self._owed.pop(a.task, None)
            job.rows[a.task] = Row(a.row, a.digest, a.attempt, seat)
            stale = a.task in job.lost
            job.lost.discard(a.task)
        now = self.now()
        waited, queued = self._stopwatch.answered(a.task.worker, a.invocation, seat.name, a.compute, now)
        if a.row is None and fault is None and queued and a.startup == 0:
            return None
        startup = max(a.startup, waited)
        return Delivery(a.task, now, startup, a.compute, seat.name, a.attempt, a.invocation, stale, a.digest, fault)

    def _died(self, seat: HostSlot, cause: str) -> None:
        self._deaths += 1
        if seat in self._seats.coming:
            self._leave(seat, cause)
            return
        if seat.deaths + 1 == DEATHS:
            raise PoolError(f"{seat.name} died {DEATHS} times without an answer; the last time: {cause}")
        self._transport.kill(seat.handle)
        self._seats.replace(seat, self._seat(seat.name, seat.deaths + 1))
        self._news.append(f"{seat.name} is replaced: {cause}")
        self._bereave(seat, cause)

    def _leave(self, seat: HostSlot, cause: str) -> None:
        """Do without a host: others have its workers from now on."""
        self._transport.kill(seat.handle)
        self._seats.leave(seat)
        self._news.append(f"{seat.name} left: {cause}")
        self._bereave(seat, cause)

    def _bereave(self, seat: HostSlot, cause: str) -> None:
        """Have done again what a host owed, and what lay with it of jobs that are open."""
        again = {task: attempt + 1 for task, (attempt, at) in self._owed.items() if at is seat}
        for job in self._jobs.values():
            gone = {task: row for task, row in job.rows.items() if row.seat is seat and self._transport.stays(row.row)}
            for task, row in gone.items():
                del job.rows[task]
                job.lost.add(task)
                again[task] = row.attempt + 1
        if again and max(again.values()) > ATTEMPTS:
            worst = max(again, key=again.__getitem__)
            raise PoolError(f"{worst} was lost with its host in each of {ATTEMPTS} attempts; the last time: {cause}")
        self._settle()
        self._send(again)

    def collect(self, job: int, weights: Mapping[MiniTask, float]) -> np.ndarray:
        own, wanted = self._jobs[job], sorted(weights)
        absent = set(weights) - own.rows.keys() - own.lost
        if absent:
            raise ValueError(f"rows {sorted(absent)[:3]} of job {job} are not in hand")
        while True:
            while own.lost.intersection(wanted):
                self._kept += self._hear(LOOK)
                if own.fault is not None:
                    raise FaultError(own.fault)
            deaths = self._deaths
            rows = [(task, own.rows[task]) for task in wanted]
            parts = [Part(task, weights[task], row.row, row.digest, row.seat.handle) for task, row in rows]
            try:
                return self._transport.add(parts, lambda before=deaths: self._another_death(before))  # type: ignore[misc]
            except LostError as error:
                self._until_a_death(deaths, error)

    def _another_death(self, before: int) -> bool:
        self._kept += self._hear(0.0)
        return self._deaths > before

    def _until_a_death(self, before: int, error: LostError) -> None:
        end = self.now() + READY_WITHIN
        while self._deaths == before:
            if self.now() > end:
                raise PoolError(f"rows are gone though their hosts live: {error}") from None
            self._kept += self._hear(LOOK)

    def retire(self, job: int) -> None:
        retired = self._jobs.pop(job, None)
        if retired is None:
            return
        for task in [task for task in self._owed if task.job == job]:
            del self._owed[task]
        rows: dict[HostSlot, list[Any]] = {}
        for row in retired.rows.values():
            rows.setdefault(row.seat, []).append(row.row)
        for seat in self._seats.placed:
            if seat in rows:
                self._transport.free(seat.handle, rows[seat])
            if job in seat.known:
                seat.known.discard(job)
                self._post(seat, [Retire(job)])
        self._transport.unshare(retired.shared)

    def close(self) -> None:
        for seat in self._seats.all():
            self._transport.kill(seat.handle)
        for job in self._jobs.values():
            self._transport.unshare(job.shared)
        self._seats.placed, self._seats.coming, self._jobs = [], [], {}
        self._owed.clear()
        self._transport.close()


def check_numbers(n: int, hosts: int, delays: Trace | None) -> None:
    """ValueError for numbers that no pool can have: to be asked before anything is started."""
    if n < 1 or not 1 <= hosts <= n:
        raise ValueError(f"a pool needs 1 <= hosts <= workers: got workers={n}, hosts={hosts}")
    if delays is not None and delays.workers != n:
        raise ValueError(f"injected delays need a column per worker: got {delays.workers} for n={n}")
