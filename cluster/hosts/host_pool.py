"""The bookkeeping of every pool of real workers: tasks outstanding, rows in hand, hosts that died.

n logical workers share k hosts, worker i on host i modulo k, so that neighbours, which hold the same parts, are on different
hosts. A host that dies or stays silent for too long is replaced; until its successor has loaded its Work, the other hosts do
its outstanding tasks and run its workers. When the transport's capacity changes, hosts are added or removed.
Commands and answers are carried by a distseq.cluster.hosts.transport.Transport.
"""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from distseq.cluster.hosts.message_timing import MessageTimer
from distseq.cluster.hosts.messages import Answer, Assign, Cancel, Command, Failure, Retire
from distseq.cluster.hosts.placement import READY_WITHIN, HostSlot, Placement
from distseq.cluster.hosts.transport import Death, LostError, Term, Transport
from distseq.cluster.pool import Delivery, Fault, FaultError, Payload, PoolError, check_new
from distseq.cluster.trace import Trace
from distseq.coding.plan import MiniTask

# Default seconds of silence before a host counts as hung. A healthy host answers every host_loop.IDLE = 1 s however long it
# computes, so 30 s leaves room for a machine that swaps or pauses, and still ends before a user gives up on the run.
SILENT = 30.0
# Seconds between two checks for silent hosts and for capacity: a small part of SILENT, and the capacity check is a remote call.
CHECK_EVERY = 5.0
# Deaths of one host, with no answer in between, before the pool raises: such a host fails while it loads, and retrying forever
# would turn a broken import into a run that hangs.
DEATHS = 4
# Attempts at one mini-task, each ended by the death of its host, before the pool raises: by then the mini-task is what kills
# the hosts, for instance by running out of memory (docs/decisions/009).
ATTEMPTS = 6


@dataclass(frozen=True)
class HeldRow:
    """A delivered row: the transport's stand-in for the vector, and the host that holds it."""

    row: Any
    digest: int
    attempt: int
    slot: HostSlot


@dataclass
class JobRows:
    """A published job, and its rows that are in hand."""

    payload: Payload
    shared: Any
    rows: dict[MiniTask, HeldRow] = field(default_factory=dict)
    lost: set[MiniTask] = field(default_factory=set)  # delivered, then lost with their host, and requested again
    fault: Fault | None = None  # raised while a lost row was recomputed


