"""Builds the scheduling strategy described by the `[scheduler]` table, once for a whole run."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from distseq.coding.codes.gradient_code import OF_ONE_DECODE
from distseq.coding.codes.registry import check_precision
from distseq.coding.layout import check_parts, layout
from distseq.coding.schemes.registry import parse
from distseq.coding.schemes.scheme import Scheme
from distseq.config.schema import Config
from distseq.scheduling.adaptive.candidates import Candidate
from distseq.scheduling.adaptive.cost import FREE, Question, prices
from distseq.scheduling.adaptive.scheduler import AdaptiveScheduler, first_pipeline
from distseq.scheduling.asynchronous import AsyncTraining, allow, marked, parse_async
from distseq.scheduling.backup import round_scheduler
from distseq.scheduling.closing import Closing, closing_rule
from distseq.scheduling.pipeline import Pipeline
from distseq.scheduling.pipeline_scheduler import PipelineScheduler
from distseq.scheduling.round_scheduler import check_delay
from distseq.scheduling.scheduler import Scheduler


@dataclass(frozen=True)
class Strategy:
    """How the jobs of a run are scheduled. (The word schedule is kept for learning rates.)

    Example: strategy(load_config("examples/main.toml")).scheme.delay
    """

    name: str  # label of the run in tables and records
    exact: bool  # every step uses the full batch's gradient at the current parameters
    adaptive: bool  # candidates are selected during the run; scheme and pipeline are those it begins with
    scheme: Scheme  # lays the batches out over the workers
    pipeline: Pipeline | None  # None: jobs are done in rounds
    closing: Closing  # when a round ends
    ahead: int  # jobs of one learner that are open at once
    unfinished: str  # what happens to unfinished work (distseq.cluster.simulated)
    batch: int  # samples of the smallest batch
    places: int  # workers that hold the data of a part; 0 = all
    most: float  # amplification of rounding errors up to which a decode is used
    question: Question  # the setting and objective by which adaptive scheduling compares candidates

    @property
    def heading(self) -> str:
        """The name, followed by "(not exact)" if gradients are not."""
        return marked(self.name, self.exact)

    @property
    def candidate(self) -> Candidate:
        """The candidate with which `simulate` schedules in the same way."""
        if self.pipeline is None:
            return self.scheme.spec
        # "auto" and "async:A" begin with a pipeline and are candidates by their own names.
        return self.pipeline if self.name == self.pipeline.name else self.name

    def scheduler(self, numbers: int = 0) -> Scheduler:
        """A new scheduler. `numbers`: numbers in a row, which is the largest model's parameters, to price bytes."""
        n, frees = self.scheme.n, self.unfinished != "serial"
        if self.adaptive:
            question = replace(self.question, numbers=numbers)
            return AdaptiveScheduler(n, question, batch=self.batch, places=self.places)
        if self.pipeline is not None:
            return PipelineScheduler(self.pipeline, n, frees=frees)
        return round_scheduler(self.scheme, self.closing, late=self.unfinished != "lost", most=self.most)

    def within_blocks(self, blocks: Mapping[str, int]) -> "Strategy":
        """The strategy for learners that draw random numbers, whose parts are whole blocks; blocks: of each such learner.

        Under adaptive scheduling jobs get at most as many parts. ValueError, naming the learner, for a scheme of more parts.
        """
        most = min(self.batch, *blocks.values()) if blocks else self.batch
        if self.adaptive and most < self.batch:
            n = self.scheme.n
            pipeline = first_pipeline(n, self.question.models, most, self.places)
            return replace(self, batch=most, pipeline=pipeline, scheme=pipeline.scheme(n))
        for name, count in blocks.items():
            check_parts(f"learner {name}: ", count, layout(self.scheme.spec, self.scheme.n).parts)
        return self

    def check(self, dtype: str, *, elastic: bool = False) -> None:
        """ValueError if the scheme's delay is too long for the number of models, or its code too imprecise for the dtype.

        elastic: check it for every number of workers up to all of them.
        """
        n = self.scheme.n
        for scheme in [self.scheme.on(k) for k in range(1, n + 1)] if elastic else [self.scheme]:
            check_delay(scheme, self.question.models)
            for code in set(scheme.codes):
                check_precision(code, np.dtype(dtype))


def strategy(config: Config) -> Strategy:
    """The strategy that a configuration describes.

    ValueError for numbers that a scheme, closing rule or pipeline cannot have, and for training that is not exact where the
    configuration does not allow it.
    """
    own, n = config.scheduler, config.pool.workers
    stale = parse_async(own.scheme) if own.kind == "rounds" else None
    batch = min(one.batch for one in config.learner)
    pipeline = _pipeline(config, stale, batch)
    scheme = parse(own.scheme, n) if pipeline is None else pipeline.scheme(n)
    name, exact = _name(config, stale, pipeline), scheme.exact and stale is None
    # Here, so that every command that reads a config file refuses it alike.
    allow(name, exact, own.inexact)
    # A real worker is a process, which does one thing after another.
    unfinished = config.pool.unfinished if config.pool.kind == "simulated" else "serial"
    paid = prices(own.prices) if own.prices else FREE
    return Strategy(
        name=name,
        exact=exact,
        adaptive=own.kind == "auto",
        scheme=scheme,
        pipeline=pipeline,
        closing=closing_rule(own.closing, cutoff=own.cutoff, mu=own.mu),
        ahead=1 if stale is None else stale.A,
        unfinished=unfinished,
        batch=batch,
        places=own.places,
        most=OF_ONE_DECODE / float(np.finfo(config.run.dtype).eps),
        question=Question(len(config.learner), unfinished, objective=own.objective, prices=paid),
    )


def _pipeline(config: Config, stale: AsyncTraining | None, batch: int) -> Pipeline | None:
    """The pipeline that a run begins with; None for rounds."""
    own = config.scheduler
    if own.kind == "pipeline":
        return Pipeline(own.parts, own.copies, own.lanes, own.burst, own.places)
    if own.kind == "auto":
        return first_pipeline(config.pool.workers, len(config.learner), batch, own.places)
    return None if stale is None else stale.pipeline


def _name(config: Config, stale: AsyncTraining | None, pipeline: Pipeline | None) -> str:
    if config.scheduler.kind == "auto":
        return "auto"
    if stale is not None:
        return stale.spec
    return config.scheduler.scheme if pipeline is None else pipeline.name
