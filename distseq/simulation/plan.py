"""`distseq.plan`: predicts the cost of every way of scheduling on given delays, and which is best."""

from pathlib import Path
from typing import Any

import numpy as np

from distseq.cluster.trace import Trace
from distseq.config.check import check
from distseq.config.keys import LARGEST
from distseq.config.strategy import strategy
from distseq.config.toml_file import load_config
from distseq.scheduling.adaptive.candidates import candidates
from distseq.scheduling.adaptive.cost import FREE, Estimate, Question, estimate
from distseq.scheduling.adaptive.cost import prices as prices_of
from distseq.scheduling.adaptive.rare_events import RareEvents
from distseq.scheduling.adaptive.scheduler import described
from distseq.scheduling.adaptive.search import select
from distseq.scheduling.pipeline import Pipeline
from distseq.simulation.delays import given_delays
from distseq.simulation.simulate import MODELS


def plan(
    config: Path | str | None = None,
    *,
    trace: Trace | Path | str | None = None,
    profile: str | None = None,
    run: Path | str | None = None,
    slope: float | None = None,
    workers: int | None = None,
    models: int | None = None,
    batch: int | None = None,
    parameters: int = 0,
    unfinished: str | None = None,
    objective: str | None = None,
    prices: str | None = None,
    seed: int | None = None,
) -> dict[str, Any]:
    """Predicts what each way of scheduling takes on given delays: the best of every family, best first.

    config: config file whose learners, workers, batches and scheduler are used unless an argument replaces them.
    trace, profile, run: the delays: a trace or its file, "NAME[:base=SECONDS]", or a run folder; one of them, or by default
        the config file's. `seed` is that of a profile (default: the config file's, or 0), `slope` replaces the trace's seconds
        of compute per batch.
    workers: use the first N of the trace; by default the config file's, or all of the trace; 256 for a profile.
    models: number of learners (default 4). batch: samples per job, the maximum number of its parts.
    parameters: number of parameters of a model; 0: bytes are unknown.
    unfinished: what a worker does with unfinished work: "lost", "overlap" or "serial" (default).
    objective: what to minimize per job: "seconds" (default), "worker-seconds" or "price". prices: "KEY=DOLLARS,..." with keys
        worker_second, held_second, message and gigabyte.

    Returns what `distseq plan --json` prints: "chosen", what `auto` would choose; "candidates", each with "family", "seconds"
    and "worker_seconds" per job; "evidence", the start-ups that the prediction is made from. ValueError for an argument out of
    range, and for a trace with a worker that never answers.

    >>> found = plan(profile="half-slow", workers=8, models=4)
    >>> found["chosen"] == found["candidates"][0]["candidate"]
    True
    """
    if seed is not None and (trace is not None or run is not None):
        raise ValueError("seed is an option of a profile, whose delays are generated: got a trace or a run")
    asked, own_workers, own_batch, own_seed = Question(4), None, None, 0
    if config is not None:
        own = load_config(Path(config))
        check(own)
        own_seed = own.run.seed
        described_by = strategy(own)
        asked, own_workers, own_batch = described_by.question, own.pool.workers, described_by.batch
        if trace is None and profile is None and run is None:
            profile = own.pool.delays
    question = Question(
        asked.models if models is None else models,
        asked.unfinished if unfinished is None else unfinished,
        numbers=parameters,
        objective=asked.objective if objective is None else objective,
        prices=asked.prices if prices is None else prices_of(prices),
    )
    numbers = (
        ("models", question.models, 1, MODELS),
        ("batch", batch, 1, LARGEST),
        ("parameters", parameters, 0, LARGEST),
    )
    for name, value, least, most in numbers:
        if value is not None and value < least:
            raise ValueError(f"plan needs {name} >= {least}: got {value}")
        if value is not None and value > most:
            raise ValueError(f"plan takes {name} <= {most}: got {value}")
    seed = own_seed if seed is None else seed
    table = given_delays(trace, profile, own_workers if workers is None else workers, seed, slope, run)
    return _ranked(table, question, own_batch if batch is None else batch)


def _ranked(trace: Trace, question: Question, batch: int | None) -> dict[str, Any]:
    """The best of every family, with the expected number of rare events. ValueError if a worker never answers."""
    rare_events, startups = RareEvents(), trace.startups()
    if not np.isfinite(startups).any(axis=0).all():
        raise ValueError(
            "a plan needs at least one start-up time of each worker: some worker's messages are all lost in the trace"
        )
    for seconds in startups[np.isfinite(startups)]:
        rare_events.add(float(seconds))
    # A short trace hardly ever shows the rare start-ups that decide a long run.
    expected = Trace(rare_events.expected_in(startups), 0.0, trace.slope, trace.master)
    grid = candidates(trace.workers, question.models, batch)
    most = trace.workers if batch is None else min(trace.workers, batch)
    best: dict[str, Estimate] = {}
    for one in grid:
        if not isinstance(one, Pipeline):
            # Short estimates suffice to choose within a family of rounds, which repeat each other.
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
        "evidence": described(trace) | {"events": rare_events.events, "events_per_invocation": rare_events.rate},
        "chosen": ranking[0].name,
        "candidates": [_row(one, question) for one in ranking],
    }


def _row(one: Estimate, question: Question) -> dict[str, Any]:
    """Bytes where it is known how many numbers a row has, dollars where there are prices."""
    row = {"family": one.family, "candidate": one.name, "seconds": one.seconds, "worker_seconds": one.worker_seconds}
    row |= {"bytes": one.bytes} if question.numbers else {}
    return row | ({"dollars": one.dollars} if question.prices != FREE else {})
