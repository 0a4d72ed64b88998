"""The bookkeeping of every pool of real workers: tasks outstanding, rows in hand, hosts that died.

n logical workers share k hosts, worker i on host i modulo k, so that neighbours, which hold the same parts, are on different
hosts. A host that dies or stays silent for too long is replaced; until its successor has loaded its Work, the other hosts do
its outstanding tasks and run its workers. When the transport's capacity changes, hosts are added or removed.
Commands and answers are carried by a distseq.cluster.hosts.transport.Transport.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from distseq.cluster.hosts.deadlines import Deadlines
from distseq.cluster.hosts.dispatch import Dispatch
from distseq.cluster.hosts.job_table import BLAMED, Attempt, HeldRow, JobRows, JobTable, Owed
from distseq.cluster.hosts.limits import READY_WITHIN, SILENT
from distseq.cluster.hosts.message_check import damage
from distseq.cluster.hosts.message_timing import MessageTimer
from distseq.cluster.hosts.messages import Answer, Failure, Progress, Report, Retire
from distseq.cluster.hosts.placement import HostSlot, Placement
from distseq.cluster.hosts.row_limits import RowLimits
from distseq.cluster.hosts.transport import Death, LostError, Term, Transport
from distseq.cluster.pool import Delivery, Fault, FaultError, Payload, PoolError, check_new
from distseq.cluster.trace import Trace
from distseq.coding.plan import MiniTask

# Seconds that `poll` waits at most, so that its caller sees soon that it has been asked to stop.
POLL = 1.0
# Seconds that count as listening at most between two looks at the hosts. A longer gap was a pause of this process (Ctrl-Z, a
# suspended laptop, a long optimizer step), in which the hosts could not be heard.
GAP = 2 * POLL
# Seconds between two checks for silent hosts, and between two of capacity, which is a remote call.
CHECK_SILENCE = 0.5
CHECK_EVERY = 5.0
# Deaths of one host, with no answer in between, before the pool raises: such a host fails while it loads, and retrying forever
# would turn a broken import into a run that hangs.
DEATHS = 4


class HostPool:
    """n workers on `hosts` hosts of a transport; implements distseq.cluster.pool.Pool.

    `delays` (n columns) is injected: a worker's k-th message first sleeps its start-up, and a lost one (inf) kills its host.
    A host that is silent for `silent_after` seconds counts as hung and is replaced; so is one whose row takes longer than
    `row_timeout` seconds, by default a generous multiple of measured times. A mini-task that takes several hosts along, in either
    way, is delivered as a fault. Raises PoolError when the hosts are not ready within `ready_within` seconds, ValueError for bad
    numbers.

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
        ready_within: float = READY_WITHIN,
        elastic: bool = False,
        most: int | None = None,
        row_timeout: float | None = None,
    ) -> None:
        check_numbers(n, hosts, delays)
        self._transport, self._silent_after = transport, silent_after
        self._n, self._ready_within = n, ready_within
        self._started = time.monotonic()
        self._listened, self._looked = 0.0, 0.0  # seconds, see GAP; pool time of the latest look at the hosts
        self._jobs = JobTable()
        self._deadlines = Deadlines(self._jobs, RowLimits(row_timeout), silent_after)
        self._version, self._last = 0, dict[str, int]()
        self._timer = MessageTimer()
        self._deferred: list[Delivery] = []  # received while waiting for a sum, delivered by the next `poll`
        self._blamed: list[MiniTask] = []  # delivered as faults since the last `poll`
        self._news: list[str] = []
        self._deaths = 0
        self._placement = Placement(n, most or hosts, elastic)
        self._dispatch = Dispatch(transport, self._placement, self._jobs, self._timer, delays)
        self._placement.placed = [self._new_slot(f"host-{j}") for j in range(hosts)]
        self._members: Mapping[int, str] = {}
        self._slots: dict[int, HostSlot] = {}  # by identity of their handles, which need not be hashable
        try:
            transport.wait_ready([slot.handle for slot in self._placement.placed], ready_within)
        except BaseException:
            self.close()
            raise
        for slot in self._placement.placed:
            slot.last_heard, slot.silence_limit, slot.ready = self._listened, silent_after, True
        self._looked = self._checked_silence = self._checked_room = self.now()
        self._update_members()

    def _new_slot(self, name: str, deaths: int = 0) -> HostSlot:
        # The name stays through replacements, and so does the count of deaths: predictions and messages are about the place.
        handle = self._transport.spawn(name)
        return HostSlot(name, handle, self._listened, silence_limit=self._ready_within, deaths=deaths)

    def _update_members(self) -> None:
        """Recompute which host each worker is on, after any change among the hosts."""
        self._slots = {id(slot.handle): slot for slot in self._placement.all()}
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
        self._jobs.add(job, JobRows(payload, self._transport.share(payload), payload.layout))

    def send(self, tasks: Sequence[MiniTask]) -> None:
        # All are checked before any is sent, so that a refused call changes nothing.
        for task in tasks:
            if task.job not in self._jobs:
                raise ValueError(f"job {task.job} was not published")
        self._send(self._jobs.hold(dict.fromkeys(tasks, Attempt())))

    def _send(self, attempts: Mapping[MiniTask, Attempt]) -> None:
        self._dispatch.send(attempts, self.now(), self._listened)

    def cancel(self, tasks: Sequence[MiniTask]) -> None:
        known = [task for task in tasks if task.job in self._jobs]
        self._dispatch.cancel(
            {task: self._jobs[task.job].owed[task] for task in known if task in self._jobs[task.job].owed}
        )
        for task in known:
            self._send(self._jobs.settle(task))

    def poll(self, until: float | None) -> list[Delivery]:
        self._release_blamed()
        end = self.now() + POLL if until is None else min(self.now() + POLL, until)
        while True:
            if until is None and not self._deferred and not self._jobs.owes:
                raise PoolError("nothing is outstanding: waiting without a deadline would never end")
            # Never blocks while deliveries are already here: they were received during a `collect`.
            received = self._receive(0.0 if self._deferred else max(0.0, end - self.now()))
            rows, self._deferred = self._deferred + received, []
            if rows or self._news or self.now() >= end:
                return rows

    def _release_blamed(self) -> None:
        """Send what waited for mini-tasks that were delivered as faults, where their jobs have not been given up for it."""
        blamed, self._blamed = self._blamed, []
        for task in blamed:
            if task.job in self._jobs:
                self._send(self._jobs.settle(task))

    def _receive(self, seconds: float) -> list[Delivery]:
        """Handle the answers of the hosts; replace, remove or add hosts where that is due."""
        received = self._transport.wait([slot.handle for slot in self._slots.values()], seconds)
        now = self.now()
        self._listened += min(now - self._looked, GAP)
        self._looked = now
        rows: list[Delivery] = []
        for handle, answers in received:
            # A host that an earlier one of these answers has removed is gone.
            if id(handle) in self._slots:
                rows += self._handle_answers(self._slots[id(handle)], answers)
        if now - self._checked_silence > CHECK_SILENCE:
            self._checked_silence = now
            for slot in self._placement.all():
                self._check_silence(slot)
        if now - self._checked_room > CHECK_EVERY:
            self._checked_room = now
            self._resize()
        return rows

    def _handle_answers(self, slot: HostSlot, answers: list[Report] | Death) -> list[Delivery]:
        if isinstance(answers, Death):
            self._died(slot, answers.cause)
            return []
        if (wrong := damage(answers, self._exists)) is not None:
            self._died(slot, wrong)
            return []
        failed = [answer for answer in answers if isinstance(answer, Failure)]
        if failed and slot in self._placement.joining:
            # The run goes on without it. Capping `most` keeps the pool from starting the same failure every CHECK_EVERY.
            self._placement.most = len(self._placement.placed)
            self._remove(slot, f"it cannot join: {failed[0].text}")
            return []
        slot.last_heard, slot.silence_limit = self._listened, self._silent_after
        if not slot.ready:
            self._mark_ready(slot)
        rows: list[Delivery] = []
        for answer in answers:
            if isinstance(answer, Progress):
                slot.in_hand = answer.tasks
                cause = self._deadlines.overdue(slot, answer, self._listened)
                if cause is not None:
                    self._died(slot, cause)
            else:
                rows += self._record(slot, answer)
        return rows

    def _exists(self, task: MiniTask) -> bool:
        """Whether a mini-task that a host reports can have been sent; of jobs that are over, any can."""
        job = self._jobs.get(task.job)
        loads = [] if job is None else job.layout.loads
        return task.worker < self._n and (
            job is None or (task.group < len(loads) and task.worker < len(loads[task.group]))
        )

    def _mark_ready(self, slot: HostSlot) -> None:
        if self._placement.mark_ready(slot):
            self._news.append(f"{slot.name} joined")
        self._update_members()
        # Tasks sent while no host was ready went to hosts that may never become ready: send them again, to one that is.
        waiting = self._jobs.owed(lambda owed: not owed.slot.ready)
        self._send({task: owed.attempt._replace(number=owed.attempt.number + 1) for task, owed in waiting.items()})

    def _check_silence(self, slot: HostSlot) -> None:
        silence = self._listened - slot.last_heard
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
        self._update_members()

    def _record(self, slot: HostSlot, answer: Answer | Failure) -> list[Delivery]:
        """Record an answer. [] for a message that went stale while it queued behind another: it never started."""
        if isinstance(answer, Failure):
            raise PoolError(f"work failed on {slot.name} on {answer.machine}: {answer.text}\n{answer.traceback}")
        job, a = self._jobs.get(answer.task.job), answer
        slot.idle_since = None
        if a.row is not None or a.fault is not None:
            # An empty invocation says little: a host that loads and then dies on its first row must not look cured.
            slot.deaths = 0
            slot.in_hand = ()
        current = job if job is not None and job.payload.version == a.version else None
        fault, stale = a.fault if current is not None else None, a.row is None
        if current is not None and a.row is not None:
            self._deadlines.measured(slot, current, a)
        if fault is not None and current is not None:
            self._send(self._jobs.settle(a.task))
            if a.task in current.lost:
                current.fault = fault
        if a.row is not None and (current is None or a.task in current.rows):
            self._transport.free(slot.handle, [a.row])
            stale = True
        elif a.row is not None and current is not None:
            self._send(self._jobs.settle(a.task))
            current.rows[a.task] = HeldRow(a.row, a.digest, a.attempt, slot)
            # A recomputed row was already delivered once; the scheduler must not count it twice.
            stale = a.task in current.lost
            current.lost.discard(a.task)
        now = self.now()
        waited, queued = self._timer.answered(a.task.worker, a.invocation, slot.name, a.compute, now)
        if a.row is None and fault is None and queued and a.startup == 0:
            return []
        # The host times only what it slept. A stopped or starved host cannot time itself, so the master's clock counts too.
        startup = max(a.startup, waited)
        identity = (slot.name, a.attempt, a.invocation)
        return [Delivery(a.task, now, startup, a.compute, *identity, stale, a.digest, fault)]

    def _died(self, slot: HostSlot, cause: str) -> None:
        self._deaths += 1
        if slot in self._placement.joining:
            self._remove(slot, cause)
            return
        # A death with a mini-task in hand counts against that one, not against the host.
        deaths = slot.deaths + (not slot.in_hand)
        if deaths == DEATHS:
            raise PoolError(f"{slot.name} died {DEATHS} times in a row without answering; last cause: {cause}")
        # Killed even when it seems dead: a stopped process could come back and answer for its successor.
        self._transport.kill(slot.handle)
        self._placement.replace(slot, self._new_slot(slot.name, deaths))
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
        lost = self._jobs.lose(slot, cause, self._transport.stays)
        # Members first: `_send` maps workers to hosts, and must no longer find the lost one.
        self._update_members()
        self._dispatch.cancel(lost.withdrawn)
        self._send(lost.again)
        for task, owed in lost.blamed.items():
            self._blame(task, owed, cause)

    def _blame(self, task: MiniTask, owed: Owed, cause: str) -> None:
        """Deliver a mini-task that takes its hosts along as a fault."""
        fault = Fault(f"its host was lost in each of {BLAMED} attempts at one row; last cause: {cause}")
        job, now, name = self._jobs[task.job], self.now(), owed.slot.name
        if task in job.lost:
            job.fault = fault
        self._blamed.append(task)
        waited, _ = self._timer.answered(task.worker, owed.invocation, name, 0.0, now)
        number = owed.attempt.number
        self._deferred.append(Delivery(task, now, waited, 0.0, name, number, owed.invocation, stale=True, fault=fault))

    def collect(self, job: int, weights: Mapping[MiniTask, float]) -> np.ndarray:
        own, wanted = self._jobs[job], sorted(weights)
        absent = set(weights) - own.rows.keys() - own.lost
        if absent:
            raise ValueError(f"rows {sorted(absent)[:3]} of job {job} are not in hand")
        while True:
            while own.lost.intersection(wanted):
                self._release_blamed()
                self._deferred += self._receive(POLL)
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
        end = self._listened + READY_WITHIN
        while self._deaths == before:
            if self._listened > end:
                raise PoolError(f"rows are lost although no host died: {error}") from None
            self._deferred += self._receive(POLL)

    def retire(self, job: int) -> None:
        retired = self._jobs.pop(job)
        if retired is None:
            return
        rows: dict[HostSlot, list[Any]] = {}
        for row in retired.rows.values():
            rows.setdefault(row.slot, []).append(row.row)
        for slot in self._placement.placed:
            if slot in rows:
                self._transport.free(slot.handle, rows[slot])
            # Only hosts that were told of the job; the others would not know its number.
            if job in slot.known_jobs:
                slot.known_jobs.discard(job)
                self._dispatch.post(slot, [Retire(job)])
        self._transport.unshare(retired.payload, retired.shared)

    def close(self) -> None:
        for slot in self._placement.all():
            self._transport.kill(slot.handle)
        for job in self._jobs:
            self._transport.unshare(job.payload, job.shared)
        self._jobs.clear()
        self._placement.placed, self._placement.joining = [], []
        # Handles hold descriptors for as long as somebody refers to them.
        self._slots = {}
        self._transport.close()


def check_numbers(n: int, hosts: int, delays: Trace | None) -> None:
    """ValueError for numbers that no pool can have. Call it before anything is started."""
    if n < 1 or not 1 <= hosts <= n:
        raise ValueError(f"a pool needs 1 <= hosts <= workers: got workers={n}, hosts={hosts}")
    if delays is not None and delays.workers != n:
        raise ValueError(f"injected delays need a column for each of the {n} workers: got {delays.workers} columns")
