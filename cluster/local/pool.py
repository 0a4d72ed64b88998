"""Hosts as processes of this machine, for machines without Ray.

Processes come from a forkserver that has the Work's module imported, never from a fork of this process. Commands and answers
go through a pipe that only parent and child hold; payloads and rows through shared memory. A dead child shows at once by its
closed pipe.
"""

import multiprocessing
import os
import queue
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from distseq.cluster.hosts.host_loop import HostLoop
from distseq.cluster.hosts.host_pool import SILENT, HostPool, check_numbers
from distseq.cluster.hosts.messages import Answer, Command, Failure, Publish
from distseq.cluster.hosts.transport import Death, Part, checked
from distseq.cluster.local.shared_memory import Reader, Reference, Slot, sweep
from distseq.cluster.pool import Payload, PoolError
from distseq.cluster.reduction import sum_in_place
from distseq.cluster.trace import Trace
from distseq.cluster.work import WorkSpec

GRACE = 2.0  # seconds that a killed process is waited for


class Shared(NamedTuple):
    """A payload on its way: all but its parameters, and where those lie."""

    payload: Payload
    parameters: Reference

    def fetch(self, reader: Reader) -> Payload | None:
        """The whole payload; None when the master has retired the job and freed its parameters."""
        parameters = reader.take(self.parameters)
        return None if parameters is None else replace(self.payload, parameters=parameters)


class Post(NamedTuple):
    commands: list[Command]
    shared: dict[int, Shared]
    free: list[str]  # blocks of rows that nobody will ask for


class Rows:
    """The child's slots for rows: one that is free and large enough, or a new one."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix  # of the names of the blocks, which are numbered
        self._slots: dict[str, Slot] = {}
        self._free: set[str] = set()

    def write(self, row: np.ndarray) -> Reference:
        fitting = [name for name in self._free if self._slots[name].room >= row.nbytes]
        if not fitting:
            slot = Slot(row.nbytes, f"{self._prefix}{len(self._slots)}")
            self._slots[slot.name] = slot
            return slot.write(row)
        self._free.discard(fitting[0])
        return self._slots[fitting[0]].write(row)

    def free(self, names: list[str]) -> None:
        self._free.update(name for name in names if name in self._slots)

    def close(self) -> None:
        for slot in self._slots.values():
            slot.close()


def serve(connection: Connection, spec: WorkSpec, prefix: str) -> None:
    """A host process: lives until the parent's end of the pipe is closed. `prefix`: of the names of its blocks."""
    loop, rows, reader = HostLoop(spec), Rows(prefix), Reader()
    lock = threading.Lock()  # of rows: this thread frees them, the other writes them
    threading.Thread(target=_speak, args=(connection, loop, rows, lock), daemon=True).start()
    try:
        while True:
            post: Post = connection.recv()
            with lock:
                rows.free(post.free)
            loop.post([Publish(job, lambda s=shared: s.fetch(reader)) for job, shared in post.shared.items()])  # type: ignore[misc]
            loop.post(post.commands)
    except (EOFError, OSError):
        with lock:
            rows.close()
            os._exit(0)


def _speak(connection: Connection, loop: HostLoop, rows: Rows, lock: threading.Lock) -> None:
    loop.wait_loaded()
    try:
        while True:
            said = loop.gather()
            for k, answer in enumerate(said):
                if isinstance(answer, Answer) and answer.row is not None:
                    with lock:
                        said[k] = answer._replace(row=rows.write(answer.row))
            connection.send(said)
    except OSError:
        return  # the parent is gone: the other thread ends the process


@dataclass(eq=False)
class Child:
    """A handle: the process, our end of its pipe, and a thread that writes to it, so that a hung child blocks nobody."""

    process: Any
    connection: Connection
    outbox: queue.SimpleQueue[Post | None]
    prefix: str  # of the names of its blocks of shared memory
    reader: Reader = field(default_factory=Reader)


