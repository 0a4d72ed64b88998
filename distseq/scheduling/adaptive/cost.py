"""Predicts the cost per job of a candidate on a trace: seconds, worker-seconds, bytes and dollars."""

from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np

from distseq.cluster.simulated import UNFINISHED
from distseq.cluster.trace import Trace
from distseq.coding.schemes.registry import parse
from distseq.coding.schemes.scheme import Scheme
from distseq.scheduling.adaptive.candidates import Candidate, family, name_of
from distseq.scheduling.pipeline import Pipeline
from distseq.scheduling.replay import Replayed, replay

OBJECTIVES = ("seconds", "worker-seconds", "price")
# Jobs to replay in a short and in a long estimate under rounds. Rounds repeat each other, so few are enough to rank schemes.
SHORT, ROUNDS = 8, 48
# Jobs to replay in a long estimate of a pipeline: EACH per learner, but at least LONG and at most MOST. One short replay of a
# pipeline is chaotic: start-ups shifted by 3 ms move it by 10 % and more (docs/decisions/014), so it has to be long.
LONG, EACH, MOST = 120, 8, 1024
# Warm-up jobs that a long estimate of a pipeline discards: it begins with every worker idle, which looks too good
# (docs/decisions/014).
BEGINNING = 40
NUMBER = 4  # bytes of a number in a row: float32


@dataclass(frozen=True)
class Prices:
    """Dollars per busy worker-second, per held worker-second (busy or not), per message and per 10^9 bytes."""

    worker_second: float = 0.0
    held_second: float = 0.0
    message: float = 0.0
    gigabyte: float = 0.0


def prices(spec: str) -> Prices:
    """Parses `KEY=DOLLARS,...`. ValueError for an unknown key, or a value that is not a finite number >= 0.

    >>> prices("worker_second=1.7e-5,message=2e-7").message
    2e-07
    """
    known, given = [f.name for f in fields(Prices)], dict[str, float]()
    for word in spec.split(","):
        key, _, value = word.strip().partition("=")
        if key in given:
            raise ValueError(f"a price must be given once: got {key} twice in {spec!r}")
        try:
            given[key] = float(value)
        except ValueError:
            given[key] = -1.0
        if key not in known or not 0 <= given[key] < float("inf"):
            raise ValueError(
                f"a price must be KEY=DOLLARS with DOLLARS >= 0, KEY one of {', '.join(known)}: got {word.strip()!r}"
            )
    return Prices(**given)


FREE = Prices()


@dataclass(frozen=True)
class Question:
    """The setting in which candidates are compared, and the objective that ranks them."""

    models: int  # M: learners that are trained at once
    unfinished: str = "serial"
    cost: float = 1.0  # compute of a job's whole batch, in units of the trace's slope
    numbers: int = 0  # numbers in a row, which is the number of parameters; 0 = bytes are unknown
    hosts: int | None = None  # hosts that the workers share, each computing one row at a time; None = one per worker
    objective: str = "seconds"
    prices: Prices = FREE

    def __post_init__(self) -> None:
        if self.unfinished not in UNFINISHED:
            raise ValueError(f"unfinished must be one of {', '.join(UNFINISHED)}: got {self.unfinished!r}")
        if self.objective not in OBJECTIVES:
            raise ValueError(f"the objective must be one of {', '.join(OBJECTIVES)}: got {self.objective!r}")
        if self.objective == "price" and self.prices == FREE:
            raise ValueError("objective = price needs prices: give prices = KEY=DOLLARS,...")


@dataclass(frozen=True)
class Estimate:
    """Predicted cost of one job in steady state."""

    candidate: Candidate
    seconds: float
    worker_seconds: float  # busy, start-ups included
    bytes: float  # parameters sent to the workers, plus rows received
    dollars: float
    value: float  # what the objective minimizes
    messages: int  # messages replayed: the measure of how much work the estimate itself was

    @property
    def name(self) -> str:
        return name_of(self.candidate)

    @property
    def family(self) -> str:
        return family(self.candidate)


# Parsing builds the scheme's codes, and every selection asks for the same hundred.
@lru_cache(maxsize=512)
def _parsed(spec: str, n: int) -> Scheme:
    return parse(spec, n)


def estimate(trace: Trace, candidate: Candidate, question: Question, *, long: bool) -> Estimate:
    """Replays a candidate and returns its cost per job in steady state.

    A short estimate is good enough to rank schemes, a `long` one to compare finalists. The warm-up, in which every worker is
    idle, is discarded. Seconds per job are those of the slowest learner, because a run lasts until its last learner is done.
    """
    q = question
    if isinstance(candidate, Pipeline):
        one: Pipeline | Scheme = candidate
        first = q.models + (BEGINNING if long else 0)
        jobs = first + (max(LONG, min(EACH * q.models, MOST)) if long else 3 * q.models)
    else:
        one = scheme = _parsed(candidate, trace.workers)
        # The first 1 + T jobs do not yet repeat the work of earlier ones, so their rounds are shorter.
        first = 1 + scheme.delay
        jobs = first + (ROUNDS if long else SHORT)
    found = replay(trace, one, models=q.models, jobs=jobs, unfinished=q.unfinished, cost=q.cost)
    per_job, busy = _of_the_slowest(found, first, q.models), found.worker_seconds / jobs
    if q.hosts is not None:
        # Workers that share a host start up side by side but compute one at a time: a job cannot take less than its compute
        # divided by the hosts. Replays give each worker a CPU of its own, so this bound is applied afterwards.
        startups = trace.startups()
        computing = busy - found.messages / jobs * float(np.mean(startups[np.isfinite(startups)]))
        per_job = max(per_job, computing / q.hosts)
    # A message carries the parameters one way, a row a vector of the same size back.
    p, bytes_ = q.prices, NUMBER * q.numbers * (found.messages + found.rows) / jobs
    dollars = p.worker_second * busy + p.held_second * trace.workers * per_job + p.message * found.messages / jobs
    dollars += p.gigabyte * bytes_ / 1e9
    value = {"seconds": per_job, "worker-seconds": busy, "price": dollars}[q.objective]
    return Estimate(candidate, per_job, busy, bytes_, dollars, value, found.messages)


def _of_the_slowest(found: Replayed, first: int, models: int) -> float:
    """Seconds per job after the first ones, as if every learner advanced at the pace of the slowest.

    Lanes of slow workers look fast on average and finish late as a whole (docs/decisions/014).
    """
    begun, jobs = found.decoded[first - 1], len(found.decoded) - first
    mean = float(found.decoded[-1] - begun) / jobs
    if found.learners is None:
        return mean
    fewest = int(np.bincount(found.learners[first:], minlength=models).min())
    # One more than it finished: the slowest learner's next job may be nearly done when the replay stops.
    return mean * max(1.0, jobs / models / (fewest + 1))


def least_seconds(trace: Trace, candidate: Candidate, question: Question) -> float:
    """A lower bound on what any replay of the candidate can find: every start-up as short as the shortest one."""
    startup = float(np.min(trace.startups()))
    if isinstance(candidate, Pipeline):
        # Limited either by the workers (all parts of a job over n of them) or by the one open job of each learner.
        part = startup / candidate.burst + trace.slope * question.cost / candidate.parts
        return max(part * candidate.parts / trace.workers, part / question.models)
    # Under "lost" a round cancels what is late, so every job pays a start-up; otherwise up to M jobs overlap.
    return startup if question.unfinished == "lost" else startup / question.models
