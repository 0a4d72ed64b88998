"""A worker pool on processes of this machine, without Ray.

Processes come from a forkserver that has imported the Work's module, never from a fork of this process. Commands and answers
travel through a socket held by driver and host alone, payloads and rows through shared memory. A host's death shows at once: its
end of the socket is closed.
"""

import multiprocessing
import queue
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from typing import Any

import numpy as np

from distseq.cluster.hosts.host_pool import HostPool, check_numbers
from distseq.cluster.hosts.kept_vectors import KeptVectors
from distseq.cluster.hosts.limits import READY_WITHIN, SILENT
from distseq.cluster.hosts.messages import Command, Report
from distseq.cluster.hosts.transport import Death, Term, verified
from distseq.cluster.local.channel import Channel, DamagedError
from distseq.cluster.local.host_process import serve
from distseq.cluster.local.messages import Answers, Broken, Post, Shared, Stored
from distseq.cluster.local.preparation import check_descriptors, start_forkserver
from distseq.cluster.local.segment_files import SegmentFiles, advice
from distseq.cluster.local.shared_memory import Arena, Reader, Reference
from distseq.cluster.local.start import without_main_module
from distseq.cluster.pool import Payload, PoolError
from distseq.cluster.reduction import sum_in_place
from distseq.cluster.system.cpus import usable_cpus
from distseq.cluster.trace import Trace
from distseq.cluster.work import WorkSpec

# Seconds to wait for a killed process: it ends within milliseconds, unless the kernel holds it in an uninterruptible call.
GRACE = 2.0


@dataclass(eq=False)
class Child:
    """A handle: the process, our end of its socket, and what a thread is to write to it."""

    process: Any
    channel: Channel
    # A socket's buffer is small and a hung host does not empty it: writing from the master's own thread could block the run.
    outbox: queue.SimpleQueue[tuple[Post, list[int]] | None]
    reader: Reader = field(default_factory=Reader)
    segments: int = 0  # of the driver's arena whose descriptors were sent to it
    error: BaseException | None = None  # of the writing thread


