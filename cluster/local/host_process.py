"""A host process: the worker loop, fed from and answering through a channel to the driver."""

import ctypes
import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from multiprocessing import forkserver

from distseq.cluster.hosts.host_loop import HostLoop
from distseq.cluster.hosts.messages import Answer, Publish, Report
from distseq.cluster.local.channel import Channel, DamagedError
from distseq.cluster.local.messages import Answers, Broken, Post
from distseq.cluster.local.segment_files import SegmentFiles, advice
from distseq.cluster.local.shared_memory import Arena, Reader
from distseq.cluster.pool import PoolError
from distseq.cluster.work import WorkSpec

PR_SET_PDEATHSIG = 1  # of Linux's prctl


def serve(end: socket.socket, spec: WorkSpec, folder: str) -> None:
    """The main function of a host process, which ends when the driver closes its end of the socket or ends itself.

    `folder`: where its shared memory lies (SegmentFiles).
    """
    _detach()
    channel = Channel(end)
    try:
        host = HostProcess(channel, HostLoop(spec), Arena(SegmentFiles(folder)))
        threading.Thread(target=host.send_answers, daemon=True).start()
        host.take_posts()
    # _exit, because a normal exit would wait for the row being computed, and nobody is left who wants it.
    except EOFError:
        os._exit(0)
    # The driver notices that this process has ended, and gives what it owed to another one.
    except DamagedError:
        os._exit(1)
    except BaseException as error:
        _break(channel, error)


class HostProcess:
    """One thread calls `take_posts`, another one `send_answers`. Both end with the process."""

    def __init__(self, channel: Channel, loop: HostLoop, arena: Arena) -> None:
        self._channel, self._loop, self._arena = channel, loop, arena
        self._lock = threading.Lock()  # guards the arena: one thread frees blocks, the other one writes to them
        self._reader = Reader()

    def take_posts(self) -> None:
        while True:
            for post, descriptors in self._channel.receive(block=True):
                self._reader.attach(descriptors)
                self._take(post)

    def _take(self, post: Post) -> None:
        with self._lock:
            for row in post.free:
                self._arena.free(row)
        # Payloads before the commands that need them.
        reader = self._reader
        self._loop.post([Publish(job, lambda s=shared: s.fetch(reader)) for job, shared in post.shared.items()])  # type: ignore[misc]
        self._loop.post(post.commands)

    def send_answers(self) -> None:
        try:
            self._loop.wait_loaded()
            while True:
                reports = self._loop.gather()
                with self._lock:
                    stored = [self._stored(report) for report in reports]
                    descriptors, self._arena.descriptors = self._arena.descriptors, []
                self._channel.send(Answers(stored), descriptors)
                # The driver has its own now, and a mapping does not need one.
                for descriptor in descriptors:
                    os.close(descriptor)
        except EOFError:
            os._exit(0)
        # What goes wrong here must not end this thread alone: a host that lives and never answers looks like a silent one.
        except BaseException as error:
            _break(self._channel, error)

    def _stored(self, report: Report) -> Report:
        if not isinstance(report, Answer) or report.row is None:
            return report
        return report._replace(row=self._arena.write(report.row))


def _break(channel: Channel, error: BaseException) -> None:
    """Tell the driver why this host ends, and end it."""
    text = str(error) if isinstance(error, PoolError) else f"{type(error).__name__}: {error}"
    # The driver may be gone, or the channel be what is broken: then the process's end is all that it learns.
    with suppress(BaseException):
        channel.send(Broken(text + (advice(error) if isinstance(error, OSError) else "")))
    os._exit(1)


def _detach() -> None:
    """Separate this process from the driver's terminal, and bind its life to the driver's."""
    # Ctrl-C, Ctrl-Z and a closed terminal reach every process of a group, and only the driver decides what they mean.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(PermissionError):  # it leads a group already
        os.setsid()
    if sys.platform == "linux":
        # The parent is the forkserver. Without this a host that is stopped, or in a computation that never lets Python run, would
        # outlive a driver that was killed.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # The forkserver lives as long as anybody holds the other end of its pipe, and each of its children is given one. Hosts start
    # no processes with it (they are daemonic), so it may end with the driver.
    alive = getattr(forkserver._forkserver, "_forkserver_alive_fd", None)
    if alive is not None:
        os.close(alive)
        forkserver._forkserver._forkserver_alive_fd = None  # type: ignore[attr-defined]
