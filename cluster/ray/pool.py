"""A worker pool on Ray actors: by default as many as there are free CPUs, but at most one per worker.

Payloads go through Ray's object store. Small rows arrive with the answers; large ones stay in the object store of the node
that computed them, and are added there. Ray's own restarts and retries are off, because the pool counts attempts itself.
"""

import os
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import ray

from distseq.cluster.hosts.host_loop import HostLoop
from distseq.cluster.hosts.host_pool import SILENT, HostPool, check_numbers
from distseq.cluster.hosts.messages import Answer, Command, Failure, Publish
from distseq.cluster.hosts.transport import Death, LostError, Term, verified
from distseq.cluster.pool import Payload, PoolError
from distseq.cluster.ray.metrics import HostMeter
from distseq.cluster.ray.resources import HostResources
from distseq.cluster.reduction import blocks, check_lengths, sum_in_place
from distseq.cluster.trace import Trace
from distseq.cluster.work import WorkSpec

# Bytes up to which a row travels with its answer. A tree of remote sums costs round trips of milliseconds, which small rows do
# not repay; of large ones the driver would receive n per job instead of one (docs/decisions/009).
INLINE = 1 << 20
CAUSE = 400  # characters kept of the cause of a death
CONNECT = 10.0  # seconds a cluster's address may take to answer
# Seconds between two checks for dead hosts while waiting for a remote sum.
SUM_LOOK = 1.0
# Threads of an actor, by the kind of call. "answers" blocks until there is an answer and "sums" computes; a cancellation, which
# comes through "control", must wait for neither.
GROUPS = {"control": 1, "answers": 1, "sums": 1}
GONE = (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError)


class RemoteRow(NamedTuple):
    """A row that stays in the object store of the node that computed it."""

    reference: Any
    length: int


class Host:
    """The actor of one host."""

    def __init__(self, spec: WorkSpec, name: str, inline: int) -> None:
        self._loop, self._inline, self._meter = HostLoop(spec), inline, HostMeter(name)

    def pid(self) -> int:
        """Process id, once the Work is loaded or has failed to load."""
        self._loop.wait_loaded()
        return os.getpid()

    def post(self, commands: list[Command], published: Mapping[int, list[Any]]) -> None:
        """Publish payloads, given as job -> [reference], then pass on the commands."""
        # Each reference is in a list, because Ray fetches references that are arguments themselves before it calls: a payload is
        # fetched by the worker loop instead, and only if a row of its job is computed here.
        self._loop.post([Publish(job, lambda ref=boxed[0]: ray.get(ref)) for job, boxed in published.items()])  # type: ignore[misc]
        self._loop.post(commands)

    def answers(self) -> list[Answer | Failure]:
        """The next batch of answers; the first one comes once the Work is loaded or has failed to load."""
        self._loop.wait_loaded()
        return [self._outgoing(answer) for answer in self._loop.gather()]

    def _outgoing(self, answer: Answer | Failure) -> Answer | Failure:
        if isinstance(answer, Failure) or answer.row is None:
            return answer
        self._meter.row(answer.compute)
        if answer.row.nbytes <= self._inline:
            return answer
        return answer._replace(row=RemoteRow(ray.put(answer.row), len(answer.row)))

    def add(self, names: list[str], weights: list[float], digests: list[int | None], *rows: np.ndarray) -> np.ndarray:
        """The weighted sum of a block of rows. Those with a digest, which are no sums yet, are verified."""
        intact = [
            row if sent is None else verified(name, row, sent)
            for name, row, sent in zip(names, rows, digests, strict=True)
        ]
        return sum_in_place(list(zip(weights, intact, strict=True)))


@dataclass(eq=False)
class Actor:
    """A handle: the actor, and references to its process id and to its next batch of answers."""

    actor: Any
    pid: Any  # reference to the process id
    pending: Any  # reference to the next batch


