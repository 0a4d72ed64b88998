"""What must hold before local processes start: descriptors enough, and a folder for the forkserver's socket."""

import os
import resource
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from pathlib import Path

# Open files of the driver for each host: its socket, two of multiprocessing, and segments of its rows.
PER_HOST = 12
# For files of the run, its data and its segments of parameters.
RESERVE = 32
# Longest path of a Unix socket: 108 bytes on Linux and 104 elsewhere, the terminating zero included.
LONGEST = 103
# Of pymp-XXXXXXXX/listener-XXXXXXXX, which multiprocessing puts below the temporary folder.
BELOW = 32


def check_descriptors(hosts: int) -> None:
    """Raise the soft limit of open files as far as `hosts` hosts need. ValueError where the hard limit forbids it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = len(os.listdir("/dev/fd")) + RESERVE + hosts * PER_HOST
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ValueError(
            f"{hosts} local processes need about {needed} open files, and this process may open {hard}: "
            f"allow more with ulimit -n {needed}, or use fewer hosts"
        )
    # Not to the hard limit, which may be a billion: programs that close all possible descriptors would take minutes.
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def start_forkserver() -> None:
    """Start multiprocessing's forkserver, unless it runs already. ValueError where no folder can hold its socket."""
    # First, since it unblocks the signals that are blocked below.
    resource_tracker.ensure_running()
    # Ctrl-C at a terminal must end neither the forkserver while it imports nor a host before it can ignore the signal: both
    # inherit the mask.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with _short_temporary_folder():
            forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _short_temporary_folder() -> Iterator[None]:
    """Have multiprocessing keep its sockets where their paths are short enough."""
    before = tempfile.tempdir
    tempfile.tempdir = short_folder()
    try:
        yield
    finally:
        tempfile.tempdir = before


def short_folder() -> str:
    """The temporary folder, or another one if its path is too long for a Unix socket. ValueError if there is none."""
    try:
        own = tempfile.gettempdir()
    except FileNotFoundError as error:
        raise ValueError(f"local processes need a temporary folder: {error.strerror}: set TMPDIR to one") from None
    for folder in (own, "/tmp", "/var/tmp", "/dev/shm"):
        if len(os.fsencode(folder)) + BELOW <= LONGEST and _writable(folder):
            return folder
    raise ValueError(
        f"local processes need a temporary folder with a path of at most {LONGEST - BELOW} bytes for their socket: "
        f"{own} has {len(os.fsencode(own))}, and neither /tmp nor /var/tmp can be written to: set TMPDIR"
    )


def _writable(folder: str) -> bool:
    # By doing it: a file system may be mounted read-only or be full, which permissions do not tell.
    try:
        os.rmdir(tempfile.mkdtemp(prefix="distseq-", dir=Path(folder)))
    except OSError:
        return False
    return True
