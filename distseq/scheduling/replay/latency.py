"""Compiled form of distseq.scheduling.latency, with the same names; each worker is a host of its own.

A trace has one slope for all workers, so compute per unit of load needs no average here: the flag `computes` tells whether a
worker has sent a row, before which its compute is predicted as 0.
"""

from math import exp, floor, log
from typing import Any

import numpy as np

from distseq.scheduling.latency import DECAY, LEAST
from distseq.scheduling.replay.pool import NONE, Pool, part


@part
def add(worker: Any, seconds: float) -> None:
    worker.weight = DECAY * worker.weight + 1
    worker.total = DECAY * worker.total + log(max(seconds, LEAST))


@part
def mean(worker: Any) -> float:
    """Seconds of start-up; 0 before the first."""
    return exp(worker.total / worker.weight) if worker.weight else 0.0


@part
def record_sent(worker: Any, now: float) -> None:
    if worker.silent < np.inf:
        add(worker, max(now - worker.silent, mean(worker)))
    # np.inf while nothing is owed, so that one comparison covers both cases.
    worker.silent = now


@part
def record_delivery(pool: Pool, task: Any) -> None:
    worker, startup = pool.workers[task.worker], pool.messages[task.message].startup
    # The same tolerance as in record_delivery there.
    if pool.state[0].now - startup - task.compute > worker.silent - 1e-9:
        worker.silent = np.inf
    if worker.told != task.message:
        worker.told = task.message
        add(worker, startup)
    # A row of a job that is over has no known load, so the real prediction learns nothing from it.
    worker.computes = worker.computes or (task.compute > 0 and pool.slot[task.job] != NONE)


@part
def expected(worker: Any, compute: float) -> float:
    """Predicted seconds; `compute`: seconds that the load takes."""
    return rounded(mean(worker) + (compute if worker.computes else 0.0)) if worker.weight else 0.0


@part
def rounded(seconds: float) -> float:
    return floor(1e6 * seconds + 0.5) / 1e6


@part
def reorder(pool: Pool, compute: float) -> None:
    """Gives each worker its place in the plan, fastest first."""
    now, workers, seen, logs, computes = pool.state[0].now, pool.workers, 0, 0.0, False
    for one in workers:
        computes = computes or one.computes
        if one.weight:
            seen, logs = seen + 1, logs + one.total / one.weight
    usual = exp(logs / seen) if seen else 0.0
    for one in workers:
        startup = mean(one) if one.weight else usual
        one.predicted = rounded(max(startup, now - min(now, one.silent)) + (compute if computes else 0.0))
    # Insertion sort: the order changes little from round to round, and unlike np.argsort it allocates nothing.
    for k in range(len(workers)):
        one, place = workers[workers[k].order], k
        while place and before(one, workers[workers[place - 1].order]):
            workers[place].order = workers[place - 1].order
            place -= 1
        workers[place].order = one.number
    for k in range(len(workers)):
        workers[workers[k].order].place = k


@part
def before(a: Any, b: Any) -> bool:
    """Whether worker a is predicted to be faster than b; ties go to the one whose turn is first."""
    return a.predicted < b.predicted or (a.predicted == b.predicted and a.turn < b.turn)
