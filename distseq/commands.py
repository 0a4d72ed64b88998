"""What the commands do, apart from their options."""

from collections.abc import Sequence
from itertools import product
from math import inf
from pathlib import Path
from typing import Any

from distseq.cluster.host_pool import HostPool
from distseq.cluster.trace import Trace
from distseq.comparing import AUTO, Result, Setting
from distseq.config import SCHEDULERS, SchedulerConfig
from distseq.planning import given_delays
from distseq.plotting import check_plot, draw
from distseq.profiling import probe, probe_spec, run_trace
from distseq.scheduling.candidates import Candidate, candidates
from distseq.scheduling.closing import closing_rule
from distseq.scheduling.estimate import Prices, prices
from distseq.scheduling.inexact import marked
from distseq.scheduling.pipeline import Pipeline
from distseq.simulation import check_numbers
from distseq.timeline import Timeline

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
    scheduler: str | None = None,
    parts: Sequence[int] = (),
    copies: Sequence[int] = (),
    lanes: Sequence[int] = (),
    burst: int | None = None,
    places: int = 0,
    objective: str = "seconds",
    price: str | None = None,
    inexact: bool = False,
    sweep: bool = False,
    slope: float | None = None,
    bounds: bool = False,
    plot: Path | None = None,
) -> list[Result]:
    """`distseq simulate`: each scheme, and each pipeline of these numbers, or all candidates, or as seems best from what is
    observed, on the same delays, best first; then the bounds. With `plot` also a picture."""
    named: list[Candidate] = [*schemes, *_pipelines(scheduler, parts, copies, lanes, burst, places)]
    if scheduler == "auto" or (scheduler is None and not named and not sweep):
        named.append(AUTO)
    if sweep and named:
        raise ValueError("--sweep tries every family: it takes no --scheme and no --scheduler")
    if not sweep and not named:
        raise ValueError("--scheduler rounds needs --scheme SCHEME")
    table = given_delays(trace, profile, workers, seed, slope)
    check_numbers(models, jobs)
    rule = closing_rule(closing, cutoff=cutoff, mu=mu)
    paid = Prices() if price is None else prices(price)
    setting = Setting(table, rule, models, jobs, unfinished, arrival, inexact, objective, paid, places)
    least = setting.bounds() if bounds else []
    tried = candidates(table.workers, models) if sweep else named
    of_rounds = {"closing": closing, ("mu" if closing == "mu" else "cutoff"): mu if closing == "mu" else cutoff}
    if plot is not None:
        check_plot(plot)
    found = [(setting.run(one), one) for one in tried]
    found = [(result | (of_rounds if "rounds" in result else {}), one) for result, one in found]
    found.sort(key=lambda pair: pair[0]["total_seconds"])
    results = [result for result, _ in found]
    if plot is not None:
        timeline = Timeline(unfinished)
        setting.run(found[0][1], timeline)
        draw(plot, results, least, timeline.spans())
    return results + least


def _pipelines(
    scheduler: str | None,
    parts: Sequence[int],
    copies: Sequence[int],
    lanes: Sequence[int],
    burst: int | None,
    places: int,
) -> list[Pipeline]:
    """Every combination. ValueError for another scheduler, or numbers of pipelines without one."""
    if scheduler is not None and scheduler not in SCHEDULERS:
        raise ValueError(f"scheduler must be one of {', '.join(SCHEDULERS)}: got {scheduler!r}")
    if scheduler != "pipeline":
        if parts or copies or lanes or burst is not None:
            raise ValueError("--parts, --copies, --lanes and --burst are options of --scheduler pipeline")
        return []
    usual = SchedulerConfig()
    numbers = product(parts or [usual.parts], copies or [usual.copies], lanes or [usual.lanes])
    return [Pipeline(*one, usual.burst if burst is None else burst, places) for one in numbers]


def table(results: Sequence[Result]) -> str:
    """Results as aligned text, a line each, bounds marked, with what all of them have in common on top."""
    first = results[0]
    rules = {f"closing={result['closing']}, " for result in results if "closing" in result}
    head = (
        f"{first['workers']} workers, {first['models']} models, {first['jobs']} jobs, "
        f"{''.join(rules)}unfinished={first['unfinished']}"
    )
    named = [result | {"scheme": marked(result["scheme"], result.get("exact", True))} for result in results]
    rows = [list(COLUMNS.values())] + [[_cell(result.get(key, "-")) for key in COLUMNS] for result in named]
    for row, result in zip(rows[1:], results, strict=True):
        row[0] += " (bound)" if "bound" in result else ""
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