class RayTransport:
    """Actors on the Ray that is running in this process, else on the cluster at `address`, or a new local one ("local")."""

    def __init__(self, spec: WorkSpec, address: str, resources: HostResources, inline: int = INLINE) -> None:
        self._resources, self._inline = resources, inline
        self._run, self._spawned = secrets.token_hex(4), count()
        self._owns_ray = not ray.is_initialized()
        if self._owns_ray:
            _init(address)
        # Once for all hosts instead of once for each: with learners made in Python it may hold whole data sets.
        self._spec = ray.put(spec)

    def room(self) -> int:
        """How many hosts the cluster's nodes have room for, if nobody else uses them."""
        # Total resources, not the free ones: what this pool's own hosts occupy must count as room for them.
        return sum(self._resources.room(node["Resources"]) for node in ray.nodes() if node["Alive"])

    def spawn(self, name: str) -> Actor:
        options = {
            # With a count, since Ray refuses a name that a dying actor still has.
            "name": f"distseq-{self._run}-{name}-{next(self._spawned)}",
            "num_cpus": self._resources.cpus,
            "num_gpus": self._resources.gpus,
            "resources": dict(self._resources.resources),
            # A node that leaves then takes few hosts with it, and replicas on neighbouring hosts are on different machines.
            "scheduling_strategy": "SPREAD",
            # Ray would restart the actor empty and report its calls as lost only later; the pool replaces it with a new one.
            "max_restarts": 0,
            "concurrency_groups": GROUPS,
        }
        actor = ray.remote(**options)(Host).remote(self._spec, name, self._inline)
        pid = actor.pid.options(concurrency_group="control").remote()
        # One blocking call is always out: an answer then takes one way, where polling would take two.
        return Actor(actor, pid, _answers(actor))

    def wait_ready(self, handles: Sequence[Actor], seconds: float) -> None:
        try:
            ray.get([handle.pid for handle in handles], timeout=seconds)
        except ray.exceptions.GetTimeoutError:
            free = ray.available_resources()
            wanted = f"{len(handles)} actors of {self._resources}"
            raise PoolError(f"{wanted} were not ready in {seconds:.0f} s; free CPUs: {free.get('CPU', 0)}") from None
        except ray.exceptions.RayActorError as error:
            raise PoolError(f"an actor died before it was ready: {error}") from None

    def share(self, payload: Payload) -> list[Any]:
        # In a list, which `unshare` can empty: Ray frees an object when its last reference is gone.
        return [ray.put(payload)]

    def unshare(self, shared: list[Any]) -> None:
        shared.clear()

    def post(self, handle: Actor, commands: list[Command], shared: Mapping[int, list[Any]]) -> None:
        boxed = {job: list(reference) for job, reference in shared.items()}
        handle.actor.post.options(concurrency_group="control").remote(commands, boxed)

    def wait(self, handles: Sequence[Actor], seconds: float) -> list[tuple[Actor, list[Answer | Failure] | Death]]:
        pending = {handle.pending: handle for handle in handles}
        # Blocks for the first answer alone, then takes all that are there: waiting for all would wait for the slowest host.
        ray.wait(list(pending), num_returns=1, timeout=seconds)
        ready, _ = ray.wait(list(pending), num_returns=len(pending), timeout=0)
        return [(pending[reference], self._answers_of(pending[reference])) for reference in ready]

    def _answers_of(self, handle: Actor) -> list[Answer | Failure] | Death:
        try:
            answers: list[Answer | Failure] = ray.get(handle.pending)
        # The actor died, or the node that stored its answer.
        except GONE as error:
            return Death(_cause(error))
        except ray.exceptions.RayError as error:
            raise PoolError(f"a host cannot answer: {error}") from error
        handle.pending = _answers(handle.actor)
        return answers

    def stays(self, row: RemoteRow | np.ndarray) -> bool:
        return isinstance(row, RemoteRow)

    def free(self, handle: Actor, rows: Sequence[RemoteRow | np.ndarray]) -> None:
        """Nothing to do: Ray frees objects that nobody refers to."""

    def add(self, terms: Sequence[Term], meanwhile: Callable[[], bool]) -> np.ndarray:
        """Rows that came with their answers are added here; otherwise the hosts add them, and only the total is fetched."""
        check_lengths([term.row.length if isinstance(term.row, RemoteRow) else len(term.row) for term in terms])
        if not any(isinstance(term.row, RemoteRow) for term in terms):
            return sum_in_place([(term.weight, verified(term.task, term.row, term.digest)) for term in terms])
        level: list[Any] = [
            (str(p.task), p.weight, p.digest, p.row.reference if isinstance(p.row, RemoteRow) else p.row, p.handle)
            for p in terms
        ]
        # A digest marks a row, None a sum: one row alone is sent through a host too, which checks it and applies its weight.
        while len(level) > 1 or level[0][2] is not None:
            level = [self._block(level[block]) for block in blocks(len(level))]
        return self._root(level[0][3], meanwhile)

    def _block(self, rows: list[Any]) -> tuple[str, float, int | None, Any, Actor]:
        """A reference to a block's sum, computed by the host of its first row, where that row need not move."""
        names, weights, digests, references, handles = zip(*rows, strict=True)
        add = handles[0].actor.add.options(concurrency_group="sums")
        total = add.remote(list(names), list(weights), list(digests), *references)
        return "a sum", 1.0, None, total, handles[0]

    def _root(self, total: Any, meanwhile: Callable[[], bool]) -> np.ndarray:
        while not ray.wait([total], timeout=SUM_LOOK)[0]:
            if meanwhile():
                raise LostError("a host died while rows were added")
        try:
            decoded: np.ndarray = ray.get(total)
        except GONE as error:
            raise LostError(str(error)) from None
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, GONE):
                raise LostError(str(error.cause)) from None
            raise PoolError(f"rows cannot be added: {error.cause}") from None
        return decoded

    def pid(self, handle: Actor) -> int:
        ready, _ = ray.wait([handle.pid], timeout=0)
        try:
            return int(ray.get(ready[0])) if ready else 0
        except ray.exceptions.RayActorError:
            return 0

    def kill(self, handle: Actor) -> None:
        ray.kill(handle.actor)

    def close(self) -> None:
        if self._owns_ray and ray.is_initialized():
            ray.shutdown()


