"""PipelineScheduler on the simulated pool: names are those of distseq.scheduling.pipeline.

Learners never end: when a job is over, the next one opens in its slot. Part g of job j is j parts + g. `left` (jobs,) parts without a row;
`site` of each part, `copies` of it, the mini-tasks that they are `on`, and whether it is `done`. Each site has a line of the parts that
were never sent (kind 0) and of those that may have a further copy (kind 1); `waiting` (2,) are in all lines. `at` (sites, n) bool
says who is where, `open` (sites,) how many jobs. What was given a smaller `turn` was there before.
"""

from collections import namedtuple
from typing import Any

import numpy as np

from distseq.cluster.trace import Trace
from distseq.replay import pool as on
from distseq.replay import prediction
from distseq.replay.pool import NONE, Pool, compiled, entry, records
from distseq.scheduling.pipeline import UNHEARD, Pipeline

IDLE, BUSY, DRAINING = range(3)  # of a worker
WANTED, ANSWERED, GONE = range(3)  # what is thought of a mini-task
NUMBERS = "models parts most burst own frees seconds master"
Lines = namedtuple("Lines", f"{NUMBERS} part on left open at queues line waiting complete decoded")


def replay_pipeline(
    trace: Trace, pipeline: Pipeline, models: int, jobs: int, *, unfinished: str, cost: float
) -> tuple[np.ndarray, float, int, int]:
    """(jobs,) decode times; until the last of them, busy worker-seconds, messages started, rows that were wanted."""
    n, parts, copies, where = (
        trace.workers,
        pipeline.parts,
        min(pipeline.copies, trace.workers),
        pipeline.sites(trace.workers),
    )
    opened, own, seconds = jobs + models, pipeline.places > 0, trace.slope / parts
    at = np.array([np.isin(np.arange(n), np.array(site) % n) for site in where])
    numbers = models, parts, copies, pipeline.burst, own, unfinished != "serial", seconds, trace.master
    r = Lines(
        *numbers,
        records(opened * parts, "turn copies site", "", "done"),
        np.zeros((opened * parts, copies), np.int64),
        np.full(opened, parts),
        np.zeros(len(where), np.int64),
        at,
        records(2 * len(where), "head tail").reshape(2, -1),
        np.zeros((2, len(where), copies * opened * (1 if own else parts)), np.int64),
        np.zeros(2, np.int64),
        np.zeros(opened, np.int64),
        np.zeros(jobs),
    )
    sends = opened * parts * copies
    pool = on.new_pool(
        trace,
        np.full(parts, seconds * cost),
        opened,
        models,
        sends,
        sends * pipeline.burst,
        pipeline.burst,
        unfinished,
        False,
    )
    return r.decoded, *_pipelined(pool, r)


@entry
def _pipelined(pool: Pool, r: Lines) -> tuple[float, int, int]:
    s = pool.state[0]
    completed = decoded = received = read = 0
    for worker in pool.workers:
        _free(pool, r, worker)
    for job in range(r.models):
        _open(pool, r, job, job)
    while True:
        while decoded < completed:
            s.now += r.master
            r.decoded[decoded] = s.now
            job = r.complete[decoded]
            slot = pool.slot[job]
            on.retire(pool, job)
            _open(pool, r, r.models + decoded, slot)
            decoded += 1
            if decoded == len(r.decoded):
                return on.worker_seconds(pool), s.started, received
        for patience in (UNHEARD * len(pool.workers), 0 * len(pool.workers)):
            if patience or (r.waiting[0] and not s.busies):
                _presume(pool, r, patience)
                _fill(pool, r)
        on.poll(pool, np.inf)
        for x in pool.arrived[read : s.arrived]:
            task = pool.tasks[x]
            prediction.told(pool, task)
            _told(pool, r, task)
            received += not task.stale
            if not task.stale and _row(pool, r, x):
                r.complete[completed] = task.job
                completed += 1
        read = s.arrived


@compiled
def _turn(pool: Pool) -> int:
    pool.state[0].turn += 1
    return int(pool.state[0].turn)


@compiled
def _free(pool: Pool, r: Lines, worker: Any) -> None:
    worker.state, worker.turn, worker.predicted = IDLE, _turn(pool), prediction.expected(worker, r.seconds)


@compiled
def _open(pool: Pool, r: Lines, job: int, slot: int) -> None:
    on.publish(pool, job, slot)
    lane = 0
    for k in range(len(r.open)):
        lane = k if r.open[k] < r.open[lane] else lane
    r.open[lane] += 1
    for g in range(r.parts):
        r.part[job * r.parts + g].site = g if r.own else lane
        _line_up(pool, r, job * r.parts + g)


@compiled
def _line_up(pool: Pool, r: Lines, p: int) -> None:
    part, kind = r.part[p], 1 if r.part[p].copies else 0
    queue = r.queues[kind, part.site]
    part.turn = _turn(pool)
    r.line[kind, part.site, queue.tail] = p
    queue.tail += 1
    r.waiting[kind] += 1


