"""Finds the checkpoint that a run is resumed from, checks that it fits, and restores the learners."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from distseq.artifacts.checkpoint import Checkpoint, newest
from distseq.config.schema import Config
from distseq.engine.journal import RunHistory, read_journal, run_history
from distseq.learners.fleet import Fleet

NO_HISTORY = RunHistory((), 0, 0, 0.0)


@dataclass(frozen=True)
class ResumePoint:
    """The state in which a run begins; a new run begins at step 0, without a history."""

    done: tuple[int, ...]  # steps made by each learner
    next_job: int = 0  # number of the next job
    history: RunHistory = NO_HISTORY  # the run before it was resumed


def resumed(folder: Path, configuration: str, fleet: Fleet, console: Console) -> ResumePoint:
    """Restores the learners from the newest intact checkpoint in a run folder, with a warning for each damaged one.

    configuration: identity of the run. ValueError when there is no checkpoint, or when it belongs to a different run.
    """
    checkpoint, damaged = newest(folder / "checkpoints")
    for line in damaged:
        console.print(f"warning: {line}; resuming from job {checkpoint.jobs}", highlight=False, soft_wrap=True)
    # Before the identity, which can only say that something differs: this names the learner and what does not fit.
    _check_fits(checkpoint, fleet, folder)
    if checkpoint.configuration != configuration:
        raise ValueError(
            f"the checkpoint in {folder} belongs to a run with different learners, data, seed or dtype: "
            "a resumed run must keep them"
        )
    try:
        # Read before anything is restored: a journal that cannot be read leaves the learners as they are.
        before = run_history(read_journal(folder / "journal.jsonl"), checkpoint.steps)
    except OSError as error:
        raise ValueError(f"cannot read {folder / 'journal.jsonl'}: {error.strerror}") from None
    for one in fleet.learners:
        one.restore(checkpoint.snapshots[one.name])
    return ResumePoint(tuple(checkpoint.steps[one.name] for one in fleet.learners), checkpoint.next_job, before)


def _check_fits(checkpoint: Checkpoint, fleet: Fleet, folder: Path) -> None:
    names = [learner.name for learner in fleet.learners]
    if checkpoint.steps.keys() != set(names):
        raise ValueError(
            f"the checkpoint in {folder} has the learners {', '.join(checkpoint.steps)}, "
            f"the configuration has {', '.join(names)}: a resumed run must have the same"
        )
    for learner in fleet.learners:
        made = checkpoint.steps[learner.name]
        if made > learner.steps:
            raise ValueError(
                f"learner {learner.name} has already made {made} steps in the checkpoint: steps must be at least that, "
                f"got steps={learner.steps}"
            )
        learner.check_fits(checkpoint.snapshots[learner.name])


def complete(folder: Path, config: Config, start: ResumePoint) -> bool:
    """Whether nothing is left to do: every step is made, and the summary, which is written last, exists."""
    steps = tuple(config.run.steps if one.steps is None else one.steps for one in config.learner)
    # The summary alone would not do: it may be that of fewer steps, before they were raised.
    return start.done == steps and (folder / "summary.json").exists()
