"""Interfaces the master relies on: learners, observers and the checkpoint hook."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from distseq.cluster.carried import Carried
from distseq.cluster.pool import Payload
from distseq.coding.plan import MiniTask
from distseq.engine.failures import LearnerFailure
from distseq.scheduling.scheduler import Round, Scheduler


class CarriedState(Protocol):
    """The state that a learner carries from job to job, as the master sees it."""

    sent_again: int  # jobs that were opened again with their state, because a host's differed

    def whole(self, step: int) -> Carried:
        """The state that the job of a step reads, all of it in the payload."""
        ...

    def evaluated(self, done: int) -> Carried:
        """The state after so many jobs, all of it in the payload."""
        ...

    def prepare_next(self) -> None:
        """Advances the state while hosts compute the job that was opened last."""
        ...


@dataclass(frozen=True)
class JobInput:
    """The input of one job: the learner's current parameters and the samples of the batch."""

    parameters: np.ndarray  # (P,)
    ids: np.ndarray  # (N,) int64 sample ids
    seed: int = 0
    cost: float = 1.0  # compute of the batch, in units of a trace's slope
    counts: bool | None = None  # whether the loss returns counts; None = not known
    blocks: int = 0  # into which the batch is cut, because the learner draws random numbers; 0 = it draws none
    joint: bool = False  # the blocks of a row may share one pass (distseq.cluster.pool.Payload)
    carried: Carried | None = None  # the state that its rows read, if the learner carries one from job to job
    state: CarriedState | None = None  # and what this is taken from

    def payload(self, job: int, learner: int, step: int, scheme: str, n: int) -> Payload:
        """The payload of this job under a scheme on n workers."""
        return Payload(
            job,
            learner,
            step,
            self.parameters,
            self.ids,
            self.seed,
            scheme,
            n,
            cost=self.cost,
            counts=self.counts,
            blocks=self.blocks,
            joint=self.joint,
            carried=self.carried,
        )


class TrainableLearner(Protocol):
    """A learner as the master sees it."""

    @property
    def name(self) -> str: ...
    @property
    def steps(self) -> int:
        """Total number of jobs that it opens."""
        ...

    def open(self, step: int) -> JobInput:
        """The input of the job of this step, 0, 1, ..."""
        ...

    def cut_in_blocks(self, parts: int) -> int:
        """A row has drawn random numbers: cuts the batches of all further jobs into blocks, and returns how many.

        ValueError, with nothing changed, when there are fewer blocks than `parts`.
        """
        ...

    def apply(self, total: np.ndarray) -> Mapping[str, float]:
        """Makes one optimizer step with the decoded sum, and returns the metrics to record.

        total (P + extras,): the gradient, then whatever else is summed over samples. ValueError or FloatingPointError, with
        nothing changed, if the sum cannot be used; FaultError or any other error if the step itself failed.
        """
        ...


class Observer:
    """Base class of observers, which follow a run and change nothing; every hook is a no-op unless overridden.

    `now` is pool time in seconds. Observers are given to `distseq.train(..., watchers=[...])`.

    >>> class Losses(Observer):
    ...     def __init__(self):
    ...         self.losses = []
    ...     def job_applied(self, learner, step, metrics, now):
    ...         self.losses.append(metrics["loss"])
    >>> watcher = Losses()
    >>> watcher.job_applied("line", 0, {"loss": 2.5}, now=0.1)
    >>> watcher.losses
    [2.5]
    """

    def job_decoded(self, payload: Payload, weights: Mapping[MiniTask, float], total: np.ndarray) -> None:
        """A job was decoded and its learner has applied it; `total` is the decoded sum, `weights` the rows it was made of."""

    def job_applied(self, learner: str, step: int, metrics: Mapping[str, float], now: float) -> None:
        """A learner has made step number `step`, counted from 0; `metrics` is what its `apply` returned."""

    def cut_in_blocks(self, learner: str, step: int, blocks: int) -> None:
        """A learner was found to draw random numbers in this step, which is computed again with its batch cut into blocks."""

    def state_sent(self, learner: str, step: int, host: str) -> None:
        """The state of a learner's memory on a host differed from the driver's: the step is computed again with the latter."""

    def learner_failed(self, failure: LearnerFailure) -> None:
        """A learner was stopped; the others go on."""

    def gradient_checked(self, learner: str, step: int, difference: float, now: float) -> None:
        """The decoded gradient of a step was compared with the full batch's; `difference` is relative, of its worst parameter."""

    def evaluated(self, learner: str, step: int, loss: float, now: float) -> None:
        """A learner was evaluated after `step` steps; `loss` is the mean over its evaluation samples."""

    def figures(self, learner: str, step: int, figures: Mapping[str, float], now: float) -> None:
        """What else an evaluation after `step` steps has found, such as the average precision of a temporal model."""

    def evaluation_failed(self, failure: LearnerFailure) -> None:
        """An evaluation failed: its learner trains on, but is not evaluated again."""

    def round_ended(self, ended: Round) -> None:
        """A round was closed."""

    def polled(self, scheduler: Scheduler, now: float) -> None:
        """The pool was polled, and the scheduler knows what arrived."""

    def scheduling_changed(self, choice: Mapping[str, Any]) -> None:
        """The adaptive scheduler has switched to another candidate; `choice` is the journal record."""

    def pool_changed(self, line: str) -> None:
        """A host was replaced, joined or left; `line` says which."""


class CheckpointHook(Protocol):
    """Saves the state of the learners, and tells the master when to stop."""

    def applied(self, done: Sequence[int], next_job: int) -> None:
        """A job was applied, and every learner is between two steps. `done`: steps made by each learner."""
        ...

    def failed(self, learner: int) -> int:
        """A learner was stopped after a failure; returns the number of steps in its saved state."""
        ...

    def trained(self) -> None:
        """Every learner has made its last step; the final evaluations are still to come."""
        ...

    def stopping(self) -> bool:
        """Whether the run has been asked to stop."""
        ...
