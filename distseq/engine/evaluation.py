"""Evaluation as uncoded mapped work beside training: a part at each worker, and every row is awaited."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite

import numpy as np

from distseq.cluster.pool import Delivery, Fault, FaultError, Payload, Pool
from distseq.coding.plan import MiniTask
from distseq.engine.failures import LearnerFailure
from distseq.engine.interfaces import Observer, TrainableLearner
from distseq.engine.journal import Record, arrival

FORWARD = 1 / 3  # compute of a loss, in units of a loss and its gradient


@dataclass(frozen=True)
class Evaluate:
    """What is evaluated, and when."""

    samples: Sequence[int]  # to evaluate each learner on; 0 = it is not evaluated
    every: int = 0  # steps of a learner; 0 = only at the end


@dataclass
class Running:
    """An evaluation under way."""

    job: int
    learner: int
    step: int  # steps that the learner had made
    begun: float
    cost: float
    owed: set[MiniTask]
    weights: Mapping[MiniTask, float]
    arrivals: list[list[float]] = field(default_factory=list)


class Evaluations:
    """Those under way, at most one of each learner. One that fails is reported, and its learner is evaluated no more.

    `number` gives the next job number; `write` takes journal records. Records: {"kind": "evaluation", ...},
    {"kind": "evaluation skipped", ...} and {"kind": "evaluation failed", ...}.
    """

    def __init__(
        self,
        evaluate: Evaluate,
        learners: Sequence[TrainableLearner],
        pool: Pool,
        number: Callable[[], int],
        write: Callable[[Record], None],
        observers: Sequence[Observer],
    ) -> None:
        self._samples, self._every, self._learners, self._pool = evaluate.samples, evaluate.every, learners, pool
        self._number, self._write, self._observers = number, write, observers
        self._running: dict[int, Running] = {}  # job ->
        self._latest: dict[int, int] = {}  # learner -> steps it had made when it was last evaluated
        self._over: set[int] = set()  # learners that are evaluated no more

    @property
    def running(self) -> bool:
        return bool(self._running)

    def step_made(self, learner: int, done: int) -> None:
        """A learner has made so many steps and is between two."""
        if self._every and done % self._every == 0 and self._wanted(learner, done):
            if any(one.learner == learner for one in self._running.values()):
                self._write({"kind": "evaluation skipped", "learner": self._learners[learner].name, "step": done})
            else:
                self._start(learner, done)

    def finish(self, learner: int, done: int) -> None:
        """A learner has made its last step, and none of its evaluations is under way."""
        if self._wanted(learner, done):
            self._start(learner, done)

    def _wanted(self, learner: int, done: int) -> bool:
        return self._samples[learner] > 0 and learner not in self._over and self._latest.get(learner) != done

    def _start(self, learner: int, done: int) -> None:
        one = self._learners[learner]
        job, n, o = self._number(), len(self._pool.members()), one.open(min(done, one.steps - 1))
        ids = np.arange(self._samples[learner])
        cost = o.cost * FORWARD * len(ids) / max(1, len(o.ids))
        self._pool.publish(
            job, Payload(job, learner, done, o.parameters, ids, o.seed, "uncoded", n, cost=cost, kind="evaluation")
        )
        tasks = [MiniTask(job, 0, worker) for worker in range(n)]
        self._latest[learner] = done
        self._running[job] = Running(job, learner, done, self._pool.now(), cost, set(tasks), dict.fromkeys(tasks, 1.0))
        self._pool.send(tasks)

    def take(self, delivery: Delivery) -> bool:
        """Whether a delivery is of an evaluation under way, which it may end."""
        one = self._running.get(delivery.task.job)
        if one is None:
            return False
        one.arrivals.append(arrival(delivery, one.cost / len(one.weights)))
        if delivery.fault is not None:
            self._fail(one, delivery.fault, delivery.host)
        elif not delivery.stale:
            one.owed.discard(delivery.task)
            if not one.owed:
                self._end(one)
        return True

    def _end(self, one: Running) -> None:
        try:
            losses, weights = self._pool.collect(one.job, one.weights)
        except FaultError as error:
            return self._fail(one, error.fault)
        except ValueError as error:
            return self._fail(one, Fault(str(error)))
        loss, now, name = float(losses / weights), self._pool.now(), self._learners[one.learner].name
        if not isfinite(loss):
            return self._fail(one, Fault("the loss is not finite"))
        self._forget(one)
        record = {"kind": "evaluation", "learner": name, "step": one.step, "loss": loss, "job": one.job}
        seconds = {"begun": round(one.begun, 6), "ended": round(now, 6)}
        self._write({**record, **seconds, "arrivals": one.arrivals})
        for observer in self._observers:
            observer.evaluated(name, one.step, loss, now)

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

    def drop(self, learner: int) -> None:
        """The learner has failed: nobody wants to know how well it does."""
        self._over.add(learner)
        for one in [one for one in self._running.values() if one.learner == learner]:
            self._forget(one)
