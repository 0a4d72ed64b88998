"""Feeds mutants to a reader, which must read or refuse them: in one line, in time, within its memory, changing no file.

`make fuzz COUNT=10000` (python -m tests.fuzz) prints the counts; a failure names the seed, with which it can be repeated.
"""

import gc
import resource
import signal
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import FrameType

from tests.fuzz.mutations import Bytes, mutant

# Seconds for one mutant, on a busy machine.
SECONDS = 10.0
# Bytes that reading a mutant may allocate: some, and some per byte of the file. Beyond ROOM no allocation succeeds at all.
BASE, PER_BYTE, ROOM = 48 << 20, 64, 1 << 31
# Characters of a message.
MESSAGE = 3000


@dataclass(frozen=True)
class Kind:
    """A kind of file: what is mutated, and what reads it.

    seeds: contents of files that are read without an error.
    read: reads a file of one of these contents that lies in an otherwise empty folder, under the name `file`.
    refusals: the documented exceptions of `read`.
    own: structure-aware mutations.
    """

    name: str
    file: str
    seeds: Callable[[], Sequence[bytes]]
    read: Callable[[Path], object]
    refusals: tuple[type[BaseException], ...] = (ValueError,)
    own: Sequence[Bytes] = ()


class TooLongError(Exception):
    """A mutant takes longer than SECONDS."""


@dataclass
class Report:
    """What became of the mutants of a kind."""

    kind: str
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    most: int = 0  # bytes allocated for one of them

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {count}" for name, count in self.outcomes.most_common())
        return f"{self.kind}: {self.outcomes.total()} mutants: {counts}; at most {self.most / 1e6:.1f} MB allocated"


def fuzz(kind: Kind, seeds: range, folder: Path) -> Report:
    """Reads one mutant for each seed."""
    report, contents = Report(kind.name), kind.seeds()
    path = folder / kind.file
    for content in contents:
        path.write_bytes(content)
        kind.read(path)
    traced = tracemalloc.is_tracing()
    tracemalloc.start()
    try:
        with _limited(ROOM):
            for seed in seeds:
                content = mutant(Random(f"{kind.name} {seed}"), contents, kind.own)
                failed = _one(kind, content, path, report)
                if failed:
                    report.failures.append(
                        f"{kind.name} seed {seed}: {failed}; content {content[:300]!r} ({len(content)} bytes)"
                    )
    finally:
        if not traced:
            tracemalloc.stop()
    return report


def _one(kind: Kind, content: bytes, path: Path, report: Report) -> str | None:
    """Reads one mutant; what is wrong about how that ended, if anything is."""
    path.write_bytes(content)
    before = sorted(path.parent.rglob("*"))
    tracemalloc.reset_peak()
    begun = tracemalloc.get_traced_memory()[0]
    wrong = None
    try:
        with _in_time():
            kind.read(path)
        outcome = "read"
    except kind.refusals as error:
        outcome, wrong = f"{type(error).__name__}", _wrong_message(error)
        if "a process that read it" in str(error):
            outcome = "killed its reader"
    except BaseException as error:
        outcome, wrong = "failed", f"{type(error).__name__}: {str(error)[:300]}"
        if isinstance(error, KeyboardInterrupt):
            raise
    taken = tracemalloc.get_traced_memory()[1] - begun
    report.most = max(report.most, taken)
    report.outcomes[outcome] += 1
    if wrong is None and taken > BASE + PER_BYTE * len(content):
        wrong = f"{taken / 1e6:.0f} MB allocated"
        gc.collect()
    if wrong is None and (path.read_bytes() != content or sorted(path.parent.rglob("*")) != before):
        wrong = f"files changed: {[each.name for each in path.parent.rglob('*')]}"
    return wrong


def _wrong_message(error: BaseException) -> str | None:
    message = str(error)
    if not message or len(message) > MESSAGE or len(message.splitlines()) != 1:
        return (
            f"{type(error).__name__} whose message is not one line of at most {MESSAGE} characters: {message[:300]!r}"
        )
    if "MemoryError" in message or isinstance(error, MemoryError):
        return f"memory was asked for that is not there: {message[:300]}"
    return None


@contextmanager
def _in_time() -> Iterator[None]:
    def late(number: int, frame: FrameType | None) -> None:
        raise TooLongError(f"longer than {SECONDS:.0f} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _limited(room: int) -> Iterator[None]:
    """No more than `room` bytes of address space beside what this process has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm", encoding="ascii") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
