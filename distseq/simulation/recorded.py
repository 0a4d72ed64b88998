"""Turns the arrivals that a journal holds into a trace for the simulator."""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from distseq.cluster.trace import Trace
from distseq.engine.journal import (
    ARRIVAL,
)


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
