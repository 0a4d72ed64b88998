"""Bursts of slowness that move over processes of this machine, the operating system's doing; and taking turns under them."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

T = TypeVar("T")
STARTUP = (
    0.06  # seconds that every message starts up, for all hosts alike; a sleep, so that eight hosts fit on two cores
)
SLOT = 0.5  # seconds between two changes of who is slow
ENTER, LEAVE = 0.06, 0.6  # of a host, in each slot: to become slow, to recover
CYCLE, AWAKE = 0.3, 0.03  # seconds of a duty cycle, and how much of it a slow host runs
QUOTA, PERIOD = 1_000, 300_000  # microseconds of CPU time that a slow host has in each period
QUIET = 1.0  # seconds between blocks in which late answers are waited for


class Slowness(Protocol):
    """A way to slow a host down."""

    def begin(self, pid: int) -> None: ...
    def end(self, pid: int) -> None: ...
    def beat(self, slow: Sequence[int], now: float) -> None:
        """Called all the time, with who is slow."""
        ...

    def close(self) -> None:
        """When the processes have ended."""
        ...


class Stops:
    """Stopped for all but `AWAKE` of every `CYCLE` seconds."""

    def begin(self, pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)

    def end(self, pid: int) -> None:
        os.kill(pid, signal.SIGCONT)

    def beat(self, slow: Sequence[int], now: float) -> None:
        for pid in slow:
            os.kill(pid, signal.SIGCONT if now % CYCLE < AWAKE else signal.SIGSTOP)

    def close(self) -> None: ...


class Quotas:
    """In a control group of its own, with `QUOTA` of CPU time in each `PERIOD`."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def begin(self, pid: int) -> None:
        group = self._home / f"distseq-bench-{pid}"
        if not group.exists():
            group.mkdir()
            (group / "cpu.cfs_period_us").write_text(str(PERIOD))
            (group / "cpu.cfs_quota_us").write_text(str(QUOTA))
        (group / "cgroup.procs").write_text(str(pid))

    def end(self, pid: int) -> None:
        (self._home / "cgroup.procs").write_text(str(pid))

    def beat(self, slow: Sequence[int], now: float) -> None: ...

    def close(self) -> None:
        for group in self._home.glob("distseq-bench-*"):
            group.rmdir()


def quotas() -> Quotas | None:
    """None where control groups of CPU time cannot be made."""
    home = Path("/sys/fs/cgroup/cpu")
    return Quotas(home) if os.access(home / "cgroup.procs", os.W_OK) and (home / "cpu.cfs_quota_us").exists() else None


def bursts(hosts: int, seed: int) -> Iterator[np.ndarray]:
    """(hosts,) bool for each slot: a two-state chain per host."""
    draws = np.random.default_rng(seed)
    slow = np.zeros(hosts, dtype=bool)
    while True:
        enter, leave = draws.random(hosts) < ENTER, draws.random(hosts) < LEAVE
        slow = np.where(slow, ~leave, enter)
        yield slow


@contextlib.contextmanager
def slowed(pids: Sequence[int], slowness: Slowness, seed: int) -> Iterator[None]:
    """Bursts that move over these processes, from a thread; all are as before at the end."""
    over = threading.Event()

    def run() -> None:
        begun, slow = time.monotonic(), set[int]()
        for slot, chosen in enumerate(bursts(len(pids), seed), 1):
            new = {pid for pid, one in zip(pids, chosen, strict=True) if one}
            for pid in new - slow:
                slowness.begin(pid)
            for pid in slow - new:
                slowness.end(pid)
            slow = new
            while (now := time.monotonic() - begun) < slot * SLOT:
                slowness.beat(sorted(slow), now)
                if over.wait(0.005):
                    for pid in slow:
                        slowness.end(pid)
                    return

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def turns(contenders: Sequence[T], repetitions: int) -> Iterator[tuple[int, T]]:
    """(repetition, contender): each once in every repetition, and each the first one in turn."""
    for repetition in range(repetitions):
        for k in range(len(contenders)):
            yield repetition, contenders[(repetition + k) % len(contenders)]
