"""Evaluates learners on the pool, beside training: each worker computes the loss of a part."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import isfinite

import numpy as np

from distseq.cluster.pool import Delivery, Fault, FaultError, Pool
from distseq.coding.plan import MiniTask
from distseq.engine.failures import LearnerFailure
from distseq.engine.interfaces import Observer, TrainableLearner
from distseq.engine.journal import Record, arrival

# Samples of a block of an evaluation, where the learner draws random numbers.
BLOCK = 64
# Compute of a loss in units of a loss and its gradient: a backward pass takes about twice as long as its forward pass.
FORWARD = 1 / 3


@dataclass(frozen=True)
class Evaluate:
    """On how many samples each learner is evaluated, and how often."""

    samples: Sequence[int]  # per learner; 0 = it is not evaluated
    every: int = 0  # evaluate after this many steps of a learner; 0 = only at the end
    # Learners whose next step depends on the loss of the evaluation before it -> steps they had made at the latest one they know.
    # They wait for it, and fail if it fails.
    awaiting: Mapping[int, int] = field(default_factory=dict)
    told: Callable[[int, int, float], None] | None = (
        None  # takes learner, steps made and loss of each periodic evaluation
    )
    # Learner -> (P,) parameters to evaluate; None = those of its next job.
    parameters: Callable[[int], np.ndarray] | None = None
    # Learner -> what makes the loss, and further figures, of the sum of an evaluation's rows; by default these hold the sums of
    # losses and counts.
    judges: Mapping[int, Callable[[np.ndarray], tuple[float, Mapping[str, float]]]] = field(default_factory=dict)


@dataclass
class Running:
    """An evaluation in progress."""

    job: int
    learner: int
    step: int  # steps that the learner had made when it began
    begun: float  # pool time
    cost: float  # compute, in units of a trace's slope
    owed: set[MiniTask]
    weights: Mapping[MiniTask, float]
    arrivals: list[list[float]] = field(default_factory=list)


class Evaluations:
    """The evaluations in progress, at most one per learner.

    number: returns the next job number; write: takes journal records, of the kinds "evaluation", "evaluation skipped" and
    "evaluation failed".

    done: called with a learner whose evaluation has ended; fail: stops a learner.

    Evaluations bypass the scheduler: nobody waits for them, and coding them would buy nothing (docs/decisions/010). If one
    fails, that is reported and its learner is not evaluated again.
    """

    def __init__(
        self,
        evaluate: Evaluate,
        learners: Sequence[TrainableLearner],
        pool: Pool,
        number: Callable[[], int],
        write: Callable[[Record], None],
        observers: Sequence[Observer],
        done: Callable[[int], None] = lambda learner: None,
        fail: Callable[[int, Fault, str], None] = lambda learner, fault, host: None,
    ) -> None:
        self._evaluate, self._done, self._fail_learner = evaluate, done, fail
        self._samples, self._every, self._learners, self._pool = evaluate.samples, evaluate.every, learners, pool
        self._number, self._write, self._observers = number, write, observers
        self._running: dict[int, Running] = {}  # job -> evaluation
        self._latest: dict[int, int] = {}  # learner -> steps it had made at its latest evaluation
        self._over: set[int] = set()  # learners that are not evaluated any more

    @property
    def running(self) -> bool:
        return bool(self._running)

    def holds(self, learner: int) -> bool:
        """Whether the learner's next step must wait for its evaluation in progress."""
        return learner in self._evaluate.awaiting and any(one.learner == learner for one in self._running.values())

    def begin(self, done: Sequence[int]) -> None:
        """Begins, in a resumed run, the evaluations that learners await and do not know: their checkpoint is older."""
        for learner, known in self._evaluate.awaiting.items():
            if 0 < done[learner] != known:
                self.step_made(learner, done[learner])

    def step_made(self, learner: int, done: int) -> None:
        """A learner has made `done` steps: begins its evaluation if one is due."""
        if self._every and done % self._every == 0 and self._wanted(learner, done):
            # A second evaluation would only pile up work behind the first; the record says that one is missing.
            if any(one.learner == learner for one in self._running.values()):
                self._write({"kind": "evaluation skipped", "learner": self._learners[learner].name, "step": done})
            else:
                self._start(learner, done)

    def finish(self, learner: int, done: int) -> None:
        """Begins the final evaluation of a learner unless it was evaluated after its last step already."""
        if self._wanted(learner, done):
            self._start(learner, done)

    def _wanted(self, learner: int, done: int) -> bool:
        return self._samples[learner] > 0 and learner not in self._over and self._latest.get(learner) != done

    def _start(self, learner: int, done: int) -> None:
        one = self._learners[learner]
        # After the last step there is no next job to open: the last step's input has the same parameters.
        job, n, o = self._number(), len(self._pool.members()), one.open(min(done, one.steps - 1))
        ids = np.arange(self._samples[learner])
        parameters = o.parameters if self._evaluate.parameters is None else self._evaluate.parameters(learner)
        cost = o.cost * FORWARD * len(ids) / max(1, len(o.ids))
        blocks = -(-len(ids) // BLOCK) if o.blocks else 0
        carried = None if o.state is None else o.state.evaluated(done)
        self._pool.publish(
            job,
            replace(
                o.payload(job, learner, done, "uncoded", n),
                kind="evaluation",
                parameters=parameters,
                ids=ids,
                cost=cost,
                blocks=blocks,
                carried=carried,
            ),
        )
        tasks = [MiniTask(job, 0, worker) for worker in range(n)]
        # Noted at the start, so that the same step is not evaluated again while this one is in progress.
        self._latest[learner] = done
        self._running[job] = Running(job, learner, done, self._pool.now(), cost, set(tasks), dict.fromkeys(tasks, 1.0))
        self._pool.send(tasks)

    def take(self, delivery: Delivery) -> bool:
        """Takes a delivery if it belongs to an evaluation in progress, and ends that if it was the last; whether it did."""
        one = self._running.get(delivery.task.job)
        if one is None:
            return False
        one.arrivals.append(arrival(delivery, one.cost / len(one.weights)))
        if delivery.fault is not None:
            self._fail(one, delivery.fault, delivery.host)
        # Every row is needed: uncoded work has no redundancy, and a late row only delays the figure.
        elif not delivery.stale:
            one.owed.discard(delivery.task)
            if not one.owed:
                self._end(one)
        return True

    def _end(self, one: Running) -> None:
        try:
            # A simulated pool computes rows only when they are collected, so that the model's errors may show here.
            total = self._pool.collect(one.job, one.weights)
        except FaultError as error:
            return self._fail(one, error.fault)
        except ValueError as error:
            return self._fail(one, Fault(str(error)))
        figures: Mapping[str, float] = {}
        if one.learner in self._evaluate.judges:
            loss, figures = self._evaluate.judges[one.learner](total)
        elif not total[1]:
            return self._fail(one, Fault("the counts of all evaluation samples are 0"))
        else:
            loss = float(total[0] / total[1])
        now, name = self._pool.now(), self._learners[one.learner].name
        if not isfinite(loss):
            return self._fail(one, Fault("the loss is not finite"))
        self._forget(one)
        record = {"kind": "evaluation", "learner": name, "step": one.step, "loss": loss, "job": one.job}
        record |= {"figures": dict(figures)} if figures else {}
        seconds = {"begun": round(one.begun, 6), "ended": round(now, 6)}
        self._write({**record, **seconds, "arrivals": one.arrivals})
        for observer in self._observers:
            observer.evaluated(name, one.step, loss, now)
        if figures:
            for observer in self._observers:
                observer.figures(name, one.step, figures, now)
        # Not the one after the last step, unless it is due: a run that goes on longer would not have had it.
        if self._evaluate.told is not None and self._every and one.step % self._every == 0:
            self._evaluate.told(one.learner, one.step, loss)
        self._done(one.learner)

    def _forget(self, one: Running) -> None:
        del self._running[one.job]
        self._pool.retire(one.job)

    def _fail(self, one: Running, fault: Fault, host: str = "") -> None:
        self._forget(one)
        self._over.add(one.learner)
        failure = LearnerFailure(self._learners[one.learner].name, one.step, fault.text, host, fault.traceback)
        self._write({**asdict(failure), "kind": "evaluation failed"})
        for observer in self._observers:
            observer.evaluation_failed(failure)
        if one.learner in self._evaluate.awaiting:
            text = f"its schedule needs the loss of its evaluation, which failed: {fault.text}"
            self._fail_learner(one.learner, fault._replace(text=text), host)

    def drop(self, learner: int) -> None:
        """Stops evaluating a learner that has failed."""
        self._over.add(learner)
        for one in [one for one in self._running.values() if one.learner == learner]:
            self._forget(one)
