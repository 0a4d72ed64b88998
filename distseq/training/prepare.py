"""Turns a configuration into a prepared run: learners, delays, scheduler and starting point."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from distseq.artifacts.checkpoint import identity
from distseq.artifacts.resume import ResumePoint, resumed
from distseq.cluster.profiles import delays
from distseq.cluster.trace import Trace
from distseq.coding.layout import layout
from distseq.config.schema import Config
from distseq.config.strategy import Strategy, strategy
from distseq.learners.fleet import Fleet
from distseq.learners.from_config import build_fleet
from distseq.learners.from_python import fleet_of_learners
from distseq.learners.learner import Learner
from distseq.scheduling.replay import compile_replays
from distseq.scheduling.scheduler import Scheduler


def _warn_of_empty_parts(config: Config, own: Strategy, console: Console) -> None:
    """Prints one warning if some batches have fewer samples than parts: workers then start up for nothing."""
    cut = layout(own.scheme.spec, own.scheme.n)
    empty = {one.name: cut.empty_parts(one.batch) for one in config.learner}
    if any(empty.values()):
        parts = ", ".join(f"{name} {count}" for name, count in empty.items() if count)
        console.print(f"warning: batches smaller than the number of parts of {own.name} leave parts empty: {parts}")


@dataclass(frozen=True)
class PreparedRun:
    """Everything about a run that can be wrong, checked and built before anything is written or started."""

    config: Config
    strategy: Strategy
    scheduler: Scheduler
    trace: Trace  # delays to inject or to simulate
    fleet: Fleet
    identity: str  # what a checkpoint of this run must match
    resume_point: ResumePoint

    @property
    def steps(self) -> dict[str, int]:
        """Learner -> total steps."""
        return {learner.name: learner.steps for learner in self.fleet.learners}


def prepare_run(
    config: Config, out: Path, console: Console, resume: bool, learners: Sequence[Learner] | None
) -> PreparedRun:
    """Checks a configuration and builds the parts of its run; with `resume`, from the newest checkpoint in the folder `out`.

    ValueError or FloatingPointError, with nothing written, for anything that is wrong. The cheap checks come first: building a
    fleet opens its data.
    """
    scheduling = strategy(config)
    trace = delays(config.pool.delays, config.pool.workers, config.run.seed)
    scheduling.check(config.run.dtype, elastic=config.pool.elastic)
    fleet = build_fleet(config) if learners is None else fleet_of_learners(config, learners)
    # The largest model decides what a message costs at most.
    scheduler = scheduling.scheduler(max(len(learner.publish()) for learner in fleet.learners))
    # The first replay on a machine compiles for seconds: better now than while workers wait.
    if scheduling.adaptive:
        with console.status("preparing replays, which are compiled the first time on this machine"):
            compile_replays()
    _warn_of_empty_parts(config, scheduling, console)
    own = identity(config, fleet.description)
    # Last, because it restores the learners: nothing may fail after it.
    point = resumed(out, own, fleet, console) if resume else ResumePoint((0,) * len(fleet.learners))
    return PreparedRun(config, scheduling, scheduler, trace, fleet, own, point)
