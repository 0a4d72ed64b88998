"""The loop: the only place where deciding (the scheduler) and acting (the pool, the learners) meet."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np

from distseq.cluster.pool import Delivery, Payload, Pool
from distseq.coding.plan import MiniTask
from distseq.coding.scheme import Scheme
from distseq.journal import Journal, arrival
from distseq.scheduling.scheduler import Decision, Round, Scheduler


@dataclass(frozen=True)
class Opening:
    """What a learner's next job needs: its parameters now, and which samples."""

    parameters: np.ndarray  # (P,)
    ids: np.ndarray  # (N,) int64
    seed: int = 0
    cost: float = 1.0


class Learns(Protocol):
    """What the master needs of a learner."""

    @property
    def name(self) -> str: ...
    @property
    def steps(self) -> int:
        """Jobs that it opens in all."""
        ...

    def open(self, step: int) -> Opening: ...
    def apply(self, total: np.ndarray) -> Mapping[str, float]:
        """Take the decoded sum (gradient, then what else is additive), make one optimizer step; returns what to record."""
        ...


class Observer(Protocol):
    """Told what happens; changes nothing."""

    def job_decoded(self, payload: Payload, weights: Mapping[MiniTask, float], total: np.ndarray) -> None: ...
    def job_applied(self, learner: str, step: int, metrics: Mapping[str, float], now: float) -> None: ...
    def round_ended(self, ended: Round) -> None: ...
    def polled(self, scheduler: Scheduler, now: float) -> None:
        """After each poll."""
        ...

    def pool_changed(self, line: str) -> None:
        """A host was replaced, has joined or has left."""
        ...


class Keeper(Protocol):
    """Keeps what the learners have become, and knows when to stop."""

    def applied(self, done: Sequence[int], next_job: int) -> None:
        """A job was applied: every learner is between two steps. `done`: steps made by each; `next_job`: its number."""
        ...

    def stopping(self) -> bool: ...


class Master:
    """Trains the learners to their last step, or until `keeper` stops it; `run` returns the pool's time at the end.

    `done`: steps that the learners have already made. Who has made fewer opens first, as in a run without a break.
    """

    def __init__(
        self,
        learners: Sequence[Learns],
        scheduler: Scheduler,
        pool: Pool,
        journal: Journal | None = None,
        observers: Sequence[Observer] = (),
        *,
        first_job: int = 0,
        done: Sequence[int] | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        self._learners, self._scheduler, self._pool = learners, scheduler, pool
        self._journal, self._observers = journal, observers
        self._opened = first_job  # number of the next job
        self._done = [0] * len(learners) if done is None else list(done)  # steps made by each learner
        self._keeper = keeper
        self._openings: dict[int, tuple[int, int, Opening]] = {}  # open job -> learner, step, opening
        self._payloads: dict[int, Payload] = {}  # published job -> payload
        self._arrivals: list[list[float]] = []
        self._members: Mapping[int, str] = {}

    def run(self) -> float:
        for learner in sorted(range(len(self._learners)), key=lambda m: self._done[m]):
            self._open(learner)
        while self._openings:
            if self._keeper is not None and self._keeper.stopping():
                return self._pool.now()
            self._follow()
            decision = self._scheduler.step(self._pool.now())
            self._act(decision)
            if not decision.decode:
                self._take(self._pool.poll(decision.wake))
        seconds = self._pool.now()
        self._act(self._scheduler.step(seconds))
        return seconds

    def _open(self, learner: int) -> None:
        step, steps = self._done[learner], self._learners[learner].steps
        if step == steps:
            return
        job, opening = self._opened, self._learners[learner].open(step)
        self._opened = job + 1
        self._openings[job] = (learner, step, opening)
        self._scheduler.opened(job, learner, opening.cost, steps - step - 1, self._pool.now())

    def _follow(self) -> None:
        """Pass on what has become of the pool's hosts."""
        now, members = self._pool.now(), self._pool.members()
        if members != self._members:
            self._members = members
            self._scheduler.members(members, now)
        for line in self._pool.news():
            if self._journal is not None:
                self._journal.write({"kind": "hosts", "at": round(now, 6), "news": line, "workers": len(members)})
            for observer in self._observers:
                observer.pool_changed(line)

    def _take(self, deliveries: list[Delivery]) -> None:
        now = self._pool.now()
        self._scheduler.delivered(deliveries, now)
        if self._journal is not None:
            self._arrivals += [arrival(delivery, self._load(delivery)) for delivery in deliveries]
        for observer in self._observers:
            observer.polled(self._scheduler, now)

    def _load(self, delivery: Delivery) -> float:
        """Fraction of a batch that a row took; 0 when its job is over."""
        payload = self._payloads.get(delivery.task.job)
        return (
            0.0 if payload is None else payload.cost * payload.layout.loads[delivery.task.group][delivery.task.worker]
        )

    def _act(self, decision: Decision) -> None:
        if decision.cancel:
            self._pool.cancel(decision.cancel)
        if decision.ended is not None:
            self._end_round(decision.ended)
        for job, weights in decision.decode.items():
            self._decode(job, weights)
        for job, scheme in decision.start.items():
            self._publish(job, scheme)
        if decision.send:
            self._pool.send(decision.send)

    def _end_round(self, ended: Round) -> None:
        if self._journal is not None:
            self._journal.write({"kind": "round", **asdict(ended), "arrivals": self._arrivals})
            self._arrivals = []
        for observer in self._observers:
            observer.round_ended(ended)

    def _publish(self, job: int, scheme: Scheme) -> None:
        learner, step, o = self._openings[job]
        payload = Payload(job, learner, step, o.parameters, o.ids, o.seed, scheme.spec, scheme.n, cost=o.cost)
        self._payloads[job] = payload
        self._pool.publish(job, payload)

    def _decode(self, job: int, weights: Mapping[MiniTask, float]) -> None:
        total = self._pool.collect(job, weights)
        self._pool.retire(job)
        learner, step, _ = self._openings.pop(job)
        payload = self._payloads.pop(job)
        for observer in self._observers:
            observer.job_decoded(payload, weights, total)
        metrics = dict(self._learners[learner].apply(total))
        now, name = self._pool.now(), self._learners[learner].name
        if self._journal is not None:
            record = {
                "kind": "job",
                "job": job,
                "learner": name,
                "step": step,
                "scheme": payload.scheme,
                "decoded": round(now, 6),
            }
            self._journal.write({**record, "rows": [[t.group, t.worker] for t in weights], **metrics})
        self._done[learner] = step + 1
        if self._keeper is not None:
            self._keeper.applied(self._done, self._opened)
        for observer in self._observers:
            observer.job_applied(name, step, metrics, now)
        self._open(learner)
