"""Turns the arrivals recorded in a journal into a trace for the simulator."""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from distseq.cluster.trace import Trace
from distseq.engine.journal import ARRIVAL


def _arrivals(record: Mapping[str, Any]) -> list[dict[str, float]]:
    """The arrivals of a record as mappings with the keys of ARRIVAL; none for evaluations and checks."""
    # Evaluations and checks are left out: they bypass the scheduler, and a replay under another one has none.
    held = record.get("arrivals", ()) if record["kind"] in ("round", "job") else ()
    return [dict(zip(ARRIVAL, values, strict=True)) for values in held]


def arrival_table(records: Iterable[Mapping[str, Any]], n: int) -> Trace:
    """The observed invocations of n workers as a trace (rounds, n).

    The slope is the median over rows of compute seconds per unit of load. An entry is the start-up of an invocation plus the time
    its rows took beyond slope x load, so that slow computing is kept. A worker's column is its sequence of entries, repeated to
    the length of the longest column. `master` is the mean over jobs. ValueError when a worker never answered.
    """
    records = list(records)
    seen: list[dict[str, float]] = []
    pool = 0
    # Invocations count from 0 again when a run is resumed with a new pool: the pool's number keeps them apart.
    for record in records:
        pool += record["kind"] == "resume"
        seen += [{**one, "pool": pool} for one in _arrivals(record)]
    rows = [arrival for arrival in seen if min(arrival["load"], arrival["compute"]) > 0]
    # The median: a row whose host was descheduled would distort a mean.
    slope = float(np.median([row["compute"] / row["load"] for row in rows])) if rows else 0.0
    startups: dict[tuple[int, int, int], float] = {}
    beyond: dict[tuple[int, int, int], float] = defaultdict(float)
    for one in seen:
        key = (int(one["worker"]), int(one["pool"]), int(one["invocation"]))
        startups[key] = max(startups.get(key, 0.0), one["startup"])
        # A message may have several rows; what each took beyond its load adds up.
        beyond[key] += one["compute"] - slope * one["load"] if min(one["load"], one["compute"]) > 0 else 0.0
    # In the order of pools and invocations: a worker's column is a sequence, since slow times come in bursts.
    entries = {key: max(0.0, startups[key] + beyond[key]) for key in sorted(startups)}
    columns = [[seconds for key, seconds in entries.items() if key[0] == worker] for worker in range(n)]
    silent = [i for i, column in enumerate(columns) if not column]
    if silent:
        raise ValueError(f"the journal cannot be replayed: nothing arrived from workers {silent[:5]}")
    rounds = max(len(column) for column in columns)
    return Trace(np.array([np.resize(column, rounds) for column in columns]).T, 0.0, slope, master_seconds(records))


def master_seconds(records: Iterable[Mapping[str, Any]]) -> float:
    """Mean seconds that the master spent on decoding and applying a job; 0 without jobs.

    Measured from the latest event before a job was applied: an arrival, or the end of a round.
    """
    seconds, moments = list[float](), list[tuple[float, bool]]()  # (time, whether a job was decoded)
    for record in [*records, {"kind": "resume"}]:
        match record["kind"]:
            case "round":
                times = [one["at"] for one in _arrivals(record)]
                moments += [(round(time, 6), False) for time in (*times, record["begun"], record["ended"])]
            case "job":
                moments += [(round(one["at"], 6), False) for one in _arrivals(record)]
                moments.append((record["decoded"], True))
            case "resume":
                # The next pool's seconds count from 0: events of two pools are not compared.
                pairs = itertools.pairwise(sorted(moments))
                seconds += [after - before for (before, _), (after, decoded) in pairs if decoded]
                moments = []
    return float(np.mean(seconds)) if seconds else 0.0
