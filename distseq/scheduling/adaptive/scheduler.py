"""The adaptive scheduler: repeatedly selects the best candidate from observed start-ups.

It begins with a pipeline that keeps every worker busy. Each selection replays the latest start-ups under every candidate. Open
jobs finish under the scheduler that opened them, so that no job is lost by a switch (docs/decisions/014).
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
from distseq.scheduling.pipeline_scheduler import PATIENCE, PipelineScheduler
from distseq.scheduling.scheduler import Decision, Scheduler

# Uncoded, and a pipeline that does not split: no redundancy to explain, and the least that can go wrong.
SIMPLE: tuple[Candidate, ...] = ("uncoded", Pipeline())
# A switch must promise 3 % (replays of pipelines are no more precise than that), or 1 % if it is to a simple candidate.
BETTER, WORSE = 0.97, 0.99
# Deliveries per worker between selections: doubled each time, capped at SELDOM. Early evidence is worth the most, and selecting
# costs 0.3 to 0.6 s of CPU at 256 workers (docs/decisions/014).
GROWTH, SELDOM = 2, 16
# The first selections run to their end at once, because a cold start is where a wrong candidate costs most; later ones advance a
# candidate at a time, so that the master is never held up for long.
AT_ONCE = 3
# Messages that a later selection may replay per delivery. With it, deciding and selecting together take 0.11 ms of CPU per
# delivery at 256 workers (docs/benchmarks.md).
MESSAGES = 120
# Candidates that are re-evaluated while conditions stay within a factor of ALIKE; otherwise the whole grid is.
AGAIN = 12
ALIKE = 1.15
# Factor by which the median of the latest start-ups must move at once for the evidence before it to be dropped.
SUDDEN = 1.4
SHOWN = 8  # candidates that a journal record lists
# Deliveries per worker during which a worker that owes rows has been silent before it counts as dead: as many as the pipeline
# scheduler waits before it takes such a worker for idle.
DEAD = PATIENCE
# Workers and learners; and the median start-up, compute per batch and slowest start-ups.
Conditions = tuple[tuple[int, ...], tuple[float, ...]]


def first_pipeline(n: int, models: int, batch: int | None, places: int) -> Pipeline:
    """The pipeline to begin with: a part for every worker, and a second copy for workers that finish early.

    n: workers; models: learners; batch: samples of the smallest batch, or None; places: workers that hold a part's data, 0 = all.
    """
    parts = max(1, min(-(-n // models), batch or n))
    return Pipeline(parts, min(2, n), places=min(places, n))


class AdaptiveScheduler:
    """Implements Scheduler by delegating to a RoundScheduler or PipelineScheduler, which it replaces when another is better.

    n: the most workers that there will ever be.
    question: the objective, and what happens to unfinished work.
    batch: samples of the smallest batch, which is the most parts to try; None = no limit.
    places: workers that hold the data of a part, 0 = all; with places > 0 only pipelines are tried.
    """

    def __init__(self, n: int, question: Question, *, batch: int | None = None, places: int = 0) -> None:
        self._n, self._question, self._batch, self._places = n, question, batch, places
        self._lost = question.unfinished == "lost"
        self.evidence = Evidence(silent=self._lost)
        self._candidate: Candidate = first_pipeline(n, question.models, batch, places)
        self._left: dict[int, int] = {}  # learner -> jobs it will open after its latest
        self._cost: dict[int, float] = {}  # open job -> compute, in units of the slope
        self._waiting: dict[int, tuple[int, float, int]] = {}  # job that has not started -> learner, cost, left
        self._parts: dict[
            int, list[list[float]]
        ] = {}  # started job -> load of each (group, worker), as shares of its batch
        self._workers: Mapping[int, str] = {}
        self._schedulers: list[tuple[Scheduler, set[int]]] = []  # each with its open jobs; the last one takes new jobs
        self._change(self._candidate, 0.0)
        self._selection: Selection | None = None
        self._heard = 0  # deliveries so far
        self._wait = 1  # deliveries per worker until the next selection
        self._selections = 0  # completed ones, since the start or the latest sudden change
        self._owed: dict[
            int, int
        ] = {}  # worker that owes rows -> deliveries when it was last heard of, or first sent work
        self._answered: set[int] = set()  # workers that have ever answered
        self._dead = 0  # workers that were counted dead in the latest step
        self._credit = 0  # messages that the running selection may still replay
        self._next = n  # number of deliveries at which the next selection begins
        self._checked, self._usual = 0, 0.0  # deliveries at the latest check for a sudden change; median start-up then
        self._promising: list[Candidate] = []
        self._found_under: Conditions = ((), ())  # conditions under which the promising candidates were found
        self._full_search: Conditions | None = None  # conditions of the running selection, if it tries the whole grid

    @property
    def name(self) -> str:
        """The name of the candidate that new jobs are scheduled by."""
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
            # The grid depends on the number of workers: start over, once each has had a chance to answer.
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
            self._owed.pop(delivery.task.worker, None)
            self._answered.add(delivery.task.worker)
        self._heard += len(arrivals)
        self._credit += MESSAGES * len(arrivals)
        for scheduler, _ in self._schedulers:
            scheduler.delivered(arrivals, now)

    def _load(self, task: MiniTask) -> float:
        """Load of a row, in units of the slope; 0 when its job is finished."""
        job, group, worker = task
        return self._cost[job] * self._parts[job][group][worker] if job in self._parts else 0.0

    def missing(self) -> Mapping[int, int]:
        owed: dict[int, int] = {}
        for scheduler, _ in self._schedulers:
            for worker, count in scheduler.missing().items():
                owed[worker] = owed.get(worker, 0) + count
        return owed

    def step(self, now: float) -> Decision:
        # Before the schedulers step, so that jobs which were opened just now start under the new candidate already.
        self._spare_the_dead(now)
        chosen = self._choose(now)
        self._schedulers = [one for one in self._schedulers[:-1] if one[1]] + self._schedulers[-1:]
        decision: Decision | None = None
        for scheduler, jobs in self._schedulers:
            own = scheduler.step(now)
            self._note(own, jobs, now)
            decision = own if decision is None else decision.beside(own)
        assert decision is not None, "one scheduler always takes new jobs"
        return decision if chosen is None else replace(decision, chosen=chosen)

    def _note(self, decision: Decision, jobs: set[int], now: float) -> None:
        jobs.difference_update(decision.decode)
        for job, scheme in decision.start.items():
            del self._waiting[job]
            self._parts[job] = layout(scheme.spec, scheme.n).loads
        self.evidence.record_cancelled(decision.cancel, now)
        self._forget(list(decision.decode), now)
        self.evidence.record_sent(decision.send, now, self._load)
        for task in decision.send:
            self._owed.setdefault(task.worker, self._heard)

    def _spare_the_dead(self, now: float) -> None:
        """Goes on without workers that do not answer any more: every part gets one copy more than there are of them."""
        # In the order in which they were last heard of: the rest has been heard of later still.
        patience, dead = DEAD * (len(self._workers) or self._n), 0
        for heard in self._owed.values():
            if self._heard - heard < patience:
                break
            dead += 1
        if dead and dead != self._dead and not survives(self._candidate, self._n, dead):
            usual = first_pipeline(len(self._workers) or self._n, self._question.models, self._batch, self._places)
            own = self._candidate if isinstance(self._candidate, Pipeline) else usual
            self._change(replace(own, copies=min(self._n, dead + 1)), now)
        self._dead = dead

    def _choose(self, now: float) -> Mapping[str, Any] | None:
        """Advances the running selection, or begins one when it is due; the journal record when it led to a switch."""
        self._check_for_sudden_change()
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
        return self._conclude(selection, now)

    def _conclude(self, selection: Selection, now: float) -> Mapping[str, Any] | None:
        """Takes note of a finished selection, and switches if that is worth it: then the journal record."""
        if self._full_search is not None:
            self._promising, self._found_under, self._full_search = selection.promising, self._full_search, None
        self._selections, self._wait = self._selections + 1, min(self._wait * GROWTH, SELDOM)
        self._next = self._heard + self._wait * len(self._workers or range(self._n))
        best, present = selection.ranking[0], selection.found.get(self._candidate)
        if best is present or (present is not None and not _worth_switching(selection, present.value)):
            return None
        before = self.name
        self._change(best.candidate, now)
        return self._record(selection, before, present, now)

    def _check_for_sudden_change(self) -> None:
        """Starts over, as at the beginning, when start-ups differ suddenly from those of the latest selection."""
        # Only once the whole window is new: the same start-ups must not be judged twice.
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
        # Static lanes never go around a slow worker: they gain a hundredth on the recorded trace at M = 4, and lose half at
        # M = 64 (docs/decisions/014).
        grid = [c for c in candidates(n, models, self._batch) if isinstance(c, str) or c.lanes == 1]
        if self._places:
            grid = [replace(c, places=self._places) for c in grid if isinstance(c, Pipeline)]
        # One that has never answered, though the others have twice, may be dead as well.
        silent = [i for i, heard in self._owed.items() if i not in self._answered and self._heard - heard >= 2 * n]
        dead = max(self._dead, len(silent))
        if dead:
            grid = [candidate for candidate in grid if survives(candidate, n, dead)]
        own = fits(self._candidate, n, models) and survives(self._candidate, n, dead)
        always = [self._candidate] if own else []
        always += [] if self._places else [one for one in SIMPLE if survives(one, n, dead)]
        if not grid and not always:
            self._next = self._heard + n
            return None
        seen = described(trace)
        # The cube root turns the factor ALIKE = 1.15 into 1.5 for the slowest hundredth: a few start-ups decide it, so it
        # varies more than a median without meaning a change.
        size, times = (n, models), (seen["median"], seen["compute_per_batch"], seen["slowest_hundredth"] ** (1 / 3))
        if self._promising and size == self._found_under[0] and _similar(times, self._found_under[1]):
            grid = [one for one in self._promising if survives(one, n, dead)][:AGAIN]
            self._full_search = None
        else:
            self._full_search = (size, times)
        return Selection(trace, grid, question, always, most)

    def _active(self) -> int:
        """The number of learners that have an open job or will open another."""
        return max(sum(left > 0 for left in self._left.values()), len(self._cost))

    def _change(self, candidate: Candidate, now: float) -> None:
        """Starts all further jobs under this candidate."""
        self._candidate = candidate
        last = self._schedulers[-1][0] if self._schedulers else None
        if isinstance(candidate, Pipeline):
            # One pipeline scheduler serves both settings, so that old and new jobs share the idle workers. Two would each
            # believe that they own all of them.
            if isinstance(last, PipelineScheduler) and not candidate.places:
                last.retune(candidate)
                return
            scheduler: Scheduler = PipelineScheduler(candidate, self._n, frees=self._question.unfinished != "serial")
        else:
            n = len(self._workers) or self._n
            scheduler = round_scheduler(parse(candidate, n), late=not self._lost, left=self._left)
        if self._workers:
            scheduler.members(self._workers, now)
        # Jobs that have not started move to the new scheduler; those that have stay where they are.
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


def _worth_switching(selection: Selection, value: float) -> bool:
    """Whether the best candidate beats the present `value` by enough; less is enough for a simple candidate."""
    simple = [selection.found[one].value for one in SIMPLE if one in selection.found]
    return selection.ranking[0].value < BETTER * value or min(simple, default=value) < WORSE * value


def fits(candidate: Candidate, n: int, models: int) -> bool:
    """Whether a candidate can schedule n workers and so many learners."""
    try:
        if isinstance(candidate, Pipeline):
            return candidate.scheme(n).n == n
        return parse(candidate, n).delay < models
    except ValueError:
        return False


def survives(candidate: Candidate, n: int, dead: int) -> bool:
    """Whether a candidate's jobs are complete without the rows of any `dead` workers."""
    if isinstance(candidate, Pipeline):
        return candidate.copies > dead
    # With a delay, a missing part is done again in a later round, which may never come, and by a worker that may be dead too.
    scheme = parse(candidate, n)
    return dead == 0 or (scheme.delay == 0 and min(scheme.tolerance) >= dead)


def _similar(now: Sequence[float], then: Sequence[float]) -> bool:
    return all(a == b or max(a, b) < ALIKE * min(a, b) for a, b in zip(now, then, strict=True))


def described(trace: Trace) -> dict[str, float]:
    """Quantiles of a trace's start-ups (lost invocations excluded) and its compute per batch, in seconds."""
    startups = trace.startups()
    low, usual, high = np.quantile(startups[np.isfinite(startups)], [0.05, 0.5, 0.99])
    seconds = {"fast": low, "median": usual, "slowest_hundredth": high, "compute_per_batch": trace.slope}
    return {name: round(float(value), 6) for name, value in seconds.items()}