def ray_pool(
    n: int,
    work: WorkSpec,
    *,
    hosts: int | None = None,
    address: str = "local",
    resources: HostResources | None = None,
    delays: Trace | None = None,
    silent_after: float = SILENT,
    elastic: bool = False,
    inline: int = INLINE,
) -> HostPool:
    """A pool of n workers on `hosts` actors, by default as many as fit; the other arguments as in HostPool.

    `resources`: what each actor reserves, by default one CPU. `inline`: bytes up to which a row travels with its answer.
    ValueError if the hosts do not fit, or if there is no cluster at `address`.
    """
    check_numbers(n, 1 if hosts is None else hosts, delays)
    resources = HostResources() if resources is None else resources
    transport = RayTransport(work, address, resources, inline)
    try:
        room = transport.room()
        if (hosts or 1) > room:
            raise ValueError(f"{hosts or 1} hosts of {resources} do not fit: the cluster has room for {room}")
        started = hosts or min(n, room)
        most = n if elastic or hosts is None else hosts
        return HostPool(n, transport, started, delays=delays, silent_after=silent_after, elastic=elastic, most=most)
    except BaseException:
        transport.close()
        raise


def _cause(error: Exception) -> str:
    """The text of Ray's message, without its tables and the logs that it appends."""
    # Those are indented or start with a bracket.
    lines = [line.strip() for line in str(error).splitlines() if line and not line[0].isspace() and line[0] != "["]
    return " ".join(lines)[:CAUSE] or type(error).__name__


def _answers(actor: Any) -> Any:
    return actor.answers.options(concurrency_group="answers").remote()


def _check_answered(address: str) -> None:
    """ValueError if nobody listens at HOST:PORT or ray://HOST:PORT."""
    # Ray itself would go on trying for a quarter of an hour.
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT).close()
    except (OSError, OverflowError) as error:
        raise ValueError(f"no Ray cluster at address {address!r}: {error}") from None


def _init(address: str) -> None:
    _check_answered(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if address == "local":
        # A local run needs no dashboard, which costs a second to start and 80 MB.
        options |= {"num_cpus": os.cpu_count() or 1, "include_dashboard": False}
    try:
        ray.init(address=address, **options)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"cannot start or reach Ray at address {address!r}: {str(error).splitlines()[0]}") from error
