"""The journal: one JSONL record per round and job, with all arrivals; the simulator can replay it.

Totals, plots and replays are sums over records. Times are pool seconds. Records by their "kind":

run: the first one: the configuration, the workers and whether training is exact.
round: a finished round (distseq.scheduling.scheduler.Round) with its arrivals, each a list in the order of ARRIVAL.
job: an applied job. "staleness" is the number of steps that its learner made between opening it and applying it. Without
    rounds, it also holds the arrivals since the previous record.
choice: a switch of the adaptive scheduler, with the evidence and the candidates it was chosen from.
hosts: a host was replaced, joined or left.
blocks: the batches of a learner are cut into so many "blocks" from this "step" on, because it draws random numbers.
failed: a learner was stopped, and why.
check: a decoded gradient was compared with the full batch's; "difference" is relative, of the parameter that differs most.
evaluation, evaluation skipped, evaluation failed: see distseq.engine.evaluation.
resume: the run was resumed with a new pool, whose seconds and invocations count from 0. "steps" holds the number of steps of
    each learner in the checkpoint; job records above it whose step is not smaller do not count.
"""

import errno
import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from distseq.cluster.pool import Delivery

Record = dict[str, Any]
ARRIVAL = ("worker", "job", "group", "at", "startup", "compute", "load", "attempt", "invocation", "stale")
BLOCK = 1 << 16  # bytes read at a time while looking for the end of the last line
LATEST = 4 << 20  # bytes that a replay reads at most: some 50,000 arrivals, which take half a second


class Journal(Protocol):
    """Takes the records of a run, in order."""

    def write(self, record: Record) -> None: ...
    def close(self) -> None: ...


class MemoryJournal:
    """A journal in memory, of a run that is short: the list `records`."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def write(self, record: Record) -> None:
        self.records.append(record)

    def close(self) -> None:
        pass


class FileJournal:
    """A journal in a file that must not exist yet; every record is one line, written at once.

    resume: append to the file of an earlier run instead, which is made if it is gone.
    warn: told, in a line, of a record that cannot be written, which is left out; without it `write` raises OSError.

    FileExistsError or another OSError when the file cannot be opened.
    """

    def __init__(self, path: Path, *, resume: bool = False, warn: Callable[[str], object] | None = None) -> None:
        self.path, self._warn = path, warn
        if resume and path.exists():
            _check_regular(path)
        self._file = os.open(
            path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | (0 if resume else os.O_EXCL), 0o644
        )
        # A run that was killed may have left half a line, which would spoil the first record of this one.
        self.began = _end_of_lines(self._file)  # offset of the first record of this process, in bytes
        os.ftruncate(self._file, self.began)
        self._spoilt = False  # the last line is half a record

    def write(self, record: Record) -> None:
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        end = os.fstat(self._file).st_size
        try:
            # Written, not synced: what is written survives the death of this process, if not of the machine.
            _write_all(self._file, b"\n" + line if self._spoilt else line)
            self._spoilt = False
        except OSError as error:
            try:
                os.ftruncate(self._file, end)
            # Then it stays as a bad line of its own, which readers leave out.
            except OSError:
                self._spoilt = True
            if self._warn is None:
                raise
            self._warn(f"cannot write {self.path}: {error.strerror}; figures of the summary will be missing")

    def close(self) -> None:
        """May be called twice."""
        if self._file >= 0:
            file, self._file = self._file, -1
            os.close(file)


def _write_all(file: int, data: bytes) -> None:
    # A disk that is almost full takes a part, and only the next call fails.
    while data:
        data = data[os.write(file, data) :]


def _end_of_lines(file: int) -> int:
    """Offset behind the last newline of a file; 0 if it has none."""
    end = os.fstat(file).st_size
    while end:
        begin = max(0, end - BLOCK)
        if (last := os.pread(file, end - begin, begin).rfind(b"\n")) >= 0:
            return begin + last + 1
        end = begin
    return 0


def read_journal(path: Path, *, start: int = 0, damaged: Callable[[str], object] | None = None) -> Iterator[Record]:
    """Yields the records of a journal file, from byte `start` on. OSError when it cannot be read.

    A last line that was cut short by a crash is left out. ValueError for any other bad line; with `damaged`, bad lines are left
    out, too, and it is told of each.
    """
    _check_regular(path)
    with open(path, "rb") as file:
        file.seek(start)
        for number, line in enumerate(file, 1):
            try:
                yield _record(line)
            except (ValueError, RecursionError):
                # Only a last line without its newline can be the work of a crash; anything else is damage.
                if not line.endswith(b"\n"):
                    return
                text = f"{path} line {number} is not a journal record"
                if damaged is None:
                    raise ValueError(text) from None
                damaged(text)


def _check_regular(path: Path) -> None:
    """OSError for a pipe or a device, which may wait or go on for ever."""
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "Not a regular file", str(path))


def _record(line: bytes) -> Record:
    # Decoded here: json would take bytes for UTF-16 where every other one is 0.
    record = json.loads(line.decode("utf-8"))
    if not isinstance(record, dict):
        raise ValueError("a record is an object")
    return record


def latest_records(path: Path, start: int) -> Iterator[Record]:
    """The records of a journal file from byte `start` on, of a long file only the latest ones, some LATEST bytes."""
    start = max(start, path.stat().st_size - LATEST)
    with open(path, "rb") as file:
        # From a byte earlier: `start` may be the first one of a line.
        file.seek(max(0, start - 1))
        start = max(0, start - 1) + len(file.readline()) if start else 0
    return read_journal(path, start=start)


def arrival(delivery: Delivery, load: float) -> list[float]:
    """A delivery as a journal entry; `load`: fraction of a batch that its row took, times the job's cost."""
    job, group, worker = delivery.task
    # Microseconds, as predictions are rounded: more digits would only make the journal longer.
    seconds = [round(s, 6) for s in (delivery.at, delivery.startup, delivery.compute, load)]
    return [worker, job, group, *seconds, delivery.attempt, delivery.invocation, int(delivery.stale)]
