"""Hosts as Ray actors: on one machine a few, about one per core; on a cluster one per worker, each with its own CPU.

Payloads go through Ray's object store. Small rows come with the answers; large ones stay in the object store of the node that
made them, and are added there. Ray's own restarts and retries are off: the pool knows what was sent how often.
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
from distseq.cluster.hosts.transport import Death, LostError, Part, checked
from distseq.cluster.pool import Payload, PoolError
from distseq.cluster.ray.metrics import HostMeter
from distseq.cluster.ray.resources import HostResources
from distseq.cluster.reduction import blocks, check_lengths, sum_in_place
from distseq.cluster.trace import Trace
from distseq.cluster.work import WorkSpec

INLINE = 1 << 20  # bytes of a row up to which it comes with its answer
CAUSE = 400  # characters of the cause of a death
CONNECT = 10.0  # seconds in which a cluster's address must answer
SUM_LOOK = 1.0  # seconds between two looks at the hosts while a sum is made
GROUPS = {"control": 1, "answers": 1, "sums": 1}
GONE = (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError)


class Kept(NamedTuple):
    """A row that stays where it was made."""

    reference: Any
    length: int


class Host:
    """The actor."""

    def __init__(self, spec: WorkSpec, name: str, inline: int) -> None:
        self._loop, self._inline, self._meter = HostLoop(spec), inline, HostMeter(name)

    def pid(self) -> int:
        """Process id, once the Work is loaded or has failed to."""
        self._loop.wait_loaded()
        return os.getpid()

    def post(self, commands: list[Command], published: Mapping[int, list[Any]]) -> None:
        """`published`: job -> [reference to its payload] (in a list, so that Ray does not fetch it before it is needed)."""
        self._loop.post([Publish(job, lambda ref=boxed[0]: ray.get(ref)) for job, boxed in published.items()])  # type: ignore[misc]
        self._loop.post(commands)

    def answers(self) -> list[Answer | Failure]:
        """What there is to say; the first time, once the Work is loaded or has failed to."""
        self._loop.wait_loaded()
        return [self._outgoing(answer) for answer in self._loop.gather()]

    def _outgoing(self, answer: Answer | Failure) -> Answer | Failure:
        if isinstance(answer, Failure) or answer.row is None:
            return answer
        self._meter.row(answer.compute)
        if answer.row.nbytes <= self._inline:
            return answer
        return answer._replace(row=Kept(ray.put(answer.row), len(answer.row)))

    def add(self, names: list[str], weights: list[float], digests: list[int | None], *rows: np.ndarray) -> np.ndarray:
        """The weighted sum of a block of rows, those with a digest checked."""
        whole = [
            row if sent is None else checked(name, row, sent)
            for name, row, sent in zip(names, rows, digests, strict=True)
        ]
        return sum_in_place(list(zip(weights, whole, strict=True)))


@dataclass(eq=False)
class Actor:
    """A handle: the actor, a reference to its process id, and one to the answer that is waited for."""

    actor: Any
    number: Any
    pending: Any


class RayTransport:
    """Actors on the Ray that is running, the cluster at `address`, or a local one ("local")."""

    def __init__(self, spec: WorkSpec, address: str, needs: HostResources, inline: int = INLINE) -> None:
        self._needs, self._inline = needs, inline
        self._run, self._spawned = secrets.token_hex(4), count()
        self._owns_ray = not ray.is_initialized()
        if self._owns_ray:
            _init(address)
        self._spec = ray.put(spec)  # once for all hosts: it may hold whole data sets

    def room(self) -> int:
        """How many hosts the cluster's living nodes have room for, if nobody else uses them."""
        return sum(self._needs.room(node["Resources"]) for node in ray.nodes() if node["Alive"])

    def spawn(self, name: str) -> Actor:
        options = {
            "name": f"distseq-{self._run}-{name}-{next(self._spawned)}",
            "num_cpus": self._needs.cpus,
            "num_gpus": self._needs.gpus,
            "resources": dict(self._needs.resources),
            "scheduling_strategy": "SPREAD",
            "max_restarts": 0,
            "concurrency_groups": GROUPS,
        }
        actor = ray.remote(**options)(Host).remote(self._spec, name, self._inline)
        number = actor.pid.options(concurrency_group="control").remote()
        return Actor(actor, number, _answers(actor))

    def wait_ready(self, handles: Sequence[Actor], seconds: float) -> None:
        try:
            ray.get([handle.number for handle in handles], timeout=seconds)
        except ray.exceptions.GetTimeoutError:
            free = ray.available_resources()
            wanted = f"{len(handles)} actors of {self._needs}"
            raise PoolError(f"{wanted} were not ready in {seconds:.0f} s; free CPUs: {free.get('CPU', 0)}") from None
        except ray.exceptions.RayActorError as error:
            raise PoolError(f"an actor died before it was ready: {error}") from None

    def share(self, payload: Payload) -> list[Any]:
        return [ray.put(payload)]

    def unshare(self, shared: list[Any]) -> None:
        shared.clear()

    def post(self, handle: Actor, commands: list[Command], shared: Mapping[int, list[Any]]) -> None:
        boxed = {job: list(reference) for job, reference in shared.items()}
        handle.actor.post.options(concurrency_group="control").remote(commands, boxed)

    def wait(self, handles: Sequence[Actor], seconds: float) -> list[tuple[Actor, list[Answer | Failure] | Death]]:
        pending = {handle.pending: handle for handle in handles}
        ray.wait(list(pending), num_returns=1, timeout=seconds)
        ready, _ = ray.wait(list(pending), num_returns=len(pending), timeout=0)
        return [(pending[reference], self._said(pending[reference])) for reference in ready]

    def _said(self, handle: Actor) -> list[Answer | Failure] | Death:
        try:
            said: list[Answer | Failure] = ray.get(handle.pending)
        except GONE as error:
            return Death(_cause(error))
        except ray.exceptions.RayError as error:
            raise PoolError(f"a host cannot answer: {error}") from error
        handle.pending = _answers(handle.actor)
        return said

    def stays(self, row: Kept | np.ndarray) -> bool:
        return isinstance(row, Kept)

    def free(self, handle: Actor, rows: Sequence[Kept | np.ndarray]) -> None:
        """Ray frees what nobody refers to."""

    def add(self, parts: Sequence[Part], meanwhile: Callable[[], bool]) -> np.ndarray:
        """Rows that came along are added here; else a tree of sums over the hosts, and only its root comes."""
        check_lengths([part.row.length if isinstance(part.row, Kept) else len(part.row) for part in parts])
        if not any(isinstance(part.row, Kept) for part in parts):
            return sum_in_place([(part.weight, checked(part.task, part.row, part.digest)) for part in parts])
        level: list[Any] = [
            (str(p.task), p.weight, p.digest, p.row.reference if isinstance(p.row, Kept) else p.row, p.handle)
            for p in parts
        ]
        while len(level) > 1 or level[0][2] is not None:
            level = [self._block(level[block]) for block in blocks(len(level))]
        return self._root(level[0][3], meanwhile)

    def _block(self, rows: list[Any]) -> tuple[str, float, int | None, Any, Actor]:
        """A block's sum, made by the host of its first row."""
        names, weights, digests, references, handles = zip(*rows, strict=True)
        add = handles[0].actor.add.options(concurrency_group="sums")
        total = add.remote(list(names), list(weights), list(digests), *references)
        return "a sum", 1.0, None, total, handles[0]

    def _root(self, total: Any, meanwhile: Callable[[], bool]) -> np.ndarray:
        while not ray.wait([total], timeout=SUM_LOOK)[0]:
            if meanwhile():
                raise LostError("a host died while a sum was made")
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
        ready, _ = ray.wait([handle.number], timeout=0)
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
    needs: HostResources | None = None,
    delays: Trace | None = None,
    silent_after: float = SILENT,
    elastic: bool = False,
    inline: int = INLINE,
) -> HostPool:
    """n workers on `hosts` actors, by default as many as fit; the rest as in HostPool. ValueError when they do not fit."""
    check_numbers(n, 1 if hosts is None else hosts, delays)
    needs = HostResources() if needs is None else needs
    transport = RayTransport(work, address, needs, inline)
    try:
        room = transport.room()
        if (hosts or 1) > room:
            raise ValueError(f"{hosts or 1} hosts of {needs} do not fit: the cluster has room for {room}")
        started = hosts or min(n, room)
        most = n if elastic or hosts is None else hosts
        return HostPool(n, transport, started, delays=delays, silent_after=silent_after, elastic=elastic, most=most)
    except BaseException:
        transport.close()
        raise


def _cause(error: Exception) -> str:
    """The sentences of Ray's message, without its tables and the logs that it appends."""
    lines = [line.strip() for line in str(error).splitlines() if line and not line[0].isspace() and line[0] != "["]
    return " ".join(lines)[:CAUSE] or type(error).__name__


def _answers(actor: Any) -> Any:
    return actor.answers.options(concurrency_group="answers").remote()


def _check_answered(address: str) -> None:
    """ValueError when HOST:PORT or ray://HOST:PORT is where nobody listens: Ray would go on trying for a quarter of an hour."""
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
        options |= {"num_cpus": os.cpu_count() or 1, "include_dashboard": False}
    try:
        ray.init(address=address, **options)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"cannot start or reach Ray at address {address!r}: {str(error).splitlines()[0]}") from error
