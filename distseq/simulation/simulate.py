"""`distseq.simulate`: the master, a scheduler and the simulated pool, on jobs that compute nothing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from distseq.cluster.simulated import ARRIVAL, UNFINISHED, SimulatedPool
from distseq.cluster.trace import Trace
from distseq.coding.schemes.registry import parse
from distseq.coding.schemes.scheme import Scheme
from distseq.engine.interfaces import JobInput
from distseq.engine.journal import Journal
from distseq.engine.master import Master
from distseq.monitoring.observers import Tally
from distseq.scheduling.adaptive.candidates import Candidate, family, name_of
from distseq.scheduling.adaptive.cost import FREE, Prices, Question
from distseq.scheduling.adaptive.scheduler import AdaptiveScheduler
from distseq.scheduling.asynchronous import AsyncTraining, allow, parse_async
from distseq.scheduling.backup import round_scheduler
from distseq.scheduling.closing import Closing, Safe
from distseq.scheduling.pipeline import Pipeline
from distseq.scheduling.pipeline_scheduler import PipelineScheduler
from distseq.scheduling.round_scheduler import check_delay
from distseq.scheduling.scheduler import Scheduler
from distseq.simulation.timeline import RecordedScheduler, Timeline

AUTO = "auto"
MODELS, JOBS = 16_384, 1_000_000_000  # more are typing errors
NOTHING = JobInput(np.zeros(0), np.zeros(0, dtype=np.int64))
Result = dict[str, Any]  # what `distseq simulate --json` prints of a candidate or a bound


@dataclass(frozen=True)
class NullLearner:
    """A learner without parameters that learns nothing in `steps` steps."""

    name: str
    steps: int

    def open(self, step: int) -> JobInput:
        return NOTHING

    def cut_in_blocks(self, parts: int) -> int:
        raise ValueError("it has no batch that could be cut into blocks")

    def apply(self, total: np.ndarray) -> Mapping[str, float]:
        return {}


@dataclass(frozen=True, eq=False)
class Setting:
    """The setting in which candidates are simulated: delays, jobs, and how workers and messages behave.

    trace: delays, a column for each worker (distseq.cluster.trace.load_trace, distseq.cluster.profiles.profile).
    models, jobs: learners, and gradients of all of them together; a learner has one job open at a time.
    closing: when a round may end (Safe or Mu of distseq.scheduling.closing). Pipelines have no rounds.
    unfinished: what a worker does with unfinished work when it is sent more: "lost", "overlap" or "serial"
        (distseq.cluster.simulated).
    arrival: the rows of a message arrive one by one ("row"), with its last ("message"), or as the scheme's authors assume
        ("scheme": one by one where the scheme streams).
    inexact: allow schemes that change the gradients, ksync and async.
    objective, prices: what "auto" minimizes: "seconds", "worker-seconds", or "price", which needs prices.
    places: for "auto": workers that hold the data of each part, if data cannot move; 0 = all.

    One setting may be that of several candidates: what only rounds read (closing, arrival) may be set for all of them. ValueError
    for numbers out of range and unknown names.

    >>> from distseq.cluster.profiles import profile
    >>> Setting(profile("bursts", 32, seed=0), models=2, jobs=10).trace.workers
    32
    """

    trace: Trace
    models: int = 4
    jobs: int = 80
    closing: Closing = field(default_factory=Safe)
    unfinished: str = "lost"
    arrival: str = "scheme"
    inexact: bool = False
    objective: str = "seconds"
    prices: Prices = FREE
    places: int = 0

    def __post_init__(self) -> None:
        if self.models < 1 or self.jobs < 1:
            raise ValueError(
                f"simulate needs at least one model and one job: got models={self.models}, jobs={self.jobs}"
            )
        if self.models > MODELS or self.jobs > JOBS:
            raise ValueError(
                f"simulate takes at most {MODELS} models and {JOBS} jobs: got models={self.models}, jobs={self.jobs}"
            )
        for name, known in (("unfinished", UNFINISHED), ("arrival", ("scheme", *ARRIVAL))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}: got {getattr(self, name)!r}")
        if not 0 <= self.places <= self.trace.workers:
            raise ValueError(
                f"places must be at least 0 and at most the number of workers: got places={self.places}, "
                f"workers={self.trace.workers}"
            )
        _ = self.question

    @property
    def question(self) -> Question:
        """By which "auto" compares candidates. ValueError for an unknown objective, or one that needs prices."""
        return Question(self.models, self.unfinished, objective=self.objective, prices=self.prices)


@dataclass(frozen=True)
class _Simulated:
    """A candidate's scheduler, and a function that returns the figures that only this kind of candidate has."""

    scheduler: Scheduler
    figures: Callable[[Tally], Result]
    arrival: str = "row"
    ahead: int = 1  # jobs of one model that are open at once


