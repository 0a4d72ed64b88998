"""Who takes part in a run beside scheduler and pool: what the master asks of learners, observers and keepers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from distseq.cluster.pool import Payload
from distseq.coding.plan import MiniTask
from distseq.engine.failures import LearnerFailure
from distseq.scheduling.scheduler import Round, Scheduler


@dataclass(frozen=True)
class JobInput:
    """What a learner's next job needs: its parameters now, and which samples."""

    parameters: np.ndarray  # (P,)
    ids: np.ndarray  # (N,) int64
    seed: int = 0
    cost: float = 1.0


class TrainableLearner(Protocol):
    """What the master needs of a learner."""

    @property
    def name(self) -> str: ...
    @property
    def steps(self) -> int:
        """Jobs that it opens in all."""
        ...

    def open(self, step: int) -> JobInput: ...
    def apply(self, total: np.ndarray) -> Mapping[str, float]:
        """Take the decoded sum (gradient, then what else is additive), make one optimizer step; returns what to record.

        ValueError or FloatingPointError, with nothing changed, for a sum that cannot be taken; FaultError, or anything else,
        when making the step failed.
        """
        ...


class Observer:
    """Base of observers, which are told what happens and change nothing; every method does nothing unless overridden."""

    def job_decoded(self, payload: Payload, weights: Mapping[MiniTask, float], total: np.ndarray) -> None:
        """A sum was decoded, and its learner has taken it."""

    def job_applied(self, learner: str, step: int, metrics: Mapping[str, float], now: float) -> None:
        """A learner has made a step; `metrics` are what its `apply` returned, `now` is pool time in seconds."""

    def learner_failed(self, failure: LearnerFailure) -> None:
        """The learner is trained no further."""

    def evaluated(self, learner: str, step: int, loss: float, now: float) -> None:
        """`loss`: mean over the samples to evaluate on, after so many steps."""

    def evaluation_failed(self, failure: LearnerFailure) -> None:
        """The learner trains on, and is evaluated no more."""

    def round_ended(self, ended: Round) -> None:
        """A round was closed."""

    def polled(self, scheduler: Scheduler, now: float) -> None:
        """After each poll of the pool."""

    def scheduling_changed(self, choice: Mapping[str, Any]) -> None:
        """The next jobs are scheduled in another way; `choice` is the journal's record."""

    def pool_changed(self, line: str) -> None:
        """A host was replaced, has joined or has left."""


class CheckpointHook(Protocol):
    """Keeps what the learners have become, and knows when to stop."""

    def applied(self, done: Sequence[int], next_job: int) -> None:
        """A job was applied: every learner is between two steps. `done`: steps made by each; `next_job`: its number."""
        ...

    def failed(self, learner: int) -> int:
        """A learner has failed and is not trained further; returns the steps with which it is kept."""
        ...

    def stopping(self) -> bool: ...
