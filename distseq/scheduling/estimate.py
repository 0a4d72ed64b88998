"""What a way of scheduling would take on a trace: seconds, worker-seconds, bytes and dollars of a job; and which counts."""

from dataclasses import dataclass, fields

import numpy as np

from distseq.cluster.trace import Trace
from distseq.coding.scheme import Scheme
from distseq.coding.schemes import parse
from distseq.replay import replay
from distseq.scheduling.candidates import Candidate, family, name_of
from distseq.scheduling.pipeline import Pipeline

OBJECTIVES = ("seconds", "worker-seconds", "price")
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


@dataclass(frozen=True)
class Question:
    """What is asked of every candidate."""

    models: int
    unfinished: str = "serial"
    whole: bool = False
    cost: float = 1.0  # of a job, in units of the trace's slope
    numbers: int = 0  # in a row: parameters
    objective: str = "seconds"
    prices: Prices = Prices()

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise ValueError(f"the objective must be one of {', '.join(OBJECTIVES)}: got {self.objective!r}")
        if self.objective == "price" and self.prices == Prices():
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


def estimate(trace: Trace, candidate: Candidate, question: Question, *, long: bool) -> Estimate:
    """Replay a candidate, for a short look or a long one."""
    q = question
    one: Scheme | Pipeline
    if isinstance(candidate, Pipeline):
        one, first = candidate, q.models
        jobs = first + max(60, 4 * first) if long else 3 * first
    else:
        one = scheme = parse(candidate, trace.workers)
        first = 1 + scheme.delay
        jobs = first + (60 if long else 8)
    found = replay(trace, one, models=q.models, jobs=jobs, unfinished=q.unfinished, whole=q.whole, cost=q.cost)
    seconds = float(found.decoded[-1] - found.decoded[first - 1]) / (jobs - first)
    busy, bytes_ = found.worker_seconds / jobs, NUMBER * q.numbers * (found.messages + found.rows) / jobs
    p = q.prices
    dollars = p.worker_second * busy + p.held_second * trace.workers * seconds + p.message * found.messages / jobs
    dollars += p.gigabyte * bytes_ / 1e9
    value = {"seconds": seconds, "worker-seconds": busy, "price": dollars}[q.objective]
    return Estimate(candidate, seconds, busy, bytes_, dollars, value, found.messages)


def least_seconds(trace: Trace, candidate: Candidate, question: Question) -> float:
    """No replay of the candidate finds fewer seconds per job: as if every start-up were the shortest."""
    startup = float(np.min(trace.times)) - trace.slope * trace.load
    if isinstance(candidate, Pipeline):
        part = startup / candidate.burst + trace.slope * question.cost / candidate.parts
        return max(part * candidate.parts / trace.workers, part / question.models)
    return startup if question.unfinished == "lost" else startup / question.models
