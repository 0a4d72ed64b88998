"""Compares decoded gradients of sampled jobs with the full batch's, recomputed by the pool beside training."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from distseq.cluster.pool import Delivery, Fault, FaultError, Payload, Pool
from distseq.coding.plan import MiniTask
from distseq.coding.schemes.gradient_coding import GC
from distseq.engine.differences import TOLERANCE, is_rounding, largest, nudged
from distseq.engine.interfaces import Observer, TrainableLearner
from distseq.engine.journal import Record, arrival

# Share of the pool's time that checks after the first one may take, and the jobs over which it is reckoned: a run of fewer jobs
# may spend on checks what a thousand jobs allow.
SHARE, OVER = 0.01, 1000
# Jobs that are decoded before the parts of a check go to busy workers too: it begins with the next job at latest, and the first
# one is over within ten.
PATIENCE = 2


@dataclass(frozen=True)
class Check:
    """How many jobs of a run are compared, and what of them."""

    jobs: int = 0
    sizes: Sequence[Mapping[str, int]] = ()  # of each learner: trained parameter -> numbers in it, in the order of rows
    # Whether a learner fails whose difference is beyond the tolerance; a baseline that is not exact is only measured.
    acts: bool = True
    # The pool decodes in one pass, without rows: then the rows of the decoded workers are what is computed.
    one_pass: bool = False


@dataclass
class Running:
    """A check in progress."""

    payload: Payload
    begun: float  # pool time
    decoded: np.ndarray  # the sum that its learner has applied
    weights: Mapping[MiniTask, float]
    waiting: list[MiniTask]  # not sent yet
    owed: set[MiniTask]
    after: int  # jobs that were decoded before it
    recomputed: np.ndarray | None = None  # at the job's parameters, while it is computed again at nudged ones
    arrivals: list[list[float]] = field(default_factory=list)


class GradientChecks:
    """The checks of a run, one at a time.

    number: returns the next job number; write: takes journal records of the kind "check"; fail: stops a learner.

    Like evaluations, checks bypass the scheduler. Their parts go to idle workers first, and are cut at other samples than the
    job's. The first check begins with the first job; the others are spread evenly, as far as SHARE allows.
    """

    def __init__(
        self,
        check: Check,
        learners: Sequence[TrainableLearner],
        pool: Pool,
        jobs: int,
        number: Callable[[], int],
        write: Callable[[Record], None],
        observers: Sequence[Observer],
        fail: Callable[[int, Fault, str], None],
    ) -> None:
        self._check, self._learners, self._pool, self._jobs = check, learners, pool, jobs
        self._number, self._write, self._observers, self._fail = number, write, observers, fail
        self._made = dict.fromkeys(range(len(learners)), 0)  # checks of each learner that trains
        self._begun = 0  # checks of all learners
        # Jobs of this process, their cost, and when the first one was decoded.
        self._decoded, self._cost, self._first = 0, 0.0, 0.0
        self._spent = self._spent_cost = 0.0  # worker-seconds and cost of all checks but the first
        self._latest = 0.0  # worker-seconds of the latest check but the first
        self._one: Running | None = None

    @property
    def running(self) -> bool:
        return self._one is not None

    def due(self, learner: int) -> bool:
        """Whether the job of this learner that is decoded now should be checked."""
        begun, checks = self._begun, self._check.jobs
        if self._one is not None or begun >= checks or self._decoded * checks < begun * self._jobs:
            return False
        # Learners in turn, since jobs an even number apart might all be of one learner.
        turn = self._made.get(learner) == min(self._made.values(), default=0)
        return turn and (not begun or self._affordable())

    def _affordable(self) -> bool:
        """Whether another check fits into SHARE of the jobs, by their compute, and of the pool's time."""
        if self._decoded < 2:
            return False
        # By compute too: jobs that are slow at first, while everything is loaded, would make the time seem plentiful.
        jobs = SHARE * max(OVER, self._decoded)
        seconds = (self._pool.now() - self._first) / (self._decoded - 1) * len(self._pool.members())
        mean = self._cost / self._decoded
        return self._spent_cost + mean <= jobs * mean and self._spent + self._latest <= jobs * seconds

    def decoded(self, payload: Payload, weights: Mapping[MiniTask, float], total: np.ndarray, due: bool) -> None:
        """A job was decoded and applied; begins its check if it is due. `payload` has the parameters that it was applied to."""
        self._first = self._first if self._decoded else self._pool.now()
        self._decoded += 1
        self._cost += payload.cost
        if due:
            self._made[payload.learner] += 1
        if payload.step + 1 == self._learners[payload.learner].steps:
            self._made.pop(payload.learner, None)
        if not due:
            return
        self._begun += 1
        self._spent_cost += payload.cost if self._begun > 1 else 0.0
        if not self._check.one_pass:
            payload = replace(
                payload, scheme=_other_cut(payload, len(self._pool.members())).spec, n=len(self._pool.members())
            )
            groups = len(payload.layout.scheme.codes)
            weights = {MiniTask(payload.job, group, group % payload.n): 1.0 for group in range(groups)}
        self._begin(payload, weights, total)

    def _begin(self, payload: Payload, weights: Mapping[MiniTask, float], total: np.ndarray) -> None:
        job = self._number()
        payload = replace(payload, job=job, kind="check", version=0)
        weights = {task._replace(job=job): weight for task, weight in weights.items()}
        self._one = Running(payload, self._pool.now(), total, weights, list(weights), set(weights), self._decoded)
        self._pool.publish(job, payload)

    def send(self, missing: Callable[[], Mapping[int, int]]) -> None:
        """Sends parts to workers from which nothing is missing, and after PATIENCE jobs to any."""
        one = self._one
        if one is None or not one.waiting:
            return
        busy, urgent = missing(), self._decoded - one.after >= PATIENCE
        free = [worker for worker in self._pool.members() if urgent or not busy.get(worker)]
        if self._check.one_pass:
            # Each row is that of its worker.
            sent = [task for task in one.waiting if task.worker in free]
            one.waiting = [task for task in one.waiting if task.worker not in free]
        else:
            least = sorted(free, key=lambda worker: busy.get(worker, 0))
            # Any worker's row of a group is the same.
            sent = [task._replace(worker=worker) for task, worker in zip(one.waiting, least, strict=False)]
            places = {task.group: task for task in sent}
            one.weights = {places.get(task.group, task): weight for task, weight in one.weights.items()}
            one.owed = {places.get(task.group, task) for task in one.owed}
            one.waiting = one.waiting[len(sent) :]
        if sent:
            self._pool.send(sent)

    def take(self, delivery: Delivery) -> bool:
        """Takes a delivery if it belongs to the check in progress, and ends that if it was the last; whether it did."""
        one = self._one
        if one is None or delivery.task.job != one.payload.job:
            return False
        load = one.payload.cost * one.payload.layout.loads[delivery.task.group][delivery.task.worker]
        one.arrivals.append(arrival(delivery, load))
        if delivery.fault is not None and delivery.fault.state:
            # A host without the state of that job: the job's own rows have found or will find the same.
            self._forget(one)
        elif delivery.fault is not None:
            self._stop(one, delivery.fault, delivery.host)
        elif not delivery.stale:
            one.owed.discard(delivery.task)
            if not one.owed:
                self._end(one)
        return True

    def _end(self, one: Running) -> None:
        try:
            recomputed = self._pool.collect(one.payload.job, one.weights)
        except FaultError as error:
            return self._forget(one) if error.fault.state else self._stop(one, error.fault)
        sizes, learner = self._check.sizes[one.payload.learner], one.payload.learner
        numbers = list(sizes.values())
        expected = recomputed if one.recomputed is None else one.recomputed
        found = largest(one.decoded, expected, numbers)
        allowed = TOLERANCE[one.payload.parameters.dtype.name]
        suspect = self._check.acts and not found.relative <= allowed
        self._forget(one)
        if suspect and one.recomputed is None:
            # Perhaps rounding: the same parts once more, at parameters changed in their last digits.
            self._begin(replace(one.payload, parameters=nudged(one.payload.parameters)), one.weights, one.decoded)
            assert self._one is not None, "it has just begun"
            # Urgent now: the learner may be training with wrong gradients.
            self._one.recomputed, self._one.after = recomputed, self._decoded - PATIENCE
            return
        if suspect and not is_rounding(one.decoded, expected, recomputed, found.parameter, numbers):
            return self._fail(
                learner, Fault(_wrong(one, sizes, expected, found.relative, found.parameter, allowed)), ""
            )
        for observer in self._observers:
            observer.gradient_checked(self._learners[learner].name, one.payload.step, found.relative, self._pool.now())
        self._record(one, found.relative)

    def _stop(self, one: Running, fault: Fault, host: str = "") -> None:
        self._forget(one)
        self._fail(one.payload.learner, fault._replace(text=f"its gradient check raised {fault.text}"), host)

    def _forget(self, one: Running) -> None:
        self._one = None
        self._pool.retire(one.payload.job)
        # The first one, which is free, foretells nothing: it meets hosts that load what they need.
        if self._begun > 1:
            # Of an arrival: start-up and compute seconds of its worker.
            self._latest = sum(startup + compute for *_, startup, compute, _, _, _, _ in one.arrivals)
            self._spent += self._latest

    def _record(self, one: Running, difference: float) -> None:
        name, payload = self._learners[one.payload.learner].name, one.payload
        seconds = {"begun": round(one.begun, 6), "ended": round(self._pool.now(), 6)}
        record = {"kind": "check", "learner": name, "step": payload.step, "difference": difference, "job": payload.job}
        self._write({**record, **seconds, "arrivals": one.arrivals})

    def drop(self, learner: int) -> None:
        """Stops checking a learner that has failed."""
        self._made.pop(learner, None)
        if self._one is not None and self._one.payload.learner == learner:
            self._forget(self._one)


def _other_cut(payload: Payload, n: int) -> GC:
    """A scheme of parts any worker may do, cut at other samples than the job's: equal parts would have equal mistakes."""
    parts = sum(code.parts for code in payload.layout.scheme.codes)
    return GC(n, n - 1, n if parts != n else max(1, n - 1) if n > 1 else 2)


def _wrong(
    one: Running, sizes: Mapping[str, int], expected: np.ndarray, relative: float, parameter: int, allowed: float
) -> str:
    begin = sum(list(sizes.values())[:parameter])
    name, size = list(sizes.items())[parameter]
    decoded, recomputed = (float(np.linalg.norm(each[begin : begin + size])) for each in (one.decoded, expected))
    return (
        f"the decoded gradient of {name!r} at step {one.payload.step} differs from the full batch's by {relative:.1e} of its "
        f"size (allowed {allowed:.0e}; norms {decoded:.6g} and {recomputed:.6g}): a sample's loss may depend on no other sample "
        "of its batch, on nothing that forward keeps, and on no randomness of a worker's own"
    )