@compiled
def _pull(pool: Pool, r: Lines, m: int) -> bool:
    """Put a part into a message, one never sent or, if it is the message's first, another; whether there is one for its worker."""
    one, sites = pool.messages[m], len(r.at)
    for kind in range(1 if one.end > one.first else 2):
        best = sites
        for site in range(sites if r.waiting[kind] else 0):
            queue, line = r.queues[kind, site], r.line[kind, site]
            while queue.head < queue.tail and r.part[line[queue.head]].done:
                queue.head += 1
            if r.at[site, one.worker] and queue.head < queue.tail:
                part = r.part[line[queue.head]]
                if best == sites or part.turn < r.part[r.line[kind, best, r.queues[kind, best].head]].turn:
                    best = site
        if best < sites:
            p = r.line[kind, best, r.queues[kind, best].head]
            r.queues[kind, best].head += 1
            r.waiting[kind] -= 1
            r.on[p, r.part[p].copies] = on.put(pool, m, p // r.parts, p % r.parts)
            r.part[p].copies += 1
            pool.workers[one.worker].wanted += 1
            if r.part[p].copies < r.most:
                _line_up(pool, r, p)
            return True
    return False


@compiled
def _presume(pool: Pool, r: Lines, patience: int) -> None:
    """Take workers for idle that have not said that they are, while the pool was heard of so many times."""
    s = pool.state[0]
    while s.draining:
        first = pool.workers[0]
        for one in pool.workers:
            if one.state == DRAINING and (first.state != DRAINING or one.turn < first.turn):
                first = one
        if s.heard - first.heard < patience:
            return
        s.draining -= 1
        _free(pool, r, first)


@compiled
def _fill(pool: Pool, r: Lines) -> None:
    """What idle workers do next: one part each, and more only when every idle worker has one."""
    s, begin = pool.state[0], pool.state[0].messages
    s.fills += 1
    while r.waiting[0] + r.waiting[1]:
        first = pool.workers[0]
        for one in pool.workers:
            if _idle(one, s.fills) and (not _idle(first, s.fills) or _before(one, first)):
                first = one
        if not _idle(first, s.fills):
            break
        first.asked, first.wanted = s.fills, 0
        m = on.message(pool, first.number)
        if _pull(pool, r, m):
            first.state, first.message, first.since = BUSY, m, s.now
            s.busies += 1
        else:
            on.forget(pool)
    for _ in range(1, r.burst):
        for m in range(begin, s.messages):
            _pull(pool, r, m)
    for m in range(begin, s.messages):
        on.send(pool, m)


@compiled
def _idle(worker: Any, fill: int) -> bool:
    """Whether a worker is idle and was not asked yet."""
    return bool(worker.state == IDLE and worker.asked != fill)


@compiled
def _before(a: Any, b: Any) -> bool:
    return bool(a.predicted < b.predicted or (a.predicted == b.predicted and a.turn < b.turn))


@compiled
def _told(pool: Pool, r: Lines, task: Any) -> None:
    """A row has come, or word of work that went stale."""
    worker, s = pool.workers[task.worker], pool.state[0]
    s.heard += 1
    if worker.message != task.message:
        return
    if worker.state == BUSY and task.thought == WANTED and not task.stale:
        task.thought = ANSWERED
        worker.wanted -= 1
        if not worker.wanted:
            s.busies -= 1
            _free(pool, r, worker)
    elif task.thought == GONE:
        task.thought = ANSWERED
        if worker.state == DRAINING:
            s.draining -= 1
            _free(pool, r, worker)


@compiled
def _row(pool: Pool, r: Lines, x: int) -> bool:
    """The first row of a part counts, and its other copies are cancelled; whether its job is complete."""
    task = pool.tasks[x]
    part, job = r.part[task.job * r.parts + task.group], task.job
    if part.done:
        return False
    part.done = True
    if part.copies < r.most:
        r.waiting[1] -= 1
    for other in r.on[job * r.parts + task.group, : part.copies]:
        if other != x:
            _give_up(pool, r, pool.tasks[other])
            on.cancel(pool, other)
    r.left[job] -= 1
    if r.left[job]:
        return False
    r.open[0 if r.own else part.site] -= 1
    return True


@compiled
def _give_up(pool: Pool, r: Lines, task: Any) -> None:
    """Wait for a copy no more."""
    worker, s = pool.workers[task.worker], pool.state[0]
    if worker.state != BUSY or worker.message != task.message or task.thought != WANTED:
        return
    task.thought = GONE
    worker.wanted -= 1
    if worker.wanted:
        return
    s.busies -= 1
    if r.frees:
        waited = s.now - worker.since
        if not worker.weight or waited > prediction.mean(worker):
            prediction.add(worker, waited)
        _free(pool, r, worker)
    else:
        s.draining += 1
        worker.state, worker.turn, worker.heard = DRAINING, _turn(pool), s.heard
