"""Compares schemes and pipelines on the same delays, and with lower bounds."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, replace
from itertools import product
from math import inf
from pathlib import Path

import numpy as np

from distseq.cluster.errors import PoolError
from distseq.coding.bounds import least_seconds, rounds_bounds
from distseq.config.check import check_candidates, placeholder
from distseq.config.options import OPTIONS
from distseq.config.schema import SCHEDULERS, Config, PoolConfig, SchedulerConfig
from distseq.scheduling.adaptive.candidates import Candidate, candidates, family, name_of
from distseq.scheduling.adaptive.cost import FREE, prices
from distseq.scheduling.asynchronous import parse_async
from distseq.scheduling.closing import closing_rule
from distseq.scheduling.pipeline import Pipeline
from distseq.simulation.delays import given_delays
from distseq.simulation.plot import check_plot, draw
from distseq.simulation.simulate import AUTO, Result, Setting, simulate
from distseq.simulation.timeline import Timeline

ROUND_ASSUMES = "rounds, each with one job and one message to each worker, that know all start-ups"
ALL_ASSUME = "workers that do one thing at a time"


def bounds_of(setting: Setting) -> list[Result]:
    """Lower bounds on seconds per job, each with its assumption under "bound".

    ValueError for a trace with lost invocations.
    """
    trace, jobs = setting.trace, setting.jobs
    startups = trace.startups()
    # A worker that never answers would make every bound infinite.
    lost = int(np.count_nonzero(np.isinf(startups)))
    if lost:
        raise ValueError(f"bounds need a trace without lost invocations: it has {lost}")
    of_rounds = rounds_bounds(startups, trace.slope, jobs, trace.master)
    least = {name: (seconds, ROUND_ASSUMES) for name, seconds in of_rounds.items()}
    # Under "overlap" a worker may do several things at once, which the bound without rounds rules out.
    if setting.unfinished != "overlap":
        least["genieAny"] = least_seconds(startups, trace.slope, setting.models, jobs, trace.master), ALL_ASSUME
    return [
        {"scheme": name, "bound": assumes, "total_seconds": seconds, "seconds_per_job": seconds / jobs}
        for name, (seconds, assumes) in least.items()
    ]


def best_of_families(results: Iterable[Result]) -> list[Result]:
    """The first result of each family, in the same order, and results without a family (bounds)."""
    seen, best = {None}, []
    for result in results:
        if result.get("family") is None or result["family"] not in seen:
            best.append(result)
            seen.add(result.get("family"))
    return best


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
    given: Collection[str] = (),
) -> list[Result]:
    """Simulates what the options of `distseq simulate` name, on the same delays: results, best first, then bounds.

    Candidates are the schemes and every combination of pipeline settings; with `sweep`, the whole grid; without any, "auto".
    `plot` also draws the results. `given`: the options that were named, which must say something to one of the candidates.
    A candidate that needs rows of a worker that never answers comes last and is "impossible". ValueError for options that do not
    go together, PoolError if every candidate is impossible.
    """
    pipelined = {"parts": parts, "copies": copies, "lanes": lanes, "burst": burst, "places": places}
    named = _named(schemes, _pipelines(scheduler, parts, copies, lanes, burst, places), scheduler, sweep)
    own = [name for name, value in pipelined.items() if value not in (None, (), [], 0)]
    if sweep and own:
        raise ValueError(f"{own[0]} is an option of --scheduler pipeline: --sweep makes its own pipelines")
    _check_alone(given, sweep, trace, named)
    table = given_delays(trace, profile, workers, seed, slope)
    rule = closing_rule(closing, cutoff=cutoff, mu=mu)
    paid = FREE if price is None else prices(price)
    setting = Setting(table, models, jobs, rule, unfinished, arrival, inexact, objective, paid, places)
    # A sweep stands for itself: it makes its own schemes and pipelines.
    shown: list[Candidate] = ["uncoded", Pipeline()] if sweep else named
    given = {*given, *own}
    said = SchedulerConfig(AUTO, "", closing, cutoff, mu, objective=objective, prices=price or "", inexact=inexact)
    check_candidates([_described(setting, said, one) for one in shown], dict.fromkeys(_options(given), True))
    least = bounds_of(setting) if bounds else []
    tried = candidates(table.workers, models) if sweep else named
    # Only the parameter that the closing rule uses is part of a result.
    of_rounds = {"closing": closing, ("mu" if closing == "mu" else "cutoff"): mu if closing == "mu" else cutoff}
    # Before simulating, which may take minutes.
    if plot is not None:
        check_plot(plot)
    found = [(_tried(_setting_of(setting, one), one), one) for one in tried]
    found = [(result | (of_rounds if "rounds" in result else {}), one) for result, one in found]
    if all("impossible" in result for result, _ in found):
        raise PoolError(f"no candidate gets through: {found[0][0]['scheme']}: {found[0][0]['impossible']}")
    # Stable: of equal candidates the one that was named first is on top.
    found.sort(key=lambda pair: pair[0].get("total_seconds", inf))
    results = [result for result, _ in found]
    if plot is not None:
        # Simulated again, with a timeline: recording one for every candidate would cost more than one more run.
        timeline = Timeline(unfinished)
        simulate(_setting_of(setting, found[0][1]), found[0][1], timeline=timeline)
        draw(plot, results, best_of_families(results), least, timeline.spans())
    return results + least


def _tried(setting: Setting, candidate: Candidate) -> Result:
    """The result of a candidate; "impossible", with the reason, for one that does not get through the delays."""
    try:
        return simulate(setting, candidate)
    except PoolError as error:
        name, of = name_of(candidate), candidate if candidate == AUTO else family(candidate)
        about = {"workers": setting.trace.workers, "models": setting.models, "jobs": setting.jobs}
        return {"scheme": name, "family": of, **about, "unfinished": setting.unfinished, "impossible": str(error)}


def _setting_of(setting: Setting, candidate: Candidate) -> Setting:
    """The setting without what only auto reads, for another candidate."""
    return setting if candidate == AUTO else replace(setting, objective="seconds", prices=FREE, places=0)


def _described(setting: Setting, said: SchedulerConfig, candidate: Candidate) -> Config:
    """The configuration that would train with a candidate; `said` holds what the options say to all of them."""
    if isinstance(candidate, Pipeline):
        own = asdict(candidate) | {"kind": "pipeline"}
    elif candidate == AUTO:
        own = {"kind": AUTO, "places": setting.places}
    else:
        own = {"kind": "rounds", "scheme": candidate}
    pool = PoolConfig("simulated", setting.trace.workers, unfinished=setting.unfinished)
    return placeholder(setting.models, pool=pool, scheduler=replace(said, **own))


def _options(given: Collection[str]) -> list[str]:
    """Names of options of `simulate` as those of `train`; what only `simulate` has is left out."""
    others = {"price": "prices", "schemes": "scheme"}
    names = [others.get(name, name) for name in sorted(given)]
    # These choose, and are checked by _named.
    return [name for name in names if name in OPTIONS and name not in ("scheduler", "scheme", "seed", "workers")]


def _check_alone(given: Collection[str], sweep: bool, trace: Path | None, named: Sequence[Candidate]) -> None:
    """ValueError for options of `simulate` alone that say nothing to the others."""
    if "seed" in given and trace is not None:
        raise ValueError("seed is an option of --profile, whose delays are generated: got --trace")
    if "inexact" in given and sweep:
        raise ValueError("inexact is an option of --scheme: --sweep tries exact schemes only")
    rounds = sweep or any(isinstance(one, str) and one != AUTO and parse_async(one) is None for one in named)
    if "arrival" in given and not rounds:
        raise ValueError("arrival is an option of scheduler='rounds': got no scheme of rounds")


def _named(
    schemes: Sequence[str], pipelines: Sequence[Pipeline], scheduler: str | None, sweep: bool
) -> list[Candidate]:
    """The candidates that options name; none for a sweep. ValueError for options that do not go together."""
    named: list[Candidate] = [*schemes, *pipelines]
    if scheduler == "auto" or (scheduler is None and not named and not sweep):
        named.append(AUTO)
    if sweep and named:
        raise ValueError("--sweep tries every family: it takes no --scheme and no --scheduler")
    if not sweep and not named:
        raise ValueError("--scheduler rounds needs --scheme SCHEME")
    return named


def _pipelines(
    scheduler: str | None,
    parts: Sequence[int],
    copies: Sequence[int],
    lanes: Sequence[int],
    burst: int | None,
    places: int,
) -> list[Pipeline]:
    """Every combination of pipeline settings. ValueError for an unknown scheduler."""
    if scheduler is not None and scheduler not in SCHEDULERS:
        raise ValueError(f"scheduler must be one of {', '.join(SCHEDULERS)}: got {scheduler!r}")
    if scheduler != "pipeline":
        return []
    # The defaults of the config file, so that simulate and train mean the same pipeline.
    usual = SchedulerConfig()
    numbers = product(parts or [usual.parts], copies or [usual.copies], lanes or [usual.lanes])
    return [Pipeline(*one, usual.burst if burst is None else burst, places) for one in numbers]
