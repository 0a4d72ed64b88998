"""Chooses how to schedule from what it observes, again and again, and changes over without losing a job.

It starts with a pipeline that keeps every worker busy. Each selection replays the latest start-ups under every candidate. Jobs
that are open finish under the scheduler that opened them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from distseq.cluster.pool import Delivery
from distseq.cluster.trace import Trace
from distseq.coding.layout import layout
from distseq.coding.plan import MiniTask
from distseq.coding.schemes.registry import parse
from distseq.scheduling.adaptive.candidates import Candidate, candidates, name_of
from distseq.scheduling.adaptive.cost import Estimate, Question
from distseq.scheduling.adaptive.evidence import LATEST, Evidence
from distseq.scheduling.adaptive.search import Selection
from distseq.scheduling.backup import round_scheduler
from distseq.scheduling.latency import LEAST
from distseq.scheduling.pipeline import Pipeline
from distseq.scheduling.pipeline_scheduler import PipelineScheduler
from distseq.scheduling.scheduler import Decision, Scheduler

SIMPLE: tuple[Candidate, ...] = ("uncoded", Pipeline())  # not splitting
BETTER, WORSE = 0.97, 0.99  # of the present value: worth a change; and if that is to what is simple
GROWTH, SELDOM = 2, 16  # deliveries per worker between selections: this times as many each time, until so many
AT_ONCE = 3  # selections that are made at a stroke; later ones in small steps
MESSAGES = 120  # replayed for each delivery
AGAIN = 12  # of the most promising candidates that are looked at again, while what is seen is ALIKE
ALIKE, SUDDEN = 1.15, 1.4  # times as long
SHOWN = 8  # candidates that a record names
Conditions = tuple[tuple[int, ...], tuple[float, ...]]


def first_pipeline(n: int, models: int, batch: int | None, places: int) -> Pipeline:
    """Every worker has a part, and those that are done early a copy."""
    parts = max(1, min(-(-n // models), batch or n))
    return Pipeline(parts, min(2, n), places=min(places, n))


class AdaptiveScheduler:
    """`n`: the most workers that there will ever be. `batch`: samples of the smallest batch, more parts than which are not tried.

    With `places` > 0 every part is bound to so many workers, so that only pipelines are tried.
    """

    def __init__(self, n: int, question: Question, *, batch: int | None = None, places: int = 0) -> None:
        self._n, self._question, self._batch, self._places = n, question, batch, places
        self._lost = question.unfinished == "lost"
        self.evidence = Evidence(silent=self._lost)
        self._candidate: Candidate = first_pipeline(n, question.models, batch, places)
        self._left: dict[int, int] = {}  # learner -> jobs it will open after its latest
        self._cost: dict[int, float] = {}  # open job -> units of the slope
        self._waiting: dict[int, tuple[int, float, int]] = {}  # job that is not started -> learner, cost, left
        self._parts: dict[int, list[list[float]]] = {}
        self._workers: Mapping[int, str] = {}
        self._schedulers: list[tuple[Scheduler, set[int]]] = []  # with their open jobs; the last one takes new jobs
        self._change(self._candidate, 0.0)
        self._selection: Selection | None = None
        self._heard, self._wait, self._selections, self._credit = 0, 1, 0, 0
        self._next = n  # deliveries until the next selection
        self._checked, self._usual = 0, 0.0  # deliveries until the latest look for a change; median start-up then
        self._promising: list[Candidate] = []
        # Workers and learners, and what the start-ups were like, when the promising ones were found; and of a selection that
        # looks at all.
        self._asked: Conditions = ((), ())
        self._asking: Conditions | None = None

    @property
    def name(self) -> str:
        """Of what it schedules by now."""
        return name_of(self._candidate)

    def opened(self, job: int, learner: int, cost: float, left: int, now: float) -> None:
        self._left[learner], self._cost[job], self._waiting[job] = left, cost, (learner, cost, left)
        scheduler, jobs = self._schedulers[-1]
        jobs.add(job)
        scheduler.opened(job, learner, cost, left, now)

    def members(self, workers: Mapping[int, str], now: float) -> None:
        changed, self._workers = len(workers) != (len(self._workers) or self._n), workers
        self.evidence.members(workers)
        for scheduler, _ in self._schedulers:
            scheduler.members(workers, now)
        if changed:
            self._selection, self._next = None, self._heard + len(workers)

    def withdrawn(self, job: int, learner: int) -> None:
        self._left.pop(learner, None)
        for scheduler, jobs in self._schedulers:
            scheduler.withdrawn(job, learner)
            jobs.discard(job)
        self._forget([job], 0.0)

    def _forget(self, jobs: Sequence[int], now: float) -> None:
        self.evidence.record_finished(jobs, now)
        for job in jobs:
            for table in (self._cost, self._parts, self._waiting):
                table.pop(job, None)

    def delivered(self, arrivals: Sequence[Delivery], now: float) -> None:
        for delivery in arrivals:
            self.evidence.record_delivery(delivery, self._load(delivery.task))
        self._heard += len(arrivals)
        self._credit += MESSAGES * len(arrivals)
        for scheduler, _ in self._schedulers:
            scheduler.delivered(arrivals, now)

    def _load(self, task: MiniTask) -> float:
        """Of an open job's row; 0 when its job is over."""
        job, group, worker = task
        return self._cost[job] * self._parts[job][group][worker] if job in self._parts else 0.0

    def missing(self) -> Mapping[int, int]:
        owed: dict[int, int] = {}
        for scheduler, _ in self._schedulers:
            for worker, count in scheduler.missing().items():
                owed[worker] = owed.get(worker, 0) + count
        return owed

    def step(self, now: float) -> Decision:
        chosen = self._choose(now)
        self._schedulers = [one for one in self._schedulers[:-1] if one[1]] + self._schedulers[-1:]
        decision: Decision | None = None
        for scheduler, jobs in self._schedulers:
            own = scheduler.step(now)
            self._note(own, jobs, now)
            decision = own if decision is None else decision.beside(own)
        assert decision is not None, "there is always one that takes new jobs"
        return decision if chosen is None else replace(decision, chosen=chosen)

    def _note(self, decision: Decision, jobs: set[int], now: float) -> None:
        jobs.difference_update(decision.decode)
        for job, scheme in decision.start.items():
            del self._waiting[job]
            self._parts[job] = layout(scheme.spec, scheme.n).loads
        self.evidence.record_cancelled(decision.cancel, now)
        self._forget(list(decision.decode), now)
        self.evidence.record_sent(decision.send, now, self._load)

    def _choose(self, now: float) -> Mapping[str, Any] | None:
        """Go on with selecting, and change over when something better was found: then what was found."""
        self._look_for_a_change()
        if self._selection is None:
            if self._heard < self._next:
                return None
            self._selection, self._credit, self._usual = self._begin(now), 0, self.evidence.latest
            if self._selection is None:
                return None
        at_once = self._selections < AT_ONCE
        over = False
        while not over and (at_once or self._credit > 0):
            over = self._selection.advance()
            self._credit -= self._selection.messages
        if not over:
            return None
        selection, self._selection = self._selection, None
        if self._asking is not None:
            self._promising, self._asked, self._asking = selection.promising, self._asking, None
        self._selections, self._wait = self._selections + 1, min(self._wait * GROWTH, SELDOM)
        self._next = self._heard + self._wait * len(self._workers or range(self._n))
        best, present = selection.ranking[0], selection.found.get(self._candidate)
        if best is present or (present is not None and not _worth_it(selection, present.value)):
            return None
        before = self.name
        self._change(best.candidate, now)
        return self._record(selection, before, present, now)

    def _look_for_a_change(self) -> None:
        """Select anew, as at the beginning, when start-ups are all at once not what they were at the latest selection."""
        if self._heard < self._checked + LATEST or not self._selections:
            return
        self._checked, latest = self._heard, self.evidence.latest
        if not 1 / SUDDEN < (latest + LEAST) / (self._usual + LEAST) < SUDDEN:
            self.evidence.forget()
            self._selection, self._selections, self._wait, self._next = None, 0, 1, self._heard
            self._usual = latest

    def _begin(self, now: float) -> Selection | None:
        n, models = len(self._workers) or self._n, max(1, self._active())
        hosts = len(set(self._workers.values())) or n
        shared = hosts if hosts < n else None
        question = replace(
            self._question, models=models, hosts=shared, cost=float(np.mean(list(self._cost.values()) or [1.0]))
        )
        most = n if self._batch is None else min(n, self._batch)
        trace = self.evidence.trace(n, now)
        if trace is None:
            return None
        # Static lanes never go around a slow worker: they gain a hundredth, or lose a half.
        grid = [c for c in candidates(n, models, self._batch) if isinstance(c, str) or c.lanes == 1]
        if self._places:
            grid = [replace(c, places=self._places) for c in grid if isinstance(c, Pipeline)]
        always = [self._candidate] if fits(self._candidate, n, models) else []
        always += [] if self._places else SIMPLE
        seen = described(trace)
        # The slowest may differ by half before all are looked at again.
        asked, looks = (n, models), (seen["median"], seen["compute_per_batch"], seen["slowest_hundredth"] ** (1 / 3))
        if self._promising and asked == self._asked[0] and _similar(looks, self._asked[1]):
            grid, self._asking = self._promising[:AGAIN], None
        else:
            self._asking = (asked, looks)
        return Selection(trace, grid, question, always, most)

    def _active(self) -> int:
        """Learners that have an open job or will open another."""
        return max(sum(left > 0 for left in self._left.values()), len(self._cost))

    def _change(self, candidate: Candidate, now: float) -> None:
        """Start the next jobs under this one."""
        self._candidate = candidate
        last = self._schedulers[-1][0] if self._schedulers else None
        if isinstance(candidate, Pipeline):
            if isinstance(last, PipelineScheduler) and not candidate.places:
                last.retune(candidate)
                return
            scheduler: Scheduler = PipelineScheduler(candidate, self._n, frees=self._question.unfinished != "serial")
        else:
            n = len(self._workers) or self._n
            scheduler = round_scheduler(parse(candidate, n), late=not self._lost, left=self._left)
        if self._workers:
            scheduler.members(self._workers, now)
        for job, (learner, cost, left) in self._waiting.items():
            before, jobs = self._schedulers[-1]
            before.withdrawn(job, learner)
            jobs.discard(job)
            scheduler.opened(job, learner, cost, left, now)
        self._schedulers.append((scheduler, set(self._waiting)))

    def _record(self, selection: Selection, before: str, present: Estimate | None, now: float) -> Mapping[str, Any]:
        return {
            "at": round(now, 6),
            "before": before,
            "predicted_before": None if present is None else round(present.seconds, 6),
            "chosen": selection.ranking[0].name,
            "evidence": described(selection.trace) | {"invocations": self.evidence.invocations},
            "candidates": [
                {"name": one.name, "seconds": round(one.seconds, 6), "worker_seconds": round(one.worker_seconds, 6)}
                for one in selection.ranking[:SHOWN]
            ],
        }


def _worth_it(selection: Selection, value: float) -> bool:
    """Whether something is so much better than this value; a little is enough if it is as simple as can be."""
    simple = [selection.found[one].value for one in SIMPLE if one in selection.found]
    return selection.ranking[0].value < BETTER * value or min(simple, default=value) < WORSE * value


def fits(candidate: Candidate, n: int, models: int) -> bool:
    """Whether so many workers and learners can be scheduled like this."""
    try:
        if isinstance(candidate, Pipeline):
            return candidate.scheme(n).n == n
        return parse(candidate, n).delay < models
    except ValueError:
        return False


def _similar(now: Sequence[float], then: Sequence[float]) -> bool:
    return all(a == b or max(a, b) < ALIKE * min(a, b) for a, b in zip(now, then, strict=True))


def described(trace: Trace) -> dict[str, float]:
    """What a start-up table says of the invocations that are not lost, in numbers."""
    startups = trace.startups()
    low, usual, high = np.quantile(startups[np.isfinite(startups)], [0.05, 0.5, 0.99])
    seconds = {"fast": low, "median": usual, "slowest_hundredth": high, "compute_per_batch": trace.slope}
    return {name: round(float(value), 6) for name, value in seconds.items()}
