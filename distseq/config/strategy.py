"""From the [scheduler] of a job to what schedules it."""

import numpy as np

from distseq.coding.codes.registry import check_precision
from distseq.coding.schemes.registry import parse
from distseq.coding.schemes.scheme import Scheme
from distseq.config.schema import Config
from distseq.scheduling.adaptive.cost import Prices, Question, prices
from distseq.scheduling.adaptive.scheduler import AdaptiveScheduler, first_pipeline
from distseq.scheduling.asynchronous import AsyncTraining, allow, parse_async
from distseq.scheduling.backup import round_scheduler
from distseq.scheduling.closing import closing_rule
from distseq.scheduling.pipeline import Pipeline
from distseq.scheduling.pipeline_scheduler import PipelineScheduler
from distseq.scheduling.round_scheduler import check_delay
from distseq.scheduling.scheduler import Scheduler


def pipeline_of(config: Config) -> Pipeline | None:
    """What it begins with, if that is a pipeline; None for a job in rounds."""
    own, stale = config.scheduler, _stale_of(config)
    if own.kind == "pipeline":
        return Pipeline(own.parts, own.copies, own.lanes, own.burst, own.places)
    if own.kind == "auto":
        return first_pipeline(config.pool.workers, len(config.learner), smallest_batch(config), own.places)
    return None if stale is None else stale.pipeline


def _stale_of(config: Config) -> AsyncTraining | None:
    return parse_async(config.scheduler.scheme) if config.scheduler.kind == "rounds" else None


def ahead_of(config: Config) -> int:
    """How many jobs of one learner are open at once."""
    stale = _stale_of(config)
    return 1 if stale is None else stale.A


def exact_of(config: Config) -> bool:
    """Whether every step uses the full batch's gradient at the parameters before it."""
    return _stale_of(config) is None and scheme_of(config).exact


def scheme_of(config: Config) -> Scheme:
    """How a job's batches are laid out at first. ValueError for a wrong specification, or one that is not exact and not
    asked for."""
    pipeline, n = pipeline_of(config), config.pool.workers
    scheme = parse(config.scheduler.scheme, n) if pipeline is None else pipeline.scheme(n)
    allow(name_of(config), scheme.exact and _stale_of(config) is None, config.scheduler.inexact)
    return scheme


def smallest_batch(config: Config) -> int:
    return min(one.batch for one in config.learner)


def unfinished_of(config: Config) -> str:
    """What an unfinished worker does; a real one is a process."""
    return config.pool.unfinished if config.pool.kind == "simulated" else "serial"


def question_of(config: Config, numbers: int = 0) -> Question:
    """What adaptive scheduling asks of every candidate; `numbers` in a row."""
    own = config.scheduler
    paid = prices(own.prices) if own.prices else Prices()
    return Question(len(config.learner), unfinished_of(config), numbers=numbers, objective=own.objective, prices=paid)


def scheduler_of(config: Config, numbers: int = 0) -> Scheduler:
    """`numbers`: in a row. ValueError when the numbers of the scheme, the closing rule or the pipeline are wrong."""
    own, n, unfinished = config.scheduler, config.pool.workers, unfinished_of(config)
    if own.kind == "auto":
        question = question_of(config, numbers)
        return AdaptiveScheduler(n, question, batch=smallest_batch(config), places=own.places)
    pipeline = pipeline_of(config)
    if pipeline is not None:
        return PipelineScheduler(pipeline, n, frees=unfinished != "serial")
    closing = closing_rule(own.closing, cutoff=own.cutoff, mu=own.mu)
    return round_scheduler(scheme_of(config), closing, late=unfinished != "lost")


def name_of(config: Config) -> str:
    """What figures of the job are headed with."""
    pipeline, stale = pipeline_of(config), _stale_of(config)
    if stale is not None or config.scheduler.kind == "auto":
        return "auto" if stale is None else stale.spec
    return config.scheduler.scheme if pipeline is None else pipeline.name


def check_scheme(scheme: Scheme, models: int, dtype: str) -> None:
    """ValueError when the scheme's delay is too long for so many models, or its code too imprecise for rows of the dtype."""
    check_delay(scheme, models)
    for code in set(scheme.codes):
        check_precision(code, np.dtype(dtype))
