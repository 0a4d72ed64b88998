"""From the [scheduler] of a job to what schedules it."""

from distseq.coding.scheme import Scheme
from distseq.coding.schemes import parse
from distseq.config import Config
from distseq.scheduling.backup import round_scheduler
from distseq.scheduling.closing import closing_rule
from distseq.scheduling.pipeline import Pipeline, PipelineScheduler
from distseq.scheduling.scheduler import Scheduler


def pipeline_of(config: Config) -> Pipeline | None:
    """None for a job in rounds."""
    own = config.scheduler
    return Pipeline(own.parts, own.copies, own.lanes) if own.kind == "pipeline" else None


def scheme_of(config: Config) -> Scheme:
    """How a job's batches are laid out at first. ValueError for a wrong specification."""
    pipeline, n = pipeline_of(config), config.pool.workers
    return parse(config.scheduler.scheme, n) if pipeline is None else pipeline.scheme(n)


def scheduler_of(config: Config) -> Scheduler:
    """ValueError when the numbers of the scheme, the closing rule or the pipeline are wrong."""
    own, pipeline, simulated = config.scheduler, pipeline_of(config), config.pool.kind == "simulated"
    if pipeline is not None:
        return PipelineScheduler(pipeline, config.pool.workers, frees=simulated and config.pool.unfinished != "serial")
    closing = closing_rule(own.closing, cutoff=own.cutoff, mu=own.mu)
    return round_scheduler(scheme_of(config), closing, late=not (simulated and config.pool.unfinished == "lost"))


def name_of(config: Config) -> str:
    """What figures of the job are headed with."""
    pipeline = pipeline_of(config)
    return config.scheduler.scheme if pipeline is None else pipeline.name
