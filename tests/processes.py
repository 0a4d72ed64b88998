"""Processes as /proc has them: who descends from whom, and who is still there."""

import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

FORKSERVER = "multiprocessing.forkserver"


class Process(NamedTuple):
    """One process, told from a later one of the same number by when it started."""

    pid: int
    started: int  # clock ticks since the machine started


def _stat(pid: int) -> tuple[int, str, Process] | None:
    """Parent, state and identity; None when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the name may hold anything
    return int(fields[1]), fields[0], Process(pid, int(fields[19]))


def descendants(pid: int) -> set[Process]:
    """Children of a process, their children, and so on."""
    children: dict[int, list[Process]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        found = _stat(int(path.name))
        if found is not None:
            children.setdefault(found[0], []).append(found[2])
    below, level = set[Process](), [pid]
    while level:
        new = [child for parent in level for child in children.get(parent, [])]
        below.update(new)
        level = [child.pid for child in new]
    return below


def running(processes: Iterable[Process]) -> set[Process]:
    """Those that are still there; one that has ended and waits for its parent is not."""
    stats = [_stat(process.pid) for process in processes]
    return {found[2] for found in stats if found is not None and found[1] not in "ZX"} & set(processes)


def left_after(seconds: float, processes: Collection[Process]) -> set[Process]:
    """Those that are still there when so many seconds are over; returns at once when there are none."""
    end = time.monotonic() + seconds
    while (left := running(processes)) and time.monotonic() < end:
        time.sleep(0.05)
    return left


def command_line(process: Process) -> str:
    """Its arguments, or the title that it has given itself; "" when it has ended."""
    try:
        return Path(f"/proc/{process.pid}/cmdline").read_text().replace("\0", " ").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def hosts_below(pid: int) -> set[Process]:
    """The hosts of pools that a process has: Ray's actors, and what its forkserver has started."""
    below = descendants(pid)
    actors = {process for process in below if command_line(process).startswith("ray::Host")}
    # A child of a forkserver keeps its command line; those of Ray's dashboard take titles of their own.
    forked = {process for process in below if FORKSERVER in command_line(process)}
    children = set[Process]().union(*(descendants(server.pid) for server in forked))
    return running(actors | (forked & children))
