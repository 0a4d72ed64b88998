"""What the commands do, apart from their options."""

from collections.abc import Sequence
from itertools import product
from math import inf
from pathlib import Path
from typing import Any

from distseq.cluster.host_pool import HostPool
from distseq.cluster.profiles import delays
from distseq.cluster.trace import Trace, load_trace
from distseq.config import SCHEDULERS, SchedulerConfig
from distseq.profiling import probe, probe_spec, run_trace
from distseq.scheduling.closing import closing_rule
from distseq.scheduling.inexact import marked
from distseq.scheduling.pipeline import Pipeline
from distseq.simulation import simulate, simulate_pipeline

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
    scheduler: str = "rounds",
    parts: Sequence[int] = (),
    copies: Sequence[int] = (),
    lanes: Sequence[int] = (),
    inexact: bool = False,
) -> list[dict[str, Any]]:
    """`distseq simulate`: each scheme, and each pipeline of these numbers, on the same delays, best first."""
    pipelines = _pipelines(scheduler, parts, copies, lanes)
    if not schemes and not pipelines:
        raise ValueError("simulate needs --scheme SCHEME or --scheduler pipeline")
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
        simulate(table, s, rule, models=models, jobs=jobs, unfinished=unfinished, arrival=arrival, inexact=inexact)
        for s in schemes
    ]
    named = {"closing": closing, ("mu" if closing == "mu" else "cutoff"): mu if closing == "mu" else cutoff}
    results = [result | (named if "rounds" in result else {}) for result in results] + [
        simulate_pipeline(table, one, models=models, jobs=jobs, unfinished=unfinished) for one in pipelines
    ]
    return sorted(results, key=lambda result: result["total_seconds"])


def _pipelines(scheduler: str, parts: Sequence[int], copies: Sequence[int], lanes: Sequence[int]) -> list[Pipeline]:
    """Every combination. ValueError for another scheduler, or numbers of pipelines without one."""
    if scheduler not in SCHEDULERS:
        raise ValueError(f"scheduler must be one of {', '.join(SCHEDULERS)}: got {scheduler!r}")
    if scheduler == "rounds":
        if parts or copies or lanes:
            raise ValueError("--parts, --copies and --lanes are options of --scheduler pipeline")
        return []
    usual = SchedulerConfig()
    return [Pipeline(*one) for one in product(parts or [usual.parts], copies or [usual.copies], lanes or [usual.lanes])]


def table(results: Sequence[dict[str, Any]]) -> str:
    """Results as aligned text, a line each, with what all of them have in common on top."""
    first = results[0]
    rules = {f"closing={result['closing']}, " for result in results if "closing" in result}
    head = (
        f"{first['workers']} workers, {first['models']} models, {first['jobs']} jobs, "
        f"{''.join(rules)}unfinished={first['unfinished']}"
    )
    named = [result | {"scheme": marked(result["scheme"], result["exact"])} for result in results]
    rows = [list(COLUMNS.values())] + [[_cell(result.get(key, "-")) for key in COLUMNS] for result in named]
    widths = [max(len(row[c]) for row in rows) for c in range(len(COLUMNS))]
    lines = [
        "  ".join(f"{cell:>{w}}" if c else f"{cell:<{w}}" for c, (cell, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    return "\n".join([head, *lines])


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def profile_pool(
    *,
    out: Path,
    run: Path | None,
    pool: str,
    workers: int,
    hosts: int | None,
    address: str,
    rounds: int,
    seconds: float,
) -> Trace:
    """`distseq profile`: write the delays of a run, or of a pool that is probed now, as a trace file."""
    if workers < 1 or rounds < 1 or not 0 <= seconds < inf:
        raise ValueError(
            f"profile needs workers >= 1, rounds >= 1 and seconds >= 0: got {workers}, {rounds} and {seconds}"
        )
    if not out.parent.is_dir():
        raise ValueError(f"cannot write trace {out}: there is no folder {out.parent}")
    if run is not None:
        trace = run_trace(run)
    else:
        probed = _probed_pool(pool, workers, hosts, address, seconds)
        try:
            trace = probe(probed, workers, rounds)
        finally:
            probed.close()
    try:
        trace.save(out)
    except OSError as error:
        raise ValueError(f"cannot write trace {out}: {error.strerror}") from None
    return trace


def _probed_pool(kind: str, workers: int, hosts: int | None, address: str, seconds: float) -> HostPool:
    if kind == "local":
        from distseq.cluster.local_pool import local_pool

        return local_pool(workers, probe_spec(seconds), hosts=hosts)
    if kind == "ray":
        from distseq.cluster.ray_pool import ray_pool

        return ray_pool(workers, probe_spec(seconds), hosts=hosts, address=address)
    raise ValueError(f"profile measures real workers: the pool must be ray or local, got {kind!r}")
