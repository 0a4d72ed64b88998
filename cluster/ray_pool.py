"""Hosts as Ray actors: on one machine a few, about one per core; on a cluster one per worker, each with its own CPU.

Rows and payloads go through Ray's object store. Ray's own restarts and retries are off: the pool knows what was sent how often.
"""

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from distseq.cluster.host import HostLoop
from distseq.cluster.host_pool import SILENT, Death, HostPool, check_numbers
from distseq.cluster.pool import Payload, PoolError
from distseq.cluster.trace import Trace
from distseq.cluster.work import WorkSpec
from distseq.cluster.worker import Answer, Command, Failure, Publish

CONNECT = 10.0  # seconds in which a cluster's address must answer


class Host:
    """The actor."""

    def __init__(self, spec: WorkSpec) -> None:
        self._loop = HostLoop(spec)

    def pid(self) -> int:
        """Process id, once the Work is loaded or has failed to."""
        self._loop.wait_loaded()
        return os.getpid()

    def post(self, commands: list[Command], published: Mapping[int, list[Any]]) -> None:
        """`published`: job -> [reference to its payload] (in a list, so that Ray does not fetch it before it is needed)."""
        self._loop.post([Publish(job, lambda ref=boxed[0]: ray.get(ref)) for job, boxed in published.items()])  # type: ignore[misc]
        self._loop.post(commands)

    def answers(self) -> list[Answer | Failure]:
        return self._loop.gather()


@dataclass(eq=False)
class Actor:
    """A handle: the actor, a reference to its process id, and one to the answer that is waited for."""

    actor: Any
    number: Any
    pending: Any


class RayTransport:
    """Actors of `num_cpus` CPUs on the Ray that is running, the cluster at `address`, or a local one ("local")."""

    def __init__(self, spec: WorkSpec, address: str, num_cpus: float) -> None:
        self._spec, self._num_cpus = spec, num_cpus
        self._owns_ray = not ray.is_initialized()
        if self._owns_ray:
            _init(address)

    def room(self) -> int:
        """How many hosts the cluster's CPUs have room for."""
        return int(ray.cluster_resources().get("CPU", 0) // self._num_cpus)

    def spawn(self, name: str) -> Actor:
        options = {"num_cpus": self._num_cpus, "max_restarts": 0, "concurrency_groups": {"control": 1, "answers": 1}}
        actor = ray.remote(**options)(Host).remote(self._spec)
        number = actor.pid.options(concurrency_group="control").remote()
        return Actor(actor, number, _answers(actor))

    def wait_ready(self, handles: Sequence[Actor], seconds: float) -> None:
        try:
            ray.get([handle.number for handle in handles], timeout=seconds)
        except ray.exceptions.GetTimeoutError:
            free = ray.available_resources().get("CPU", 0)
            wanted = f"{len(handles)} actors of {self._num_cpus} CPU"
            raise PoolError(f"{wanted} were not ready in {seconds:.0f} s; free CPUs: {free}") from None
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
        except (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError) as error:
            return Death(str(error))
        except ray.exceptions.RayError as error:
            raise PoolError(f"a host cannot answer: {error}") from error
        handle.pending = _answers(handle.actor)
        return said

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
    num_cpus: float = 1,
    delays: Trace | None = None,
    silent_after: float = SILENT,
) -> HostPool:
    """n workers on `hosts` actors, by default as many as fit; the rest as in HostPool. ValueError when they do not fit."""
    check_numbers(n, 1 if hosts is None else hosts, delays)
    transport = RayTransport(work, address, num_cpus)
    try:
        room = transport.room()
        if (hosts or 1) > room:
            raise ValueError(f"{hosts or 1} hosts of {num_cpus} CPU do not fit: the cluster has room for {room}")
        return HostPool(n, transport, hosts or min(n, room), delays=delays, silent_after=silent_after)
    except BaseException:
        transport.close()
        raise


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
        cores = os.cpu_count() or 1
        options |= {"num_cpus": cores, "include_dashboard": False, "object_store_memory": 512 * 1024 * 1024}
    try:
        ray.init(address=address, **options)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"cannot start or reach Ray at address {address!r}: {str(error).splitlines()[0]}") from error
