"""Displays the progress of a run: an updating table on a terminal, plain lines elsewhere."""

import math
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from distseq.engine.failures import LearnerFailure
from distseq.engine.interfaces import Observer
from distseq.scheduling.scheduler import Scheduler

LINES = 20  # progress lines of a whole run, so that a log file stays readable however long it is
SMOOTH = 0.9  # decay of the running mean of the training loss: about the last ten steps
SHOWN = 12  # stragglers named at most: as many as fit beside the rest on one line


def say(console: Console, text: str) -> None:
    """Prints text as it is: a name, a path or a traceback may hold what rich takes for markup or the name of an emoji."""
    console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)


class Display(Observer):
    """Shows each learner's step and losses, jobs per second, and the workers that are waited for.

    steps: learner -> total steps; texts: learners whose loss is shown in bits per character; done: learner -> steps made before
    the run was resumed; virtual: the time of the pool is simulated.
    """

    def __init__(
        self,
        console: Console,
        steps: Mapping[str, int],
        texts: frozenset[str],
        done: Mapping[str, int] | None = None,
        *,
        virtual: bool = False,
    ) -> None:
        self._console, self._steps, self._texts = console, dict(steps), texts
        self._unit_of_time = "virtual s" if virtual else "s"
        self._done = dict.fromkeys(steps, 0) if done is None else dict(done)
        self._before = sum(self._done.values())  # jobs before the run was resumed, which do not count in jobs/s
        self._loss: dict[str, float] = {}
        self._held_out: dict[str, str] = {}
        self._jobs, self._now = self._before, 0.0
        self._missing: Mapping[int, int] = {}
        # Four times a second: a run of small models makes hundreds of steps in that time, and drawing costs the master's CPU.
        self._live = (
            Live(console=console, get_renderable=self._table, refresh_per_second=4) if console.is_terminal else None
        )

    def __enter__(self) -> "Display":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    def polled(self, scheduler: Scheduler, now: float) -> None:
        # Counting what is missing costs a pass over all mini-tasks: only for a display that shows it.
        self._now, self._missing = now, scheduler.missing() if self._live is not None else {}

    def pool_changed(self, line: str) -> None:
        self._print(line)

    def cut_in_blocks(self, learner: str, step: int, blocks: int) -> None:
        line = f"learner {learner} draws random numbers in step {step}: from there on its batches are cut into {blocks} blocks"
        self._console.print(line, highlight=False, soft_wrap=True)

    def scheduling_changed(self, choice: Mapping[str, Any]) -> None:
        before, after = choice["before"], choice["chosen"]
        line = f"scheduling: {after} in place of {before}, {choice['candidates'][0]['seconds']:.4g} s/job predicted"
        self._print(line)

    def job_applied(self, learner: str, step: int, metrics: Mapping[str, float], now: float) -> None:
        # A batch whose counts are all 0 has no loss.
        if (loss := metrics.get("loss")) is not None:
            self._loss[learner] = SMOOTH * self._loss[learner] + (1 - SMOOTH) * loss if learner in self._loss else loss
        self._done[learner], self._jobs, self._now = step + 1, self._jobs + 1, now
        total = sum(self._steps.values())
        # A line whenever another twentieth of all jobs is done.
        if self._live is None and (self._jobs * LINES // total > (self._jobs - 1) * LINES // total):
            losses = "  ".join(f"{name} {self._shown(name)}" for name in self._loss)
            line = f"job {self._jobs}/{total}  {self._rate():.1f} jobs/{self._unit_of_time}  {losses}"
            self._print(line)

    def evaluated(self, learner: str, step: int, loss: float, now: float) -> None:
        self._held_out[learner] = self._unit(learner, loss)
        if self._live is None and step < self._steps[learner]:
            line = f"{learner} after {step} steps: held-out {self._held_out[learner]}"
            self._print(line)

    def figures(self, learner: str, step: int, figures: Mapping[str, float], now: float) -> None:
        shown = quality(figures)
        self._held_out[learner] = f"{self._held_out.get(learner, '')} {shown}".strip()
        if self._live is None:
            self._print(f"{learner} after {step} steps: {shown}")

    def state_sent(self, learner: str, step: int, host: str) -> None:
        self._print(
            f"learner {learner}: its memory on {host or 'a host'} differs from the driver's at step {step}, which is computed "
            "again with the latter's"
        )

    def evaluation_failed(self, failure: LearnerFailure) -> None:
        self._say(f"evaluation of {failure}", failure)

    def learner_failed(self, failure: LearnerFailure) -> None:
        # The others' progress is of what is still to be done.
        self._steps[failure.learner] = failure.step
        self._say(str(failure), failure)

    def _say(self, line: str, failure: LearnerFailure) -> None:
        # The traceback too: it is of the user's own code, on a host whose output nobody sees.
        text = f"{line}\n{failure.traceback}".rstrip()
        self._print(text)

    def _print(self, text: str) -> None:
        say(self._console, text)

    def _shown(self, name: str) -> str:
        return self._unit(name, self._loss[name]) if name in self._loss else "-"

    def _unit(self, name: str, loss: float) -> str:
        return f"{loss / math.log(2):.3f} bits/char" if name in self._texts else f"loss {loss:.4g}"

    def _rate(self) -> float:
        return (self._jobs - self._before) / self._now if self._now else 0.0

    def _table(self) -> Table:
        slow = sorted(self._missing)
        names = " ".join(map(str, slow[:SHOWN])) + (f" and {len(slow) - SHOWN} more" if len(slow) > SHOWN else "")
        table = Table(
            caption=f"{self._jobs} jobs, {self._rate():.1f} jobs/{self._unit_of_time}; waiting for workers: {names or 'none'}"
        )
        for column in ("model", "step", "training", "held out"):
            table.add_column(column)
        for name, steps in self._steps.items():
            table.add_row(name, f"{self._done[name]}/{steps}", self._shown(name), self._held_out.get(name, "-"))
        return table


def quality(figures: Mapping[str, float]) -> str:
    """The figures of a model that have a place on the display."""
    known = {"ap": "AP", "mrr": "MRR", "accuracy": "accuracy"}
    return ", ".join(f"{title} {figures[name]:.3f}" for name, title in known.items() if name in figures)
