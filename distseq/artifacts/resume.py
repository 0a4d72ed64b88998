"""Where a run begins: at step 0, or where the newest whole checkpoint of its folder is."""

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
    """Steps made by each learner, number of the next job, and what the journal says of the time before."""

    done: tuple[int, ...]
    next_job: int = 0
    history: RunHistory = NO_HISTORY


def resumed(folder: Path, configuration: str, fleet: Fleet, console: Console) -> ResumePoint:
    """Put the learners where the newest whole checkpoint has them. ValueError when it is of another run."""
    checkpoint, damaged = newest(folder / "checkpoints")
    for line in damaged:
        console.print(f"warning: {line}; going on from job {checkpoint.jobs}", highlight=False, soft_wrap=True)
    _check_fits(checkpoint, fleet, folder)
    if checkpoint.configuration != configuration:
        raise ValueError(f"the checkpoint in {folder} is of a run with other learners, data, seed or dtype")
    try:
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
            f"the checkpoint in {folder} has learners {', '.join(checkpoint.steps)}, the job {', '.join(names)}"
        )
    for learner in fleet.learners:
        made = checkpoint.steps[learner.name]
        if made > learner.steps:
            raise ValueError(f"learner {learner.name} has made {made} steps already: got steps={learner.steps}")
        learner.check_fits(checkpoint.snapshots[learner.name])


def complete(folder: Path, config: Config, start: ResumePoint) -> bool:
    """Whether there is nothing left to do: every step made, and the summary, which is written last, is there."""
    steps = tuple(config.run.steps if one.steps is None else one.steps for one in config.learner)
    return start.done == steps and (folder / "summary.json").exists()