def simulate(
    setting: Setting, candidate: Candidate, *, journal: Journal | None = None, timeline: Timeline | None = None
) -> Result:
    """Simulates one candidate in virtual time; nothing is trained, and equal calls give equal results.

    candidate: a scheme's specification ("gc:7", "async:2,parts=8", or "module:Class:1" for one of your own), a
        distseq.scheduling.pipeline.Pipeline, or "auto" for adaptive scheduling.
    journal: records every round, job and arrival (distseq.engine.journal).
    timeline: records what each worker did when (distseq.simulation.timeline).

    Returns what `distseq simulate --json` prints: "scheme", "exact", "family"; "total_seconds" and "seconds_per_job";
    "worker_seconds_per_job" (busy) and "held_seconds_per_job" (busy or not, from the first message to the last decode); for
    rounds also "rounds", "waits", "load" (fraction of a batch per worker and round) and "delay"; for auto "choices". ValueError
    for a candidate that the setting does not allow: a wrong specification, an inexact scheme, or a delay that needs more models.
    PoolError when a message is lost again and again.

    >>> from distseq.cluster.profiles import profile
    >>> setting = Setting(profile("bursts", 32, seed=0), models=4, jobs=40)
    >>> simulate(setting, "gc:3")["seconds_per_job"] < simulate(setting, "uncoded")["seconds_per_job"]
    True
    """
    one = _prepared(setting, candidate)
    pool, tally = SimulatedPool(setting.trace, unfinished=setting.unfinished, arrival=one.arrival), Tally()
    scheduler = one.scheduler if timeline is None else RecordedScheduler(one.scheduler, timeline)
    models, jobs, workers = setting.models, setting.jobs, setting.trace.workers
    # Jobs are dealt out evenly; fewer jobs than models leave some models without any.
    learners = [NullLearner(f"model-{m}", jobs // models + (m < jobs % models)) for m in range(min(models, jobs))]
    seconds = Master(learners, scheduler, pool, journal, [tally], ahead=one.ahead).run()
    return {
        "family": candidate if candidate == AUTO else family(candidate),
        **one.figures(tally),
        "workers": workers,
        "models": models,
        "jobs": jobs,
        "unfinished": setting.unfinished,
        "total_seconds": seconds,
        "seconds_per_job": seconds / jobs,
        "worker_seconds_per_job": pool.worker_seconds() / jobs,  # busy
        "held_seconds_per_job": workers * seconds / jobs,  # from the first dispatch to the last decode, busy or not
    }


def _prepared(setting: Setting, candidate: Candidate) -> _Simulated:
    """Builds a candidate's scheduler. ValueError for a candidate that the setting does not allow."""
    if candidate == AUTO:
        return _adaptive(setting)
    for name, usual in (("objective", "seconds"), ("prices", FREE), ("places", 0)):
        if getattr(setting, name) != usual:
            own = "; a pipeline has places of its own" if name == "places" else ""
            raise ValueError(f"{name} of a setting is an option of 'auto': got candidate {name_of(candidate)!r}{own}")
    if isinstance(candidate, Pipeline):
        return _pipelined(setting, candidate)
    stale = parse_async(candidate)
    return _in_rounds(setting, parse(candidate, setting.trace.workers)) if stale is None else _stale(setting, stale)


def _in_rounds(setting: Setting, scheme: Scheme) -> _Simulated:
    allow(scheme.spec, scheme.exact, setting.inexact)
    check_delay(scheme, setting.models)
    arrival = setting.arrival
    if arrival == "scheme":
        # A message that never holds more than one row streams nothing.
        several = len(scheme.tolerance) > 1 or scheme.delay > 0
        arrival = "row" if scheme.streams and several else "message"
    own = {
        "scheme": scheme.spec,
        "exact": scheme.exact,
        "load": float(scheme.load),
        "load_fraction": str(scheme.load),
        "delay": scheme.delay,
        "arrival": arrival,
    }
    scheduler = round_scheduler(scheme, setting.closing, late=setting.unfinished != "lost")
    return _Simulated(scheduler, lambda tally: {**own, "rounds": tally.rounds, "waits": tally.waits}, arrival)


def _pipelined(setting: Setting, pipeline: Pipeline) -> _Simulated:
    # Under "serial" a cancelled copy keeps its worker busy until it ends.
    scheduler = PipelineScheduler(pipeline, setting.trace.workers, frees=setting.unfinished != "serial")
    own = {"scheme": pipeline.name, "exact": True}
    own |= {"parts": pipeline.parts, "copies": pipeline.copies, "lanes": pipeline.lanes}
    return _Simulated(scheduler, lambda _: own)


def _stale(setting: Setting, stale: AsyncTraining) -> _Simulated:
    allow(stale.spec, False, setting.inexact)
    one = _pipelined(setting, stale.pipeline)
    own = {"scheme": stale.spec, "exact": False}
    return _Simulated(one.scheduler, lambda tally: one.figures(tally) | own, ahead=stale.A)


def _adaptive(setting: Setting) -> _Simulated:
    scheduler = AdaptiveScheduler(setting.trace.workers, setting.question, places=setting.places)
    return _Simulated(
        scheduler,
        lambda tally: {"scheme": AUTO, "exact": True, "chosen": scheduler.name, "choices": list(tally.choices)},
    )
