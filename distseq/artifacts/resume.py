"""Finds the checkpoint that a run is resumed from, checks that it fits, and restores the learners."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from distseq.artifacts.checkpoint import Checkpoint, newest
from distseq.config.schema import Config
from distseq.engine.journal import read_journal
from distseq.engine.run_history import RunHistory, run_history
from distseq.learners.fleet import Fleet
from distseq.monitoring.console import say


@dataclass(frozen=True)
class ResumePoint:
    """The state in which a run begins; a new run begins at step 0, without a history."""

    done: tuple[int, ...]  # steps made by each learner
    next_job: int = 0  # number of the next job
    history: RunHistory = field(default_factory=RunHistory)  # the run before it was resumed


def resumed(folder: Path, configuration: str, fleet: Fleet, console: Console) -> ResumePoint:
    """Restores the learners from the newest intact checkpoint in a run folder, with a warning for each damaged one.

    configuration: identity of the run. ValueError when there is no checkpoint, or when it belongs to a different run.
    """
    checkpoint, damaged = newest(folder / "checkpoints")
    for line in damaged:
        say(console, f"warning: {line}; resuming from job {checkpoint.jobs}")
    # Before the identity, which can only say that something differs: this names the learner and what does not fit.
    _check_fits(checkpoint, fleet, folder)
    if checkpoint.configuration != configuration:
        raise ValueError(
            f"the checkpoint in {folder} belongs to a run with different learners, data, seed or dtype: "
            "a resumed run must keep them"
        )
    before = _history(folder / "journal.jsonl", checkpoint.steps, console)
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


def _history(path: Path, steps: Mapping[str, int], console: Console) -> RunHistory:
    """The history in a journal, as far as it can be read: damage costs figures of the summary, not the run."""
    damaged = _Damage()
    try:
        before = run_history(read_journal(path, damaged=damaged), steps, damaged)
    except OSError as error:
        before = RunHistory(jobs=sum(steps.values()))
        damaged(f"cannot read {path}: {error.strerror}")
    if damaged.count:
        more = f" and {damaged.count - 1} more" if damaged.count > 1 else ""
        line = f"warning: {damaged.first}{more}; figures of the summary will be missing"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return before


class _Damage:
    """The first of some lines, and their number."""

    def __init__(self) -> None:
        self.first, self.count = "", 0

    def __call__(self, line: str) -> None:
        self.first, self.count = self.first or line, self.count + 1


def complete(folder: Path, config: Config, start: ResumePoint) -> dict[str, Any] | None:
    """The summary of a run in which nothing is left to do: every step is made, and the summary is written; else None."""
    steps = tuple(config.run.steps if one.steps is None else one.steps for one in config.learner)
    # The summary alone would not do: it may be that of fewer steps, before they were raised.
    if start.done != steps:
        return None
    try:
        summary = json.loads((folder / "summary.json").read_bytes())
    # Not there yet, or damaged: then it is written again.
    except (OSError, ValueError):
        return None
    return summary if isinstance(summary, dict) else None
