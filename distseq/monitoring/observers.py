"""Read-only observers of a run: counts for its summary, and metrics."""

from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol

from distseq.engine.failures import LearnerFailure
from distseq.engine.interfaces import Observer
from distseq.engine.run_history import RunHistory
from distseq.scheduling.scheduler import Round

# Jobs whose mean is the final training loss: the loss of one batch is too noisy to compare runs.
LAST = 10
SWITCHES = 1000  # of the adaptive scheduler, kept at most: they become rare, but a run may last for weeks


class Tally(Observer):
    """Counts what the summary reports."""

    def __init__(self) -> None:
        self.rounds = self.waits = self.jobs = 0  # waits: rounds that lasted beyond their cutoff
        # Journal records of the latest switches of the adaptive scheduler.
        self.choices: deque[Mapping[str, Any]] = deque(maxlen=SWITCHES)
        self.exact = True  # False if a part of the run before it was resumed was not exact
        self.differences: list[float] = []  # of each gradient check
        self.losses: dict[str, deque[float]] = {}  # learner -> training losses of its last LAST jobs
        self.skipped: dict[str, int] = {}  # learner -> optimizer steps not made, because all counts were 0
        self.evaluations: dict[str, tuple[int, float]] = {}  # learner -> step and loss of its latest evaluation
        self.quality: dict[str, tuple[int, Mapping[str, float]]] = {}  # learner -> step and further figures of the same
        self.states_sent: dict[str, int] = {}  # learner -> jobs that were opened again because a host's memory differed
        self.failures: dict[str, LearnerFailure] = {}
        self.evaluation_failures: dict[str, LearnerFailure] = {}

    def restore(self, history: RunHistory) -> None:
        """Adds what the run did before it was resumed."""
        self.jobs, self.rounds, self.waits, self.exact = history.jobs, history.rounds, history.waits, history.exact
        self.losses = {name: deque(losses, LAST) for name, losses in history.losses.items() if losses}

    def round_ended(self, ended: Round) -> None:
        self.rounds += 1
        self.waits += ended.waited

    def job_applied(self, learner: str, step: int, metrics: Mapping[str, Any], now: float) -> None:
        self.jobs += 1
        # A learner of the user's own may return other metrics or none.
        if "loss" in metrics:
            self.losses.setdefault(learner, deque(maxlen=LAST)).append(metrics["loss"])
        if "skipped" in metrics:
            self.skipped[learner] = self.skipped.get(learner, 0) + metrics["skipped"]

    def scheduling_changed(self, choice: Mapping[str, Any]) -> None:
        self.choices.append(choice)

    def learner_failed(self, failure: LearnerFailure) -> None:
        self.failures[failure.learner] = failure

    def gradient_checked(self, learner: str, step: int, difference: float, now: float) -> None:
        self.differences.append(difference)

    def evaluated(self, learner: str, step: int, loss: float, now: float) -> None:
        self.evaluations[learner] = (step, loss)

    def figures(self, learner: str, step: int, figures: Mapping[str, float], now: float) -> None:
        self.quality[learner] = (step, figures)

    def state_sent(self, learner: str, step: int, host: str) -> None:
        self.states_sent[learner] = self.states_sent.get(learner, 0) + 1

    def evaluation_failed(self, failure: LearnerFailure) -> None:
        self.evaluation_failures[failure.learner] = failure


class Meter(Protocol):
    """A sink for the metrics of a running run, such as Ray's metrics. Rounds are in seconds, stragglers are a count."""

    def job(self, learner: str, loss: float | None) -> None: ...
    def round(self, seconds: float, waited: bool, stragglers: int) -> None: ...


class Metered(Observer):
    """Passes the metrics of jobs and rounds on to a meter."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def job_applied(self, learner: str, step: int, metrics: Mapping[str, float], now: float) -> None:
        self._meter.job(learner, metrics.get("loss"))

    def round_ended(self, ended: Round) -> None:
        self._meter.round(ended.ended - ended.begun, ended.waited, len(ended.stragglers))
