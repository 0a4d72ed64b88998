"""`distseq plan`: what is known of the workers, what each way of scheduling would take, and which is best."""

from pathlib import Path
from typing import Any

import numpy as np

from distseq.cluster.trace import Trace
from distseq.config.strategy import strategy
from distseq.config.toml_file import load_config
from distseq.scheduling.adaptive.candidates import candidates
from distseq.scheduling.adaptive.cost import FREE, Estimate, Question, estimate, prices
from distseq.scheduling.adaptive.rare_events import RareEvents
from distseq.scheduling.adaptive.scheduler import described
from distseq.scheduling.adaptive.search import select
from distseq.scheduling.pipeline import Pipeline
from distseq.simulation.delays import given_delays


def plan(
    *,
    job: Path | None,
    trace: Path | None,
    profile: str | None,
    run: Path | None,
    slope: float | None,
    workers: int | None,
    models: int | None,
    batch: int | None,
    parameters: int,
    unfinished: str | None,
    objective: str | None,
    price: str | None,
    seed: int,
) -> dict[str, Any]:
    """What `distseq plan --json` prints. Options replace what the config file says; ValueError for what cannot be."""
    asked, own_workers, own_batch = Question(4), None, None
    if job is not None:
        config = load_config(job)
        own = strategy(config)
        asked, own_workers, own_batch = own.question, own.scheme.n, own.batch
        if trace is None and profile is None and run is None:
            profile = config.pool.delays
    question = Question(
        asked.models if models is None else models,
        unfinished or asked.unfinished,
        numbers=parameters,
        objective=objective or asked.objective,
        prices=asked.prices if price is None else prices(price),
    )
    if question.models < 1 or parameters < 0:
        raise ValueError(f"plan needs models >= 1 and parameters >= 0: got {question.models} and {parameters}")
    table = given_delays(trace, profile, workers or own_workers, seed, slope, run)
    return planned(table, question, batch or own_batch)


def planned(trace: Trace, question: Question, batch: int | None = None) -> dict[str, Any]:
    """The best of every family on the trace, with as many rare events as are to be expected, best first.

    ValueError where a worker never answers.
    """
    tail, startups = RareEvents(), trace.startups()
    if not np.isfinite(startups).any(axis=0).all():
        raise ValueError(
            "a plan needs a start-up of every worker: the trace has a worker whose invocations are all lost"
        )
    for seconds in startups[np.isfinite(startups)]:
        tail.add(float(seconds))
    expected = Trace(tail.expected_in(startups), 0.0, trace.slope, trace.master)
    grid = candidates(trace.workers, question.models, batch)
    most = trace.workers if batch is None else min(trace.workers, batch)
    best: dict[str, Estimate] = {}
    for one in grid:
        if not isinstance(one, Pipeline):
            found = estimate(expected, one, question, long=False)
            if found.family not in best or found.value < best[found.family].value:
                best[found.family] = found
    looked = [estimate(expected, one.candidate, question, long=True) for one in best.values()]
    pipelines = [one for one in grid if isinstance(one, Pipeline)]
    of_pipelines = [*select(expected, pipelines, question, most), estimate(expected, Pipeline(), question, long=True)]
    for pipeline in of_pipelines:
        if pipeline.family not in {found.family for found in looked}:
            looked.append(pipeline)
    ranking = sorted(looked, key=lambda one: (one.value, one.worker_seconds))
    return {
        "workers": trace.workers,
        "models": question.models,
        "unfinished": question.unfinished,
        "objective": question.objective,
        "evidence": described(trace) | {"events": tail.events, "events_per_invocation": tail.rate},
        "chosen": ranking[0].name,
        "candidates": [_row(one, question) for one in ranking],
    }


def _row(one: Estimate, question: Question) -> dict[str, Any]:
    """Bytes where it is known how many numbers a row has, dollars where there are prices."""
    row = {"family": one.family, "candidate": one.name, "seconds": one.seconds, "worker_seconds": one.worker_seconds}
    row |= {"bytes": one.bytes} if question.numbers else {}
    return row | ({"dollars": one.dollars} if question.prices != FREE else {})
