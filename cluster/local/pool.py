"""A worker pool on processes of this machine, without Ray.

Processes come from a forkserver that has imported the Work's module, never from a fork of this process. Commands and answers
travel through a pipe held by parent and child alone, payloads and rows through shared memory. A child's death shows at once:
its end of the pipe is closed.
"""

import multiprocessing
import os
import queue
import secrets
import signal
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
from distseq.cluster.hosts.transport import Death, Term, verified
from distseq.cluster.local.shared_memory import Reader, Reference, Slot, sweep
from distseq.cluster.pool import Payload, PoolError
from distseq.cluster.reduction import sum_in_place
from distseq.cluster.trace import Trace
from distseq.cluster.work import WorkSpec

# Seconds to wait for a killed process: it ends within milliseconds, unless the kernel holds it in an uninterruptible call.
GRACE = 2.0


class Shared(NamedTuple):
    """A payload in transit: everything but its parameters, and a reference to those in shared memory."""

    payload: Payload
    parameters: Reference

    def fetch(self, reader: Reader) -> Payload | None:
        """The whole payload; None if the master has retired the job and freed its parameters."""
        parameters = reader.take(self.parameters)
        return None if parameters is None else replace(self.payload, parameters=parameters)


class Post(NamedTuple):
    """One message to a child."""

    commands: list[Command]
    shared: dict[int, Shared]  # job -> payload
    free: list[str]  # names of blocks whose rows are no longer needed


class RowSlots:
    """The child's shared-memory slots for rows, reused when they are free and large enough."""

    def __init__(self, prefix: str) -> None:
        # Block names are PREFIX0, PREFIX1, ..., so that the parent can free those of a killed child (shared_memory.sweep).
        self._prefix = prefix
        self._slots: dict[str, Slot] = {}
        self._free: set[str] = set()

    def write(self, row: np.ndarray) -> Reference:
        # Rows of a run have few sizes, so that blocks fit again; a new block is mapped and zeroed by the kernel, page by page.
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
    """The main function of a host process, which ends when the parent closes its end of the pipe.

    `prefix` starts the names of the process's blocks of shared memory.
    """
    # Ctrl-C at a terminal reaches every process of its group, and only the driver decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    loop, rows, reader = HostLoop(spec), RowSlots(prefix), Reader()
    lock = threading.Lock()  # guards `rows`: this thread frees slots, the other one writes to them
    threading.Thread(target=_send_answers, args=(connection, loop, rows, lock), daemon=True).start()
    try:
        while True:
            post: Post = connection.recv()
            with lock:
                rows.free(post.free)
            # Payloads before the commands that need them.
            loop.post([Publish(job, lambda s=shared: s.fetch(reader)) for job, shared in post.shared.items()])  # type: ignore[misc]
            loop.post(post.commands)
    except (EOFError, OSError):
        # Still under the lock, so that no slot is written after it was unlinked. _exit, because a normal exit would wait for
        # the row being computed, and the parent is gone.
        with lock:
            rows.close()
            os._exit(0)


def _send_answers(connection: Connection, loop: HostLoop, rows: RowSlots, lock: threading.Lock) -> None:
    loop.wait_loaded()
    try:
        while True:
            answers = loop.gather()
            for k, answer in enumerate(answers):
                if isinstance(answer, Answer) and answer.row is not None:
                    with lock:
                        answers[k] = answer._replace(row=rows.write(answer.row))
            connection.send(answers)
    # The parent is gone; the main thread notices it too, and ends the process.
    except OSError:
        return


@dataclass(eq=False)
class Child:
    """A handle: the process, our end of its pipe, and what a thread is to write to it."""

    process: Any
    connection: Connection
    # A pipe's buffer is small and a hung child does not empty it: writing from the master's own thread could block the run.
    outbox: queue.SimpleQueue[Post | None]
    prefix: str  # of the names of its blocks of shared memory
    reader: Reader = field(default_factory=Reader)


class LocalTransport:
    """Processes from a forkserver."""

    def __init__(self, spec: WorkSpec) -> None:
        self._spec = spec
        # Not fork: it copies the locks of torch's and BLAS's threads in whatever state they are. Not spawn: every host would
        # import torch anew, where the forkserver imports it once for all (27 s for 4 hosts against 4 s for 32, on two cores).
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([spec.target.partition(":")[0]])
        self._slots: dict[str, Slot] = {}

    def room(self) -> None:
        return None

    def spawn(self, name: str) -> Child:
        ours, theirs = self._context.Pipe()
        # psm_ is Python's own prefix of shared memory, and the random part keeps runs on one machine apart.
        prefix = f"psm_{secrets.token_hex(4)}_"
        process = self._context.Process(target=serve, args=(theirs, self._spec, prefix), name=name, daemon=True)
        with _no_main_module():
            process.start()
        # Only the child may hold its end: the death of the child then closes the pipe, and `wait` reports it at once.
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
        # One copy for all hosts: only the reference goes through each pipe.
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
        return [(children[id(connection)], self._answers(children[id(connection)])) for connection in ready]

    def _answers(self, child: Child) -> list[Answer | Failure] | Death:
        try:
            answers: list[Answer | Failure] = child.connection.recv()
        except (EOFError, OSError):
            child.process.join(GRACE)
            return Death(f"process {child.process.pid} ended with exit code {child.process.exitcode}")
        return answers

    def stays(self, row: Reference) -> bool:
        # The blocks of a dead child are removed, since nothing else would ever free them.
        return True

    def add(self, terms: Sequence[Term], meanwhile: Callable[[], bool]) -> np.ndarray:
        """Summed by this process, directly from shared memory."""
        rows = [(term.weight, verified(term.task, self._view(term), term.digest)) for term in terms]
        return sum_in_place(rows)

    def _view(self, term: Term) -> np.ndarray:
        row: np.ndarray | None = term.handle.reader.view(term.row)
        if row is None or not term.handle.reader.holds(term.row):
            raise PoolError(f"the row of {term.task} was overwritten before it was read")
        return row

    def free(self, handle: Child, rows: Sequence[Reference]) -> None:
        handle.outbox.put(Post([], {}, [row.block for row in rows]))

    def pid(self, handle: Child) -> int:
        return int(handle.process.pid)

    def kill(self, handle: Child) -> None:
        # The process first: while it runs it could create blocks that `sweep` has already passed.
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
    """Hide the user's `__main__` module while a child is started."""
    # multiprocessing would otherwise run the user's script again in every child, which needs nothing from it and would start a
    # run of its own if the script has no `if __name__ == "__main__"`.
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _deliver(child: Child) -> None:
    """Write the outbox to the pipe until it yields None."""
    try:
        while (post := child.outbox.get()) is not None:
            child.connection.send(post)
    # The child is dead, which `wait` finds out by itself.
    except OSError:
        return


def local_pool(
    n: int,
    work: WorkSpec,
    *,
    hosts: int | None = None,
    delays: Trace | None = None,
    silent_after: float = SILENT,
) -> HostPool:
    """A pool of n workers on `hosts` processes, by default one per core; the other arguments as in HostPool."""
    # One per core: hosts compute one row at a time, and more of them would only share the cores.
    hosts = min(n, os.cpu_count() or 1) if hosts is None else hosts
    check_numbers(n, hosts, delays)
    return HostPool(n, LocalTransport(work), hosts, delays=delays, silent_after=silent_after)