class HostPool:
    """n workers on `hosts` hosts of a transport; implements distseq.cluster.pool.Pool.

    `delays` (n columns) is injected: a worker's k-th message first sleeps its start-up, and a lost one (inf) kills its host.
    A host that is silent for `silent_after` seconds counts as hung and is replaced. Raises PoolError when the hosts are not
    ready within READY_WITHIN seconds, ValueError for bad numbers.

    If the transport's capacity changes, the pool uses as many hosts as fit, at most `most` (default: `hosts`). With `elastic`
    each host runs one worker, at most n; otherwise n workers share the hosts there are.
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
        self._jobs: dict[int, JobRows] = {}
        self._version, self._last = 0, dict[str, int]()
        # Sent, neither answered nor cancelled -> attempt, and the host it was sent to.
        self._outstanding: dict[MiniTask, tuple[int, HostSlot]] = {}
        self._invocations: defaultdict[int, int] = defaultdict(int)
        self._timer = MessageTimer()
        self._deferred: list[Delivery] = []  # received while waiting for a sum, delivered by the next `poll`
        self._news: list[str] = []
        self._deaths = 0
        self._placement = Placement(n, most or hosts, elastic)
        self._placement.placed = [self._new_slot(f"host-{j}") for j in range(hosts)]
        self._members: Mapping[int, str] = {}
        try:
            transport.wait_ready([slot.handle for slot in self._placement.placed], READY_WITHIN)
        except BaseException:
            self.close()
            raise
        for slot in self._placement.placed:
            slot.last_heard, slot.silence_limit, slot.ready = self.now(), silent_after, True
        self._last_check = self.now()
        self._update_members()

    def _new_slot(self, name: str, deaths: int = 0) -> HostSlot:
        # The name stays through replacements, and so does the count of deaths: predictions and messages are about the place.
        return HostSlot(name, self._transport.spawn(name), self.now(), deaths=deaths)

    def _update_members(self) -> None:
        """Recompute which host each worker is on."""
        members = self._placement.members()
        # `members()` promises the same object until it changes, so that the master compares it by identity in every turn.
        if members != self._members:
            self._members = members

    def pids(self) -> list[int]:
        """Process ids of the hosts; 0 where it is not known yet."""
        return [self._transport.pid(slot.handle) for slot in self._placement.placed]

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
        self._jobs[job] = JobRows(payload, self._transport.share(payload))

    def send(self, tasks: Sequence[MiniTask]) -> None:
        # All are checked before any is sent, so that a refused call changes nothing.
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
            slot = self._placement.home(worker)
            self._outstanding |= {task: (attempts[task], slot) for task in own}
            message = self._message(worker, own, max(attempts[task] for task in own))
            self._timer.sent(worker, message.invocation, slot.name, self.now())
            posts.setdefault(slot, []).append(message)
        for slot, commands in posts.items():
            self._post(slot, commands)

    def _message(self, worker: int, tasks: list[MiniTask], attempt: int) -> Assign:
        invocation = self._invocations[worker]
        self._invocations[worker] += 1
        delays = self._delays
        startup = 0.0 if delays is None else max(0.0, delays.startup(invocation, worker % delays.workers))
        return Assign(worker, tuple(tasks), attempt, invocation, startup)

    def _post(self, slot: HostSlot, commands: list[Command]) -> None:
        mentioned = {task.job for command in commands if isinstance(command, Assign) for task in command.tasks}
        # A payload goes along with the first mini-task of its job: hosts that get none need not hold the parameters.
        fresh = mentioned - slot.known_jobs
        slot.known_jobs |= fresh
        self._transport.post(slot.handle, commands, {job: self._jobs[job].shared for job in sorted(fresh)})

    def cancel(self, tasks: Sequence[MiniTask]) -> None:
        cancelled: dict[HostSlot, list[MiniTask]] = {}
        for task in tasks:
            if task in self._outstanding:
                _, slot = self._outstanding.pop(task)
                cancelled.setdefault(slot, []).append(task)
        for slot, own in cancelled.items():
            self._post(slot, [Cancel(tuple(own))])

    def poll(self, until: float | None) -> list[Delivery]:
        while True:
            if until is None and not self._outstanding and not self._deferred:
                raise PoolError("nothing is outstanding: waiting without a deadline would never end")
            wait = CHECK_EVERY if until is None else min(CHECK_EVERY, max(0.0, until - self.now()))
            # Never blocks while deliveries are already here: they were received during a `collect`.
            received = self._receive(0.0 if self._deferred else wait)
            rows, self._deferred = self._deferred + received, []
            if rows or self._news or (until is not None and self.now() >= until):
                return rows

    def _receive(self, seconds: float) -> list[Delivery]:
        """Handle the answers of the hosts; replace, remove or add hosts where that is due."""
        # By identity, since handles are the transport's own objects and need not be hashable.
        slots = {id(slot.handle): slot for slot in self._placement.all()}
        received = self._transport.wait([slot.handle for slot in slots.values()], seconds)
        rows: list[Delivery] = []
        for handle, answers in received:
            rows += self._handle_answers(slots.pop(id(handle)), answers)
        for slot in slots.values():
            self._check_silence(slot)
        if self.now() - self._last_check > CHECK_EVERY:
            self._last_check = self.now()
            self._resize()
        return rows

    def _handle_answers(self, slot: HostSlot, answers: list[Answer | Failure] | Death) -> list[Delivery]:
        if isinstance(answers, Death):
            self._died(slot, answers.cause)
            return []
        failed = [answer for answer in answers if isinstance(answer, Failure)]
        if failed and slot in self._placement.joining:
            # The run goes on without it. Capping `most` keeps the pool from starting the same failure every CHECK_EVERY.
            self._placement.most = len(self._placement.placed)
            self._remove(slot, f"it cannot join: {failed[0].text}")
            return []
        slot.last_heard, slot.silence_limit = self.now(), self._silent_after
        # An empty list is only a sign of life: a host that loads and then dies on its first row must not look cured.
        if answers:
            slot.deaths = 0
        if not slot.ready:
            self._mark_ready(slot)
        return [delivery for answer in answers if (delivery := self._record(slot, answer)) is not None]

    def _mark_ready(self, slot: HostSlot) -> None:
        if self._placement.mark_ready(slot):
            self._news.append(f"{slot.name} joined")
        self._update_members()
        # Tasks sent while no host was ready went to hosts that may never become ready: send them again, to one that is.
        self._send({task: attempt + 1 for task, (attempt, at) in self._outstanding.items() if not at.ready})

    def _check_silence(self, slot: HostSlot) -> None:
        silence = self.now() - slot.last_heard
        if silence <= slot.silence_limit:
            return
        cause = f"it was silent for {silence:.0f} s"
        # A host that never became ready is dropped while others can run its workers: replacing it would fail the same way.
        if self._placement.others_ready(slot):
            self._remove(slot, cause)
        else:
            self._died(slot, cause)

    def _resize(self) -> None:
        """Remove hosts that no longer fit, and start new ones where there is room."""
        room = self._transport.room()
        if room is None:
            return
        leaving, names = self._placement.resize(room)
        # Before new ones start: those that leave may hold the resources that these need.
        for slot in leaving:
            self._remove(slot, f"there is room for {room} hosts only")
        self._placement.joining += [self._new_slot(name) for name in names]

    def _record(self, slot: HostSlot, answer: Answer | Failure) -> Delivery | None:
        """Record an answer. None for a message that went stale while it queued behind another: it never started."""
        if isinstance(answer, Failure):
            raise PoolError(f"work failed on {slot.name} on {answer.machine}: {answer.text}\n{answer.traceback}")
        job, a = self._jobs.get(answer.task.job), answer
        fault = a.fault if job is not None and job.payload.version == a.version else None
        stale = a.row is None
        if fault is not None and job is not None:
            self._outstanding.pop(a.task, None)
            if a.task in job.lost:
                job.fault = fault
        if a.row is not None and (job is None or job.payload.version != a.version or a.task in job.rows):
            self._transport.free(slot.handle, [a.row])
            stale = True
        elif a.row is not None and job is not None:
            self._outstanding.pop(a.task, None)
            job.rows[a.task] = HeldRow(a.row, a.digest, a.attempt, slot)
            # A recomputed row was already delivered once; the scheduler must not count it twice.
            stale = a.task in job.lost
            job.lost.discard(a.task)
        now = self.now()
        waited, queued = self._timer.answered(a.task.worker, a.invocation, slot.name, a.compute, now)
        if a.row is None and fault is None and queued and a.startup == 0:
            return None
        # The host times only what it slept. A stopped or starved host cannot time itself, so the master's clock counts too.
        startup = max(a.startup, waited)
        return Delivery(a.task, now, startup, a.compute, slot.name, a.attempt, a.invocation, stale, a.digest, fault)

    def _died(self, slot: HostSlot, cause: str) -> None:
        self._deaths += 1
        if slot in self._placement.joining:
            self._remove(slot, cause)
            return
        if slot.deaths + 1 == DEATHS:
            raise PoolError(f"{slot.name} died {DEATHS} times in a row without answering; last cause: {cause}")
        # Killed even when it seems dead: a stopped process could come back and answer for its successor.
        self._transport.kill(slot.handle)
        self._placement.replace(slot, self._new_slot(slot.name, slot.deaths + 1))
        self._news.append(f"{slot.name} is replaced: {cause}")
        self._reissue(slot, cause)

    def _remove(self, slot: HostSlot, cause: str) -> None:
        """Remove a host; its workers move to the others."""
        self._transport.kill(slot.handle)
        self._placement.remove(slot)
        self._news.append(f"{slot.name} left: {cause}")
        self._reissue(slot, cause)

    def _reissue(self, slot: HostSlot, cause: str) -> None:
        """Reissue a lost host's outstanding tasks, and the rows of open jobs that were stored on it."""
        again = {task: attempt + 1 for task, (attempt, at) in self._outstanding.items() if at is slot}
        for job in self._jobs.values():
            gone = {task: row for task, row in job.rows.items() if row.slot is slot and self._transport.stays(row.row)}
            for task, row in gone.items():
                del job.rows[task]
                job.lost.add(task)
                again[task] = row.attempt + 1
        if again and max(again.values()) > ATTEMPTS:
            worst = max(again, key=again.__getitem__)
            raise PoolError(f"{worst}: its host died in each of {ATTEMPTS} attempts; last cause: {cause}")
        # Members first: `_send` maps workers to hosts, and must no longer find the lost one.
        self._update_members()
        self._send(again)

    def collect(self, job: int, weights: Mapping[MiniTask, float]) -> np.ndarray:
        own, wanted = self._jobs[job], sorted(weights)
        absent = set(weights) - own.rows.keys() - own.lost
        if absent:
            raise ValueError(f"rows {sorted(absent)[:3]} of job {job} are not in hand")
        while True:
            while own.lost.intersection(wanted):
                self._deferred += self._receive(CHECK_EVERY)
                if own.fault is not None:
                    raise FaultError(own.fault)
            # Counted before the sum starts, so that a death in the middle of it is never missed.
            deaths = self._deaths
            rows = [(task, own.rows[task]) for task in wanted]
            terms = [Term(task, weights[task], row.row, row.digest, row.slot.handle) for task, row in rows]
            try:
                return self._transport.add(terms, lambda before=deaths: self._host_died_since(before))  # type: ignore[misc]
            except LostError as error:
                self._wait_for_death(deaths, error)

    def _host_died_since(self, before: int) -> bool:
        self._deferred += self._receive(0.0)
        return self._deaths > before

    def _wait_for_death(self, before: int, error: LostError) -> None:
        end = self.now() + READY_WITHIN
        while self._deaths == before:
            if self.now() > end:
                raise PoolError(f"rows are lost although no host died: {error}") from None
            self._deferred += self._receive(CHECK_EVERY)

    def retire(self, job: int) -> None:
        retired = self._jobs.pop(job, None)
        if retired is None:
            return
        for task in [task for task in self._outstanding if task.job == job]:
            del self._outstanding[task]
        rows: dict[HostSlot, list[Any]] = {}
        for row in retired.rows.values():
            rows.setdefault(row.slot, []).append(row.row)
        for slot in self._placement.placed:
            if slot in rows:
                self._transport.free(slot.handle, rows[slot])
            # Only hosts that were told of the job; the others would not know its number.
            if job in slot.known_jobs:
                slot.known_jobs.discard(job)
                self._post(slot, [Retire(job)])
        self._transport.unshare(retired.shared)

    def close(self) -> None:
        for slot in self._placement.all():
            self._transport.kill(slot.handle)
        for job in self._jobs.values():
            self._transport.unshare(job.shared)
        self._placement.placed, self._placement.joining, self._jobs = [], [], {}
        self._outstanding.clear()
        self._transport.close()


def check_numbers(n: int, hosts: int, delays: Trace | None) -> None:
    """ValueError for numbers that no pool can have. Call it before anything is started."""
    if n < 1 or not 1 <= hosts <= n:
        raise ValueError(f"a pool needs 1 <= hosts <= workers: got workers={n}, hosts={hosts}")
    if delays is not None and delays.workers != n:
        raise ValueError(f"injected delays need a column for each of the {n} workers: got {delays.workers} columns")
