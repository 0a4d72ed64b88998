"""One JSONL record per round and per job, with every arrival; a real run's journal replays in the simulator.

Records: {"kind": "run", ...} once, {"kind": "round", ..., "arrivals": [...]} and {"kind": "job", ...}. Where there are no
rounds, a job's record has the arrivals since the last one. An arrival is a list in the order of ARRIVAL. Seconds are pool
time. Totals, plots and replays are sums over records. "exact" says whether every gradient is, "staleness" of a job how many
steps its learner has made between the parameters that the gradient is of and those that it is applied to.

{"kind": "choice", ...} says how the next jobs are scheduled, from what evidence and among which candidates, under adaptive
scheduling. {"kind": "failed", ...} says that a learner is trained no further, and why. Evaluations have records of their own,
with their arrivals (distseq.engine.evaluation).

{"kind": "resume", "steps": {learner: steps made}, ...} begins what a new pool did: its seconds and invocations count from 0,
and jobs above are void from those steps on.
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
    def write(self, record: Record) -> None: ...
    def close(self) -> None: ...


class Tee:
    """Writes every record to each of several journals."""

    def __init__(self, *journals: Journal) -> None:
        self._journals = journals

    def write(self, record: Record) -> None:
        for journal in self._journals:
            journal.write(record)

    def close(self) -> None:
        for journal in self._journals:
            journal.close()


class MemoryJournal:
    """Records kept in a list."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def write(self, record: Record) -> None:
        self.records.append(record)

    def close(self) -> None:
        pass


class FileJournal:
    """Records appended to a new file, one flushed line each: what a killed run has written stays readable.

    `resume` appends to the file of an earlier run, from which a half-written last line is cut.
    """

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        if resume:
            with open(path, "rb+") as file:
                file.truncate(file.read().rfind(b"\n") + 1)
        self._file = open(path, "a" if resume else "x", encoding="utf-8")  # noqa: SIM115 - open for the life of the run

    def write(self, record: Record) -> None:
        self._file.write(json.dumps(record, separators=(",", ":")) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_journal(path: Path) -> Iterator[Record]:
    """The records of a journal file. A last line cut short by a crash is passed over; ValueError for any other bad line."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            if number == len(lines) and not line.endswith("\n"):
                return
            raise ValueError(f"{path} line {number} is not a journal record") from None


@dataclass(frozen=True)
class RunHistory:
    """What a journal says of a run so far."""

    jobs: tuple[Record, ...]  # those that count
    rounds: int
    waits: int
    seconds: float  # of all its pools
    exact: bool = True  # every part of it


def run_history(records: Iterable[Record], steps: Mapping[str, int]) -> RunHistory:
    """The past of learners that have made these steps."""
    jobs: list[Record] = []
    rounds, waits, seconds, latest, exact = 0, 0, 0.0, 0.0, True
    for record in records:
        exact = exact and record.get("exact", True)
        if record["kind"] == "resume":
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
    """A delivery as the journal records it; `load` is the fraction of a batch that its row took."""
    job, group, worker = delivery.task
    seconds = [round(s, 6) for s in (delivery.at, delivery.startup, delivery.compute, load)]
    return [worker, job, group, *seconds, delivery.attempt, delivery.invocation, int(delivery.stale)]
