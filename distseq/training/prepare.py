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
from distseq.learners.snapshot import Cut
from distseq.models.data.text import notes
from distseq.monitoring.console import quality, say
from distseq.scheduling.replay import compile_replays
from distseq.scheduling.scheduler import Scheduler
from distseq.training.pool import check_pool


def _say_who_draws(fleet: Fleet, console: Console) -> None:
    """Prints one line for all learners that are cut alike because they draw random numbers."""
    names: dict[Cut, list[str]] = {}
    for one in fleet.learners:
        names.setdefault(one.cut, []).append(one.name)
    for cut, drawing in names.items():
        if cut.blocks:
            how = "computed in one pass" if cut.joint else "each computed by a pass of its own"
            line = f"random numbers are drawn by {', '.join(drawing)}: batches are cut into {cut.blocks} blocks, {how}"
            console.print(line, highlight=False, soft_wrap=True)


def _compared(learners: Sequence[Learner]) -> list[str]:
    """How temporal learners are evaluated, and the baselines on the same events, one line each for all that have it in common."""
    lines: dict[str, list[str]] = {}
    for one in learners:
        found = one.stream_evaluation
        if found is not None:
            lines.setdefault(f"evaluated: {found.described}", []).append(one.name)
            baselines = "; ".join(f"{name} {quality(figures)}" for name, figures in found.baselines.items())
            if baselines:
                lines.setdefault(f"baselines on the same events: {baselines}", []).append(one.name)
    return [f"learner{'s' * (len(names) > 1)} {', '.join(names)}: {line}" for line, names in lines.items()]


def _check_device(config: Config, fleet: Fleet) -> None:
    """ValueError where hosts might draw different numbers for one block, or a learner does not compute on the device."""
    temporal = [one.name for one in fleet.learners if one.memory is not None]
    if temporal and config.pool.device != "cpu":
        raise ValueError(f"learner {temporal[0]}: temporal models compute on the CPU: set device to cpu")
    drawing = [one.name for one in fleet.learners if one.cut.blocks]
    if drawing and config.pool.device == "auto":
        raise ValueError(
            f"learner {drawing[0]} draws random numbers, which differ between CPUs and GPUs: device=auto may mix them, set "
            "device to cpu or cuda"
        )


def _warn_of_empty_parts(learners: Sequence[Learner], own: Strategy, console: Console) -> None:
    """Prints one warning if some batches have fewer samples than parts: workers then start up for nothing."""
    cut = layout(own.scheme.spec, own.scheme.n)
    empty = {one.name: cut.empty_parts(one.batch, one.cut.blocks) for one in learners}
    if any(empty.values()):
        parts = ", ".join(f"{name} {count}" for name, count in empty.items() if count)
        say(console, f"warning: batches smaller than the number of parts of {own.name} leave parts empty: {parts}")


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
    tried: tuple[str, ...]  # what is said of the trial of the learners, line by line

    @property
    def steps(self) -> dict[str, int]:
        """Learner -> total steps."""
        return {learner.name: learner.steps for learner in self.fleet.learners}


def prepare_run(
    config: Config, out: Path, console: Console, resume: bool, learners: Sequence[Learner] | None
) -> PreparedRun:
    """Builds the parts of a run from a checked configuration; with `resume`, from the newest checkpoint in the folder `out`.

    ValueError or FloatingPointError, with nothing written, for anything that is wrong. What is cheap comes first: building a
    fleet opens its data.
    """
    scheduling = strategy(config)
    trace = delays(config.pool.delays, config.pool.workers, config.run.seed)
    # A run that is resumed may be complete, and then needs no pool.
    if not resume:
        check_pool(config.pool)
    fleet = build_fleet(config) if learners is None else fleet_of_learners(config, learners)
    tried = (*fleet.tried(), *_compared(fleet.learners))
    if config.run.evaluate_every and not any(fleet.evaluated):
        raise ValueError(
            f"evaluate_every={config.run.evaluate_every} is given, but no learner has data to evaluate on: give evaluation"
        )
    _check_device(config, fleet)
    scheduling = scheduling.within_blocks({one.name: one.cut.blocks for one in fleet.learners if one.cut.blocks})
    # The largest model decides what a message costs at most.
    scheduler = scheduling.scheduler(max(len(learner.publish()) for learner in fleet.learners))
    # The first replay on a machine compiles for seconds: better now than while workers wait.
    if scheduling.adaptive:
        with console.status("preparing replays, which are compiled the first time on this machine"):
            compile_replays()
    _say_who_draws(fleet, console)
    _warn_of_empty_parts(fleet.learners, scheduling, console)
    for line in dict.fromkeys(
        note for one in fleet.learners for data in (one.data, one.evaluation) for note in notes(data)
    ):
        console.print(f"note: {line}", markup=False, highlight=False)
    own = identity(config, fleet.description)
    # Last, because it restores the learners: nothing may fail after it.
    point = resumed(out, own, fleet, console) if resume else ResumePoint((0,) * len(fleet.learners))
    return PreparedRun(config, scheduling, scheduler, trace, fleet, own, point, tried)