class LocalTransport:
    """Processes from a forkserver.

    `folder`: where shared memory lies; by default it is anonymous memory. ValueError when nothing can be created there.
    """

    def __init__(self, spec: WorkSpec, folder: str = "") -> None:
        self._spec, self._folder = spec, folder
        self._arena = Arena(SegmentFiles(folder))
        self._vectors = KeptVectors(self._arena.write, self._arena.free)
        # Not fork: it copies the locks of torch's and BLAS's threads in whatever state they are. Not spawn: every host would
        # import torch anew, where the forkserver imports it once for all (27 s for 4 hosts against 4 s for 32, on two cores).
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["distseq.cluster.local.preload", spec.target.partition(":")[0]])

    def room(self) -> None:
        return None

    def spawn(self, name: str) -> Child:
        try:
            return self._spawn(name)
        except OSError as error:
            raise PoolError(f"cannot start process {name}: {error.strerror or error}{advice(error)}") from error

    def _spawn(self, name: str) -> Child:
        ours, theirs = socket.socketpair()
        # Only the host may hold its end: its death then closes the socket, and `wait` reports it at once.
        with theirs:
            process = self._context.Process(
                target=serve, args=(theirs, self._spec, self._folder), name=name, daemon=True
            )
            start_forkserver()
            with without_main_module():
                process.start()
        child = Child(process, Channel(ours), queue.SimpleQueue())
        threading.Thread(target=_deliver, args=(child,), daemon=True).start()
        return child

    def wait_ready(self, handles: Sequence[Child], seconds: float) -> None:
        end = time.monotonic() + seconds
        for child in handles:
            if not wait([child.channel.socket], max(0.0, end - time.monotonic())):
                raise PoolError(f"process {child.process.name} was not ready in {seconds:.0f} s")

    def share(self, payload: Payload) -> Shared:
        # One copy for all hosts: only the reference goes through each socket.
        carried = payload.carried
        stored = None if carried is None else carried.fetched_by(lambda one: Stored(self._vectors.take(one)))
        light = replace(payload, parameters=np.zeros(0), carried=stored)
        return Shared(light, self._arena.write(payload.parameters))

    def unshare(self, payload: Payload, shared: Shared) -> None:
        self._arena.free(shared.parameters)
        if payload.carried is not None:
            self._vectors.give_back(payload.carried.vectors)

    def post(self, handle: Child, commands: list[Command], shared: Mapping[int, Shared]) -> None:
        self._post(handle, Post(commands, dict(shared), []))

    def _post(self, handle: Child, post: Post) -> None:
        # A host maps each segment of parameters once, before the first reference to it comes.
        fresh = self._arena.descriptors[handle.segments :] if post.shared else []
        handle.segments += len(fresh)
        handle.outbox.put((post, fresh))

    def wait(self, handles: Sequence[Child], seconds: float) -> list[tuple[Child, list[Report] | Death]]:
        for child in handles:
            if child.error is not None:
                raise PoolError(f"cannot write to process {child.process.name}: {child.error}") from child.error
        children = {id(child.channel.socket): child for child in handles}
        ready = [children[id(one)] for one in wait([child.channel.socket for child in handles], seconds)]
        received = [(child, self._answers(child)) for child in ready]
        # None: half a message.
        return [(child, answers) for child, answers in received if answers is not None]

    def _answers(self, child: Child) -> list[Report] | Death | None:
        try:
            messages = child.channel.receive(block=False)
        except EOFError:
            child.process.join(GRACE)
            return Death(f"process {child.process.pid} {ending(child.process.exitcode)}")
        except DamagedError as error:
            return Death(f"process {child.process.pid} sent what cannot be read: {error}")
        found: list[Report] = []
        for message, descriptors in messages:
            child.reader.attach(descriptors)
            match message:
                case Broken(text=text):
                    raise PoolError(f"process {child.process.name} cannot go on: {text}")
                case Answers(answers=answers):
                    found += answers
        return found if messages else None

    def stays(self, row: Reference) -> bool:
        # The memory of a dead host is still mapped here, but its handle is closed with it.
        return True

    def add(self, terms: Sequence[Term], meanwhile: Callable[[], bool]) -> np.ndarray:
        """Summed by this process, directly from shared memory."""
        rows = [(term.weight, verified(term.task, self._view(term), term.digest)) for term in terms]
        return sum_in_place(rows)

    def _view(self, term: Term) -> np.ndarray:
        row: np.ndarray = term.handle.reader.view(term.row)
        if not term.handle.reader.holds(term.row):
            raise PoolError(f"the row of {term.task} was overwritten before it was read")
        return row

    def free(self, handle: Child, rows: Sequence[Reference]) -> None:
        self._post(handle, Post([], {}, list(rows)))

    def pid(self, handle: Child) -> int:
        return int(handle.process.pid)

    def kill(self, handle: Child) -> None:
        handle.process.kill()
        handle.process.join(GRACE)
        handle.outbox.put(None)
        handle.channel.close()
        # What a reader has mapped goes with the last reference to it.
        handle.reader = Reader()

    def close(self) -> None:
        self._arena.close()


def ending(code: int | None) -> str:
    """How a process has ended, by its exit code."""
    if code is None:
        return "has closed its socket"
    names = {-one.value: one.name for one in signal.Signals}
    return f"was ended by {names.get(code, f'signal {-code}')}" if code < 0 else f"ended with exit code {code}"


def _deliver(child: Child) -> None:
    """Write the outbox to the socket until it yields None."""
    try:
        while (item := child.outbox.get()) is not None:
            child.channel.send(*item)
    # The host is dead, which `wait` finds out by itself.
    except EOFError:
        return
    except BaseException as error:
        child.error = error


def local_pool(
    n: int,
    work: WorkSpec,
    *,
    hosts: int | None = None,
    delays: Trace | None = None,
    silent_after: float = SILENT,
    ready_within: float = READY_WITHIN,
    row_timeout: float | None = None,
    shared_memory: str = "",
) -> HostPool:
    """A pool of n workers on `hosts` processes, by default one per usable CPU; the other arguments as in HostPool.

    `shared_memory`: a folder for the vectors that processes share, in place of anonymous memory. ValueError when nothing can be
    created there, or this process may not open files enough.
    """
    # One per CPU: hosts compute one row at a time, and more of them would only share the cores.
    hosts = min(n, usable_cpus()) if hosts is None else hosts
    check_numbers(n, hosts, delays)
    check_descriptors(hosts)
    limits: dict[str, Any] = {"silent_after": silent_after, "ready_within": ready_within, "row_timeout": row_timeout}
    return HostPool(n, LocalTransport(work, shared_memory), hosts, delays=delays, **limits)
