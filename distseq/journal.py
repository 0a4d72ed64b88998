"""One JSONL record per round and per job, with every arrival; a real run's journal replays in the simulator.

Records: {"kind": "run", ...} once, {"kind": "round", ..., "arrivals": [...]} and {"kind": "job", ...}. Where there are no
rounds, a job's record has the arrivals since the last one. An arrival is a list in the order of ARRIVAL. Seconds are pool
time. Totals, plots and replays are sums over records. "exact" says whether every gradient is, "staleness" of a job how many
steps its learner has made between the parameters that the gradient is of and those that it is applied to.

{"kind": "choice", ...} says how the next jobs are scheduled, from what evidence and among which candidates, under adaptive
scheduling. {"kind": "failed", ...} says that a learner is trained no further, and why. Evaluations have records of their own,
with their arrivals (distseq.evaluation).

{"kind": "resume", "steps": {learner: steps made}, ...} begins what a new pool did: its seconds and invocations count from 0,
and jobs above are void from those steps on.
"""

import itertools
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from distseq.cluster.pool import Delivery
from distseq.cluster.trace import Trace

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
class Past:
    """What a journal says of a run so far."""

    jobs: tuple[Record, ...]  # those that count
    rounds: int
    waits: int
    seconds: float  # of all its pools
    exact: bool = True  # every part of it


def past(records: Iterable[Record], steps: Mapping[str, int]) -> Past:
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
    return Past(tuple(_made(jobs, steps)), rounds, waits, seconds + latest, exact)


def _made(jobs: list[Record], steps: Mapping[str, int]) -> list[Record]:
    return [job for job in jobs if job["step"] < steps[job["learner"]]]


def arrival(delivery: Delivery, load: float) -> list[float]:
    """A delivery as the journal records it; `load` is the fraction of a batch that its row took."""
    job, group, worker = delivery.task
    seconds = [round(s, 6) for s in (delivery.at, delivery.startup, delivery.compute, load)]
    return [worker, job, group, *seconds, delivery.attempt, delivery.invocation, int(delivery.stale)]


def _arrivals(record: Mapping[str, Any]) -> list[dict[str, float]]:
    """The arrivals of training that a record holds, by the names of ARRIVAL."""
    held = record.get("arrivals", ()) if record["kind"] in ("round", "job") else ()
    return [dict(zip(ARRIVAL, values, strict=True)) for values in held]


def arrival_table(records: Iterable[Mapping[str, Any]], n: int) -> Trace:
    """The observed invocations of n workers as a trace.

    The slope is the median over rows of compute seconds per unit of load. An invocation's entry is its start-up and what its
    rows took beyond slope x load, so that slow computing is kept too. Each worker's column is its sequence of entries,
    repeated to the length of the longest. `master` is the mean over jobs. ValueError when a worker was never heard of.
    """
    records = list(records)
    seen: list[dict[str, float]] = []
    pool = 0
    for record in records:
        pool += record["kind"] == "resume"
        seen += [{**one, "pool": pool} for one in _arrivals(record)]
    rows = [arrival for arrival in seen if min(arrival["load"], arrival["compute"]) > 0]
    slope = float(np.median([row["compute"] / row["load"] for row in rows])) if rows else 0.0
    startups: dict[tuple[int, int, int], float] = {}
    beyond: dict[tuple[int, int, int], float] = defaultdict(float)
    for one in seen:
        key = (int(one["worker"]), int(one["pool"]), int(one["invocation"]))
        startups[key] = max(startups.get(key, 0.0), one["startup"])
        beyond[key] += one["compute"] - slope * one["load"] if min(one["load"], one["compute"]) > 0 else 0.0
    entries = {key: max(0.0, startups[key] + beyond[key]) for key in sorted(startups)}
    columns = [[seconds for key, seconds in entries.items() if key[0] == worker] for worker in range(n)]
    silent = [i for i, column in enumerate(columns) if not column]
    if silent:
        raise ValueError(f"no arrivals of workers {silent[:5]} in the journal: it cannot be replayed")
    rounds = max(len(column) for column in columns)
    return Trace(np.array([np.resize(column, rounds) for column in columns]).T, 0.0, slope, master_seconds(records))


def master_seconds(records: Iterable[Mapping[str, Any]]) -> float:
    """Mean seconds for which a job kept the master from its workers: from what it had waited for, an arrival or the end of a
    round, until the job was decoded and applied. 0 without jobs."""
    seconds, moments = list[float](), list[tuple[float, bool]]()  # (time, whether a job was decoded)
    for record in [*records, {"kind": "resume"}]:
        match record["kind"]:
            case "round":
                times = [one["at"] for one in _arrivals(record)]
                moments += [(round(time, 6), False) for time in (*times, record["begun"], record["ended"])]
            case "job":
                moments += [(round(one["at"], 6), False) for one in _arrivals(record)]
                moments.append((record["decoded"], True))
            case "resume":  # of a pool whose seconds count from 0
                pairs = itertools.pairwise(sorted(moments))
                seconds += [after - before for (before, _), (after, decoded) in pairs if decoded]
                moments = []
    return float(np.mean(seconds)) if seconds else 0.0
