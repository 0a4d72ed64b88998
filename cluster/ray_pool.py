"""Workers on Ray: the worker loop inside a few actors, rows through Ray's object store.

On one machine n logical workers share k host actors, about one per core; on a cluster k = n. A host answers with at most one
message per FLUSH seconds. An actor that dies is replaced and its mini-tasks are sent again, a bounded number of times.
"""

import os
import queue
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import ray

from distseq.cluster.pool import Delivery, Payload, PoolError, check_new, weighted_sum
from distseq.cluster.trace import Trace
from distseq.cluster.work import WorkSpec
from distseq.cluster.worker import Answer, Cancel, Command, Failure, Message, Publish, Retire, WorkerLoop, digest
from distseq.coding.plan import MiniTask

FLUSH = 0.01  # seconds between two answers of a host
IDLE = 1.0  # seconds after which a host with nothing to say answers all the same
READY_WITHIN = 300.0  # seconds for an actor to be placed and to have loaded its Work
SILENT = 30.0  # seconds of silence after which a host is taken for hung, by default
LOOK = 5.0  # seconds between two looks at who is silent
DEATHS = 4  # of one host without an answer in between, after which the pool gives up


class Host:
    """The actor: a thread runs the worker loop, the methods are its transport."""

    def __init__(self, spec: WorkSpec) -> None:
        self._answers: queue.SimpleQueue[Answer | Failure] = queue.SimpleQueue()
        self._loaded = threading.Event()
        self._loop = WorkerLoop(spec, self._emit)
        self._flushed = 0.0
        threading.Thread(target=self._loop.run, args=(self._loaded.set,), daemon=True).start()

    def _emit(self, answer: Answer | Failure) -> None:
        self._answers.put(answer)
        if isinstance(answer, Failure):
            self._loaded.set()

    def pid(self) -> int:
        """Process id, once the Work is loaded or has failed to."""
        self._loaded.wait()
        return os.getpid()

    def post(self, commands: list[Command], published: Mapping[int, Any]) -> None:
        """`published`: job -> [reference to its payload] (inside a list, so that Ray does not fetch it before it is needed)."""
        for job, boxed in published.items():
            self._loop.post(Publish(job, lambda ref=boxed[0]: ray.get(ref)))  # type: ignore[misc]
        for command in commands:
            self._loop.post(command)

    def answers(self) -> list[Answer | Failure]:
        """Block until there is something to say, or IDLE seconds; then all that has gathered."""
        try:
            gathered = [self._answers.get(timeout=IDLE)]
        except queue.Empty:
            return []
        time.sleep(max(0.0, self._flushed + FLUSH - time.monotonic()))
        while not self._answers.empty():
            gathered.append(self._answers.get())
        self._flushed = time.monotonic()
        return gathered


@dataclass
class Seat:
    """A host's place in the pool: its actor may be replaced."""

    name: str
    actor: Any
    pending: Any  # reference to the answer that is waited for
    heard: float  # time of its last answer, or of its creation
    patience: float = READY_WITHIN  # seconds it may be silent
    known: set[int] = field(default_factory=set)  # jobs whose payload the actor has been told
    deaths: int = 0


@dataclass
class Job:
    payload: Payload
    reference: Any
    rows: dict[MiniTask, tuple[np.ndarray, int]] = field(default_factory=dict)  # row and digest


