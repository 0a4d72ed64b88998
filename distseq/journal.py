"""One JSONL record per round and per job, with every arrival; a real run's journal replays in the simulator.

Records: {"kind": "run", ...} once, {"kind": "round", ..., "arrivals": [...]} and {"kind": "job", ...}. An arrival is a list
in the order of ARRIVAL. Seconds are pool time. Totals, plots and replays are sums over records.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
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


class MemoryJournal:
    """Records kept in a list."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def write(self, record: Record) -> None:
        self.records.append(record)

    def close(self) -> None:
        pass


class FileJournal:
    """Records appended to a new file, one flushed line each: what a killed run has written stays readable."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "x", encoding="utf-8")  # noqa: SIM115 - open for the life of the run

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


def arrival(delivery: Delivery, load: float) -> list[float]:
    """A delivery as the journal records it; `load` is the fraction of a batch that its row took."""
    job, group, worker = delivery.task
    seconds = [round(s, 6) for s in (delivery.at, delivery.startup, delivery.compute, load)]
    return [worker, job, group, *seconds, delivery.attempt, delivery.invocation, int(delivery.stale)]


def arrival_table(records: Iterable[Mapping[str, Any]], n: int) -> Trace:
    """The observed invocations of n workers as a trace.

    Each worker's column is the sequence of its start-ups, repeated to the length of the longest; the slope is the median
    over rows of compute seconds per unit of load. ValueError when a worker was never heard of.
    """
    columns: list[dict[int, float]] = [{} for _ in range(n)]
    rates = []
    for record in records:
        for values in record["arrivals"] if record["kind"] == "round" else ():
            seen = dict(zip(ARRIVAL, values, strict=True))
            columns[int(seen["worker"])][int(seen["invocation"])] = seen["startup"]
            if seen["load"] > 0 and not seen["stale"]:
                rates.append(seen["compute"] / seen["load"])
    silent = [i for i, column in enumerate(columns) if not column]
    if silent:
        raise ValueError(f"no arrivals of workers {silent[:5]} in the journal: it cannot be replayed")
    rounds = max(len(column) for column in columns)
    table = np.array([np.resize([column[k] for k in sorted(column)], rounds) for column in columns]).T
    return Trace(table, 0.0, float(np.median(rates)) if rates else 0.0)