class LocalTransport:
    """Processes from a forkserver."""

    def __init__(self, spec: WorkSpec) -> None:
        self._spec = spec
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([spec.target.partition(":")[0]])
        self._slots: dict[str, Slot] = {}

    def room(self) -> None:
        return None

    def spawn(self, name: str) -> Child:
        ours, theirs = self._context.Pipe()
        prefix = f"psm_{secrets.token_hex(4)}_"
        process = self._context.Process(target=serve, args=(theirs, self._spec, prefix), name=name, daemon=True)
        with _no_main_module():
            process.start()
        theirs.close()
        child = Child(process, ours, queue.SimpleQueue(), prefix)
        threading.Thread(target=_deliver, args=(child,), daemon=True).start()
        return child

    def wait_ready(self, handles: Sequence[Child], seconds: float) -> None:
        end = time.monotonic() + seconds
        for child in handles:
            if not child.connection.poll(max(0.0, end - time.monotonic())):
                raise PoolError(f"process {child.process.name} was not ready in {seconds:.0f} s")

    def share(self, payload: Payload) -> Shared:
        slot = Slot(payload.parameters.nbytes)
        self._slots[slot.name] = slot
        return Shared(replace(payload, parameters=np.zeros(0)), slot.write(payload.parameters))

    def unshare(self, shared: Shared) -> None:
        self._slots.pop(shared.parameters.block).close()

    def post(self, handle: Child, commands: list[Command], shared: Mapping[int, Shared]) -> None:
        handle.outbox.put(Post(commands, dict(shared), []))

    def wait(self, handles: Sequence[Child], seconds: float) -> list[tuple[Child, list[Answer | Failure] | Death]]:
        children = {id(child.connection): child for child in handles}
        ready = wait([child.connection for child in handles], seconds)
        return [(children[id(connection)], self._said(children[id(connection)])) for connection in ready]

    def _said(self, child: Child) -> list[Answer | Failure] | Death:
        try:
            said: list[Answer | Failure] = child.connection.recv()
        except (EOFError, OSError):
            child.process.join(GRACE)
            return Death(f"process {child.process.pid} ended with exit code {child.process.exitcode}")
        return said

    def stays(self, row: Reference) -> bool:
        return True

    def add(self, parts: Sequence[Part], meanwhile: Callable[[], bool]) -> np.ndarray:
        """By this process, straight from shared memory."""
        rows = [(part.weight, checked(part.task, self._view(part), part.digest)) for part in parts]
        return sum_in_place(rows)

    def _view(self, part: Part) -> np.ndarray:
        row: np.ndarray | None = part.handle.reader.view(part.row)
        if row is None or not part.handle.reader.holds(part.row):
            raise PoolError(f"the row of {part.task} was overwritten before it was read")
        return row

    def free(self, handle: Child, rows: Sequence[Reference]) -> None:
        handle.outbox.put(Post([], {}, [row.block for row in rows]))

    def pid(self, handle: Child) -> int:
        return int(handle.process.pid)

    def kill(self, handle: Child) -> None:
        handle.process.kill()
        handle.process.join(GRACE)
        handle.outbox.put(None)
        handle.connection.close()
        handle.reader.close()
        sweep(handle.prefix)

    def close(self) -> None:
        for slot in self._slots.values():
            slot.close()
        self._slots = {}


@contextmanager
def _no_main_module() -> Iterator[None]:
    """A child would run the user's script again, to have its `__main__`; it needs nothing of it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _deliver(child: Child) -> None:
    """Write the outbox to the pipe until None."""
    try:
        while (post := child.outbox.get()) is not None:
            child.connection.send(post)
    except OSError:
        return  # the child is dead, which shows at its end of the pipe


def local_pool(
    n: int,
    work: WorkSpec,
    *,
    hosts: int | None = None,
    delays: Trace | None = None,
    silent_after: float = SILENT,
) -> HostPool:
    """n workers on `hosts` processes, by default one per core; the rest as in HostPool."""
    hosts = min(n, os.cpu_count() or 1) if hosts is None else hosts
    check_numbers(n, hosts, delays)
    return HostPool(n, LocalTransport(work), hosts, delays=delays, silent_after=silent_after)
