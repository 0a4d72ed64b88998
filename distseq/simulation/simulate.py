"""Scheduling without learning: the master and the simulated pool, on jobs that compute nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from distseq.cluster.simulated import ARRIVAL, SimulatedPool
from distseq.cluster.trace import Trace
from distseq.coding.schemes.registry import parse
from distseq.engine.interfaces import JobInput
from distseq.engine.journal import Journal
from distseq.engine.master import Master
from distseq.monitoring.observers import Tally
from distseq.scheduling.adaptive.cost import Question
from distseq.scheduling.adaptive.scheduler import AdaptiveScheduler
from distseq.scheduling.asynchronous import allow, parse_async
from distseq.scheduling.backup import round_scheduler
from distseq.scheduling.closing import Closing
from distseq.scheduling.pipeline import Pipeline
from distseq.scheduling.pipeline_scheduler import PipelineScheduler
from distseq.scheduling.round_scheduler import check_delay
from distseq.scheduling.scheduler import Scheduler
from distseq.simulation.timeline import RecordedScheduler, Timeline

NOTHING = JobInput(np.zeros(0), np.zeros(0, dtype=np.int64))


@dataclass(frozen=True)
class NullLearner:
    """A learner of so many steps that learns nothing."""

    name: str
    steps: int

    def open(self, step: int) -> JobInput:
        return NOTHING

    def apply(self, total: np.ndarray) -> Mapping[str, float]:
        return {}


def simulate(
    trace: Trace,
    scheme: str,
    closing: Closing,
    *,
    models: int,
    jobs: int,
    unfinished: str = "lost",
    arrival: str = "scheme",
    inexact: bool = False,
    journal: Journal | None = None,
    timeline: Timeline | None = None,
) -> dict[str, object]:
    """Seconds of `jobs` jobs of `models` learners under a scheme, on a trace, one worker per column.

    `unfinished` is what an unfinished worker does (distseq.cluster.simulated). `arrival`: rows of a message arrive one by
    one ("row"), all together ("message"), or as the scheme's authors assume ("scheme": only streamed ones one by one).
    Returns the numbers that `distseq simulate --json` prints. ValueError for bad arguments, and for a scheme that is not
    exact unless `inexact`; "async:A" has no rounds.
    """
    stale = parse_async(scheme)
    if stale is not None:
        allow(stale.spec, False, inexact)
        pipeline, ahead = stale.pipeline, stale.A
        result = simulate_pipeline(
            trace,
            pipeline,
            models=models,
            jobs=jobs,
            unfinished=unfinished,
            ahead=ahead,
            journal=journal,
            timeline=timeline,
        )
        return result | {"scheme": stale.spec, "exact": False}
    parsed = parse(scheme, trace.workers)
    allow(parsed.spec, parsed.exact, inexact)
    check_numbers(models, jobs)
    check_delay(parsed, models)
    if arrival not in ("scheme", *ARRIVAL):
        raise ValueError(f"arrival must be one of scheme, {', '.join(ARRIVAL)}: got {arrival!r}")
    if arrival == "scheme":
        arrival = "row" if parsed.streams else "message"
    tally, pool = Tally(), SimulatedPool(trace, unfinished=unfinished, arrival=arrival)
    scheduler = round_scheduler(parsed, closing, late=unfinished != "lost")
    seconds = _seconds(scheduler, pool, models, jobs, journal, tally, timeline)
    own = {
        "scheme": parsed.spec,
        "exact": parsed.exact,
        "load": float(parsed.load),
        "load_fraction": str(parsed.load),
        "delay": parsed.delay,
    }
    of_rounds = {"arrival": arrival, "rounds": tally.rounds, "waits": tally.waits}
    return own | of_rounds | _figures(pool, trace.workers, models, jobs, unfinished, seconds)


def simulate_pipeline(
    trace: Trace,
    pipeline: Pipeline,
    *,
    models: int,
    jobs: int,
    unfinished: str = "lost",
    ahead: int = 1,
    journal: Journal | None = None,
    timeline: Timeline | None = None,
) -> dict[str, object]:
    """As `simulate`, without rounds. A cancelled copy keeps its worker until it ends if `unfinished` is serial, else not.

    `ahead`: jobs of one model that are open at once; more than one is not exact.
    """
    check_numbers(models, jobs)
    pool = SimulatedPool(trace, unfinished=unfinished)
    scheduler = PipelineScheduler(pipeline, trace.workers, frees=unfinished != "serial")
    seconds = _seconds(scheduler, pool, models, jobs, journal, Tally(), timeline, ahead)
    own = {
        "scheme": pipeline.name,
        "exact": ahead == 1,
        "parts": pipeline.parts,
        "copies": pipeline.copies,
        "lanes": pipeline.lanes,
    }
    return own | _figures(pool, trace.workers, models, jobs, unfinished, seconds)


def simulate_auto(
    trace: Trace,
    *,
    question: Question,
    jobs: int,
    places: int = 0,
    journal: Journal | None = None,
    timeline: Timeline | None = None,
) -> dict[str, object]:
    """As `simulate`, scheduled as seems best from what is observed; "choices" are the changes, with what they rest on."""
    check_numbers(question.models, jobs)
    pool, tally = SimulatedPool(trace, unfinished=question.unfinished), Tally()
    scheduler = AdaptiveScheduler(trace.workers, question, places=places)
    seconds = _seconds(scheduler, pool, question.models, jobs, journal, tally, timeline)
    own = {"scheme": "auto", "exact": True, "chosen": scheduler.name, "choices": tally.choices}
    return own | _figures(pool, trace.workers, question.models, jobs, question.unfinished, seconds)


def check_numbers(models: int, jobs: int) -> None:
    """ValueError for no model or no job."""
    if models < 1 or jobs < 1:
        raise ValueError(f"simulate needs at least one model and one job: got models={models}, jobs={jobs}")


def _seconds(
    scheduler: Scheduler,
    pool: SimulatedPool,
    models: int,
    jobs: int,
    journal: Journal | None,
    tally: Tally,
    timeline: Timeline | None,
    ahead: int = 1,
) -> float:
    if timeline is not None:
        scheduler = RecordedScheduler(scheduler, timeline)
    learners = [NullLearner(f"model-{m}", jobs // models + (m < jobs % models)) for m in range(min(models, jobs))]
    return Master(learners, scheduler, pool, journal, [tally], ahead=ahead).run()


def _figures(
    pool: SimulatedPool, workers: int, models: int, jobs: int, unfinished: str, seconds: float
) -> dict[str, object]:
    return {
        "workers": workers,
        "models": models,
        "jobs": jobs,
        "unfinished": unfinished,
        "total_seconds": seconds,
        "seconds_per_job": seconds / jobs,
        "worker_seconds_per_job": pool.worker_seconds() / jobs,  # busy
        "held_seconds_per_job": workers * seconds / jobs,  # from the first dispatch to the last decode, busy or not
    }


Result = dict[str, Any]  # what `distseq simulate --json` prints of a candidate or a bound
