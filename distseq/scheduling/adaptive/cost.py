"""What a way of scheduling would take on a trace: seconds, worker-seconds, bytes and dollars of a job; and which counts."""

from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np

from distseq.cluster.trace import Trace
from distseq.coding.schemes.registry import parse
from distseq.coding.schemes.scheme import Scheme
from distseq.scheduling.adaptive.candidates import Candidate, family, name_of
from distseq.scheduling.pipeline import Pipeline
from distseq.scheduling.replay import Replayed, replay

OBJECTIVES = ("seconds", "worker-seconds", "price")
# Jobs of a look, after the first: of a short one and a long one at rounds; of a long one at a pipeline, for each learner up to
# so many, and before it counts.
SHORT, ROUNDS, LONG, EACH, MOST, BEGINNING = 8, 48, 120, 8, 1024, 40
NUMBER = 4  # bytes, in a row


@dataclass(frozen=True)
class Prices:
    """Dollars of a busy second of a worker, of a second of a worker busy or not, of a message and of 10^9 bytes."""

    worker_second: float = 0.0
    held_second: float = 0.0
    message: float = 0.0
    gigabyte: float = 0.0


def prices(spec: str) -> Prices:
    """From `KEY=DOLLARS,...`. ValueError for another key, or what is no number >= 0."""
    known, given = [f.name for f in fields(Prices)], dict[str, float]()
    for word in spec.split(","):
        key, _, value = word.strip().partition("=")
        try:
            given[key] = float(value)
        except ValueError:
            given[key] = -1.0
        if key not in known or not 0 <= given[key] < float("inf"):
            raise ValueError(f"a price must be KEY=DOLLARS, not negative, of {', '.join(known)}: got {word.strip()!r}")
    return Prices(**given)


FREE = Prices()


@dataclass(frozen=True)
class Question:
    """What is asked of every candidate."""

    models: int
    unfinished: str = "serial"
    cost: float = 1.0  # of a job, in units of the trace's slope
    numbers: int = 0  # in a row: parameters
    hosts: int | None = None  # that the workers share, computing one at a time; None: each worker has its own
    objective: str = "seconds"
    prices: Prices = FREE

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise ValueError(f"the objective must be one of {', '.join(OBJECTIVES)}: got {self.objective!r}")
        if self.objective == "price" and self.prices == FREE:
            raise ValueError("the objective price needs prices")


@dataclass(frozen=True)
class Estimate:
    """Of one job, once the first are over."""

    candidate: Candidate
    seconds: float
    worker_seconds: float  # busy ones
    bytes: float  # parameters to the workers, and rows from them
    dollars: float
    value: float  # what the objective asks to be small
    messages: int  # that were replayed: what the estimate has cost

    @property
    def name(self) -> str:
        return name_of(self.candidate)

    @property
    def family(self) -> str:
        return family(self.candidate)


@lru_cache(maxsize=512)
def _parsed(spec: str, n: int) -> Scheme:
    return parse(spec, n)


def estimate(trace: Trace, candidate: Candidate, question: Question, *, long: bool) -> Estimate:
    """Replay a candidate, for a short look or a long one, and leave out how it begins: with every worker idle.

    Seconds per job are those of the learner that comes forward most slowly: a whole run lasts until it is done.
    """
    q = question
    if isinstance(candidate, Pipeline):
        one: Pipeline | Scheme = candidate
        first = q.models + (BEGINNING if long else 0)
        jobs = first + (max(LONG, min(EACH * q.models, MOST)) if long else 3 * q.models)
    else:
        one = scheme = _parsed(candidate, trace.workers)
        first = 1 + scheme.delay
        jobs = first + (ROUNDS if long else SHORT)
    found = replay(trace, one, models=q.models, jobs=jobs, unfinished=q.unfinished, cost=q.cost)
    per_job, busy = _of_the_slowest(found, first, q.models), found.worker_seconds / jobs
    if q.hosts is not None:
        startups = trace.startups()
        computing = busy - found.messages / jobs * float(np.mean(startups[np.isfinite(startups)]))
        per_job = max(per_job, computing / q.hosts)
    p, bytes_ = q.prices, NUMBER * q.numbers * (found.messages + found.rows) / jobs
    dollars = p.worker_second * busy + p.held_second * trace.workers * per_job + p.message * found.messages / jobs
    dollars += p.gigabyte * bytes_ / 1e9
    value = {"seconds": per_job, "worker-seconds": busy, "price": dollars}[q.objective]
    return Estimate(candidate, per_job, busy, bytes_, dollars, value, found.messages)


def _of_the_slowest(found: Replayed, first: int, models: int) -> float:
    """Seconds per job, all learners having as many, after the first jobs."""
    begun, jobs = found.decoded[first - 1], len(found.decoded) - first
    all_alike = float(found.decoded[-1] - begun) / jobs
    if found.learners is None:
        return all_alike
    fewest = int(np.bincount(found.learners[first:], minlength=models).min())
    return all_alike * max(1.0, jobs / models / (fewest + 1))


def least_seconds(trace: Trace, candidate: Candidate, question: Question) -> float:
    """No replay of the candidate finds fewer seconds per job: as if every start-up were the shortest."""
    startup = float(np.min(trace.startups()))
    if isinstance(candidate, Pipeline):
        part = startup / candidate.burst + trace.slope * question.cost / candidate.parts
        return max(part * candidate.parts / trace.workers, part / question.models)
    return startup if question.unfinished == "lost" else startup / question.models
