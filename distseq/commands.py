"""What the commands do, apart from their options."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distseq.cluster.profiles import delays
from distseq.cluster.trace import load_trace
from distseq.scheduling.closing import closing_rule
from distseq.simulation import simulate

PROFILE_WORKERS = 256
COLUMNS = {
    "scheme": "scheme",
    "load": "load",
    "delay": "T",
    "rounds": "rounds",
    "waits": "waits",
    "total_seconds": "seconds",
    "seconds_per_job": "s/job",
    "worker_seconds_per_job": "worker-s/job",
}


def simulate_schemes(
    *,
    trace: Path | None,
    profile: str | None,
    schemes: Sequence[str],
    closing: str,
    cutoff: float,
    mu: float,
    unfinished: str,
    arrival: str,
    models: int,
    jobs: int,
    workers: int | None,
    seed: int,
) -> list[dict[str, Any]]:
    """`distseq simulate`: each scheme on the same delays, best first."""
    if (trace is None) == (profile is None):
        raise ValueError("simulate needs one of --trace FILE and --profile NAME")
    if workers is not None and workers < 1:
        raise ValueError(f"simulate needs at least one worker: got {workers}")
    if profile is not None:
        table = delays(profile, workers or PROFILE_WORKERS, seed)
    else:
        assert trace is not None
        table = load_trace(trace)
        table = table.first(workers or table.workers)
    rule = closing_rule(closing, cutoff=cutoff, mu=mu)
    results = [
        simulate(table, s, rule, models=models, jobs=jobs, unfinished=unfinished, arrival=arrival) for s in schemes
    ]
    named = {"closing": closing, ("mu" if closing == "mu" else "cutoff"): mu if closing == "mu" else cutoff}
    return sorted((result | named for result in results), key=lambda result: result["total_seconds"])


def table(results: Sequence[dict[str, Any]]) -> str:
    """Results as aligned text, a line each, with what all of them have in common on top."""
    first = results[0]
    head = (
        f"{first['workers']} workers, {first['models']} models, {first['jobs']} jobs, "
        f"closing={first['closing']}, unfinished={first['unfinished']}"
    )
    rows = [list(COLUMNS.values())] + [[_cell(result[key]) for key in COLUMNS] for result in results]
    widths = [max(len(row[c]) for row in rows) for c in range(len(COLUMNS))]
    lines = [
        "  ".join(f"{cell:>{w}}" if c else f"{cell:<{w}}" for c, (cell, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    return "\n".join([head, *lines])


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