class RayPool:
    """n workers on `hosts` actors of `num_cpus` CPUs each, on the Ray that is running, the cluster at `address`, or a local one.

    `delays` (n columns) is injected: a worker's k-th message sleeps its start-up first, and a lost one kills its host. A host
    that says nothing for `silent_after` seconds is taken for hung and replaced.
    Raises PoolError when the actors are not ready in time, ValueError for bad numbers.
    """

    def __init__(
        self,
        n: int,
        work: WorkSpec,
        *,
        hosts: int | None = None,
        address: str = "local",
        num_cpus: float = 1,
        delays: Trace | None = None,
        silent_after: float = SILENT,
    ) -> None:
        if n < 1 or (hosts is not None and not 1 <= hosts <= n):
            raise ValueError(f"a pool needs 1 <= hosts <= workers: got workers={n}, hosts={hosts}")
        if delays is not None and delays.workers != n:
            raise ValueError(f"injected delays need a column per worker: got {delays.workers} for n={n}")
        self._spec, self._delays, self._num_cpus, self._silent_after = work, delays, num_cpus, silent_after
        self._started = time.monotonic()
        self._jobs: dict[int, Job] = {}
        self._version, self._last = 0, -1
        self._owed: dict[MiniTask, int] = {}  # sent, not arrived, not cancelled -> attempt
        self._invocations = [0] * n
        self._seats: list[Seat] = []
        self.dropped = 0  # rows that came too late or twice
        self._owns_ray = not ray.is_initialized()
        try:
            if self._owns_ray:
                _init(address)
            self._seats = [self._seat(f"ray-{j}") for j in range(self._hosts(n, hosts))]
            self._wait_until_ready()
        except BaseException:
            self.close()
            raise
        self._members = {i: f"ray-{i % len(self._seats)}" for i in range(n)}

    def _hosts(self, n: int, hosts: int | None) -> int:
        room = int(ray.cluster_resources().get("CPU", 0) // self._num_cpus)
        if hosts is not None and hosts > room:
            raise ValueError(f"{hosts} hosts of {self._num_cpus} CPU do not fit: the cluster has room for {room}")
        return hosts or min(n, max(1, room))

    def _seat(self, name: str, deaths: int = 0) -> Seat:
        options = {"num_cpus": self._num_cpus, "max_restarts": 0, "concurrency_groups": {"control": 1, "answers": 1}}
        actor = ray.remote(**options)(Host).remote(self._spec)
        return Seat(name, actor, _answers(actor), self.now(), deaths=deaths)

    def _wait_until_ready(self) -> None:
        try:
            ray.get(self._pids(), timeout=READY_WITHIN)
        except ray.exceptions.GetTimeoutError:
            free = ray.available_resources().get("CPU", 0)
            wanted = f"{len(self._seats)} actors of {self._num_cpus} CPU"
            raise PoolError(f"{wanted} were not ready in {READY_WITHIN:.0f} s; free CPUs: {free}") from None
        except ray.exceptions.RayActorError as error:
            raise PoolError(f"an actor died before it was ready: {error}") from None
        for seat in self._seats:
            seat.heard, seat.patience = self.now(), self._silent_after

    def _pids(self) -> list[Any]:
        return [seat.actor.pid.options(concurrency_group="control").remote() for seat in self._seats]

    def pids(self) -> list[int]:
        """Process ids of the hosts, for tests that kill them."""
        return list(ray.get(self._pids()))

    def members(self) -> Mapping[int, str]:
        return self._members

    def now(self) -> float:
        return time.monotonic() - self._started

    def publish(self, job: int, payload: Payload) -> None:
        check_new(job, self._last)
        self._last, self._version = job, self._version + 1
        payload = replace(payload, version=self._version)
        self._jobs[job] = Job(payload, ray.put(payload))

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
        startup = 0.0 if self._delays is None else max(0.0, self._delays.startup(invocation, worker))
        return Message(worker, tuple(tasks), attempt, invocation, startup)

    def _post(self, seat: Seat, commands: list[Command]) -> None:
        mentioned = {task.job for command in commands if isinstance(command, Message) for task in command.tasks}
        fresh = mentioned - seat.known
        seat.known |= fresh
        references = {job: [self._jobs[job].reference] for job in sorted(fresh)}
        seat.actor.post.options(concurrency_group="control").remote(commands, references)

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
            seats = {seat.pending: seat for seat in self._seats}
            ready, _ = ray.wait(list(seats), num_returns=1, timeout=wait)
            ready, silent = ray.wait(list(seats), num_returns=len(seats), timeout=0)
            rows = [delivery for ref in ready for delivery in self._heard(seats[ref])]
            for ref in silent:
                self._judge(seats[ref])
            if rows or (until is not None and self.now() >= until):
                return rows

    def _heard(self, seat: Seat) -> list[Delivery]:
        try:
            answers = ray.get(seat.pending)
        except (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError) as error:
            self._replace(seat, str(error))
            return []
        except ray.exceptions.RayError as error:
            raise PoolError(f"host {seat.name} cannot answer: {error}") from error
        seat.pending, seat.heard, seat.patience = _answers(seat.actor), self.now(), self._silent_after
        if answers:
            seat.deaths = 0
        return [self._take(seat, answer) for answer in answers]

    def _judge(self, seat: Seat) -> None:
        """A living host answers every IDLE seconds; Ray itself never reports one that hangs or that cannot be placed."""
        silence = self.now() - seat.heard
        if silence > seat.patience:
            self._replace(seat, f"it was silent for {silence:.0f} s")

    def _take(self, seat: Seat, answer: Answer | Failure) -> Delivery:
        if isinstance(answer, Failure):
            raise PoolError(f"work failed on host {seat.name}: {answer.text}\n{answer.traceback}")
        job = self._jobs.get(answer.task.job)
        known = job is not None and job.payload.version == answer.version
        stale = answer.row is None or not known or answer.task in job.rows  # type: ignore[union-attr]
        if job is not None and answer.row is not None and not stale:
            self._owed.pop(answer.task, None)
            job.rows[answer.task] = (answer.row, answer.digest)
        self.dropped += stale and answer.row is not None
        return Delivery(
            answer.task,
            self.now(),
            answer.startup,
            answer.compute,
            seat.name,
            answer.attempt,
            answer.invocation,
            stale,
            answer.digest,
        )

    def _replace(self, seat: Seat, cause: str) -> None:
        if seat.deaths + 1 == DEATHS:
            raise PoolError(f"host {seat.name} died {DEATHS} times without an answer; the last time: {cause}")
        ray.kill(seat.actor)
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
        if self._jobs.pop(job, None) is None:
            return
        for task in [task for task in self._owed if task.job == job]:
            del self._owed[task]
        for seat in self._seats:
            if job in seat.known:
                seat.known.discard(job)
                self._post(seat, [Retire(job)])

    def close(self) -> None:
        for seat in self._seats:
            ray.kill(seat.actor)
        self._seats, self._jobs = [], {}
        self._owed.clear()
        if self._owns_ray and ray.is_initialized():
            ray.shutdown()


def _answers(actor: Any) -> Any:
    return actor.answers.options(concurrency_group="answers").remote()


def _init(address: str) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if address == "local":
        cores = os.cpu_count() or 1
        options |= {"num_cpus": cores, "include_dashboard": False, "object_store_memory": 512 * 1024 * 1024}
    try:
        ray.init(address=address, **options)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"cannot start or reach Ray at address {address!r}: {str(error).splitlines()[0]}") from error
