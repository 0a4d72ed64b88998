"""The journal: one JSONL record per round and job, with all arrivals; the simulator can replay it.

Totals, plots and replays are sums over records. Times are pool seconds. Records by their "kind":

run: the first one: the configuration, the workers and whether training is exact.
round: a finished round (distseq.scheduling.scheduler.Round) with its arrivals, each a list in the order of ARRIVAL.
job: an applied job. "staleness" is the number of steps that its learner made between opening it and applying it. Without
    rounds, it also holds the arrivals since the previous record.
choice: a switch of the adaptive scheduler, with the evidence and the candidates it was chosen from.
hosts: a host was replaced, joined or left.
failed: a learner was stopped, and why.
evaluation, evaluation skipped, evaluation failed: see distseq.engine.evaluation.
resume: the run was resumed with a new pool, whose seconds and invocations count from 0. "steps" holds the number of steps of
    each learner in the checkpoint; job records above it whose step is not smaller do not count.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from distseq.cluster.pool import Delivery

Record = dict[str, Any]
ARRIVAL = ("worker", "job", "group", "at", "startup", "compute", "load", "attempt", "invocation", "stale")


class Journal(Protocol):
    """Takes the records of a run, in order."""

    def write(self, record: Record) -> None: ...
    def close(self) -> None: ...


class Tee:
    """A journal that writes every record to several others."""

    def __init__(self, *journals: Journal) -> None:
        self._journals = journals

    def write(self, record: Record) -> None:
        for journal in self._journals:
            journal.write(record)

    def close(self) -> None:
        for journal in self._journals:
            journal.close()


class MemoryJournal:
    """A journal in memory: the list `records`."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def write(self, record: Record) -> None:
        self.records.append(record)

    def close(self) -> None:
        pass


class FileJournal:
    """A journal in a file that must not exist yet; every record is one line, flushed at once.

    resume: append to the file of an earlier run instead. FileExistsError or another OSError when it cannot be opened.
    """

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        if resume:
            # A run that was killed may have left half a line, which would spoil the first record of this one.
            with open(path, "rb+") as file:
                file.truncate(file.read().rfind(b"\n") + 1)
        self._file = open(path, "a" if resume else "x", encoding="utf-8")  # noqa: SIM115 - open for the life of the run

    def write(self, record: Record) -> None:
        self._file.write(json.dumps(record, separators=(",", ":")) + "\n")
        # Flushed, not synced: what is written survives the death of this process, if not of the machine.
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_journal(path: Path) -> Iterator[Record]:
    """Yields the records of a journal file. ValueError for a bad line, unless it is the last one, cut short by a crash."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            # Only a last line without its newline can be the work of a crash; anything else is damage.
            if number == len(lines) and not line.endswith("\n"):
                return
            raise ValueError(f"{path} line {number} is not a journal record") from None


@dataclass(frozen=True)
class RunHistory:
    """The part of a run before it was resumed, from its journal."""

    jobs: tuple[Record, ...]  # records of the jobs whose steps are in the checkpoint
    rounds: int
    waits: int  # rounds that lasted beyond their cutoff
    seconds: float  # sum over its pools
    exact: bool = True  # False if any part of the run was not exact


def run_history(records: Iterable[Record], steps: Mapping[str, int]) -> RunHistory:
    """The history of a run whose learners are at these steps, learner -> steps made."""
    jobs: list[Record] = []
    rounds, waits, seconds, latest, exact = 0, 0, 0.0, 0.0, True
    for record in records:
        # Both "run" and "resume" records have it: a run is exact only if all its parts are (docs/decisions/013).
        exact = exact and record.get("exact", True)
        if record["kind"] == "resume":
            # Jobs that the resumed run did again would otherwise count twice; the seconds spent on them count, because they
            # passed.
            jobs, seconds, latest = _made(jobs, record["steps"]), seconds + latest, 0.0
        elif record["kind"] == "job":
            jobs.append(record)
            latest = max(latest, record["decoded"])
        elif record["kind"] == "round":
            rounds, waits, latest = rounds + 1, waits + record["waited"], max(latest, record["ended"])
    return RunHistory(tuple(_made(jobs, steps)), rounds, waits, seconds + latest, exact)


def _made(jobs: list[Record], steps: Mapping[str, int]) -> list[Record]:
    return [job for job in jobs if job["step"] < steps[job["learner"]]]


def arrival(delivery: Delivery, load: float) -> list[float]:
    """A delivery as a journal entry; `load`: fraction of a batch that its row took, times the job's cost."""
    job, group, worker = delivery.task
    # Microseconds, as predictions are rounded: more digits would only make the journal longer.
    seconds = [round(s, 6) for s in (delivery.at, delivery.startup, delivery.compute, load)]
    return [worker, job, group, *seconds, delivery.attempt, delivery.invocation, int(delivery.stale)]
