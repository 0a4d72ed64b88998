"""PipelineScheduler on the simulated pool: names are those of distseq.scheduling.pipeline_scheduler.

Learners never end: when a job is over, the next opens in its slot. Part g of job j is j parts + g; it has `site`, `copies`, the
mini-tasks that they are `on`, and `done`; `left` (jobs,) have no row. Each site has a line of the parts never sent, kind 0, and
one of those that may have a further copy, kind 1: `line` (kinds, sites, places), `queues` where its head and tail are,
`waiting` (kinds,) how many are in all. `at` (sites, n) bool says who is where, `open` (sites,) how many jobs. `doing` (n,) what
each worker does, `lane` (n,) its only site, `many` how many do what. What has the smaller `turn` was there before.
"""

from collections import namedtuple
from typing import Any

import numpy as np

from distseq.cluster.trace import Trace
from distseq.scheduling.pipeline import Pipeline
from distseq.scheduling.pipeline_scheduler import PATIENCE
from distseq.scheduling.replay import latency as prediction
from distseq.scheduling.replay import pool as on
from distseq.scheduling.replay.pool import Pool, inlined, loop, part, records

IDLE, BUSY, DRAINING, ASKED = range(4)  # what a worker is doing; it was idle, and there was nothing for it
WANTED, ANSWERED, GONE = range(3)  # what is thought of a mini-task
Lines = namedtuple(
    "Lines",
    "models parts most burst own frees seconds master "
    "doing many lane part on left open at queues line waiting complete decoded learners",
)


def replay_pipeline(
    trace: Trace, pipeline: Pipeline, models: int, jobs: int, *, unfinished: str, cost: float
) -> tuple[np.ndarray, float, int, int, np.ndarray]:
    """(jobs,) decode times; until the last of them, busy worker-seconds, messages started, rows that were wanted; and (jobs,)
    the learner of each."""
    n, parts, copies, burst = trace.workers, pipeline.parts, min(pipeline.copies, trace.workers), pipeline.burst
    opened, own, seconds, where = jobs + models, pipeline.places > 0, trace.slope * (1 / parts), pipeline.sites(n)
    sites, total, sends = len(where), opened * parts, opened * parts * copies
    lanes = np.full(n, on.NONE)  # the only site of each worker
    for k, site in enumerate(where if sites > 1 and not own else ()):
        lanes[site.start : site.stop] = k
    r = Lines(
        *(models, parts, copies, burst, own, unfinished != "serial", seconds, trace.master),
        *(np.zeros(n, int), np.zeros(3, int), lanes),
        records(total, "turn copies site", "", "done"),
        *(np.zeros((total, copies), int), np.full(opened, parts), np.zeros(sites, int)),
        np.array([np.isin(np.arange(n), np.array(site) % n) for site in where]),
        records(2 * sites, "head tail").reshape(2, sites),
        np.zeros((2, sites, copies * (opened if own else total)), int),
        *(np.zeros(2, int), np.zeros(opened, int), np.zeros(jobs), np.zeros(jobs, int)),
    )
    pool = on.new_pool(trace, np.full(parts, seconds * cost), opened, models, sends, sends * burst, unfinished, False)
    pool.state["room"] = burst
    _pipelined(pool, r)
    return r.decoded, *on.counted(pool), r.learners


@loop
def _pipelined(pool: Pool, r: Lines) -> None:
    s, n, completed, decoded, read = pool.state[0], len(pool.workers), 0, 0, 0
    for worker in pool.workers:
        _free(pool, r, worker)
    for job in range(r.models):
        _open(pool, r, job, job)
    while True:
        while decoded < completed:
            s.now += r.master
            r.decoded[decoded] = s.now
            slot = pool.slot[r.complete[decoded]]
            r.learners[decoded] = slot
            on.retire(pool, r.complete[decoded])
            _open(pool, r, r.models + decoded, slot)
            decoded += 1
            if decoded == len(r.decoded):
                return
        for patience in (PATIENCE * n, 0 * n):
            if patience or (r.waiting[0] and not r.many[BUSY]):
                _assume_idle(pool, r, patience)
                _fill(pool, r)
        on.poll(pool, np.inf)
        for x in pool.arrived[read : s.arrived]:
            task = pool.tasks[x]
            prediction.record_delivery(pool, task)
            _told(pool, r, task)
            if not task.stale and _row(pool, r, x):
                r.complete[completed] = task.job
                completed += 1
        read = s.arrived


@part
def _free(pool: Pool, r: Lines, worker: Any) -> None:
    r.many[r.doing[worker.number]] -= 1
    r.doing[worker.number] = IDLE
    pool.state[0].turn += 1
    worker.turn, worker.predicted = pool.state[0].turn, prediction.expected(worker, r.seconds)


@part
def _open(pool: Pool, r: Lines, job: int, slot: int) -> None:
    on.publish(pool, job, slot)
    lane = 0
    for k in range(len(r.open)):
        lane = k if r.open[k] < r.open[lane] else lane
    r.open[lane] += 1
    for g in range(r.parts):
        r.part[job * r.parts + g].site = g if r.own else lane
        _line_up(pool, r, job * r.parts + g)


@part
def _line_up(pool: Pool, r: Lines, p: int) -> None:
    one, kind = r.part[p], 1 if r.part[p].copies else 0
    queue = r.queues[kind, one.site]
    pool.state[0].turn += 1
    one.turn = pool.state[0].turn
    r.line[kind, one.site, queue.tail] = p
    queue.tail += 1
    r.waiting[kind] += 1


@part
def _pull(pool: Pool, r: Lines, worker: Any) -> bool:
    """Give a worker a part, one never sent or, if it has none yet, another; whether there is one for it."""
    w, none = worker.number, len(r.part)
    for kind in range(1 if worker.wanted else 2):
        p = none
        low, high = (0, len(r.at)) if r.lane[w] == on.NONE else (r.lane[w], r.lane[w] + 1)
        for site in range(low, high if r.waiting[kind] else low):
            queue, line = r.queues[kind, site], r.line[kind, site]
            while queue.head < queue.tail and r.part[line[queue.head]].done:
                queue.head += 1
            if r.at[site, w] and queue.head < queue.tail:
                p = line[queue.head] if p == none or r.part[line[queue.head]].turn < r.part[p].turn else p
        if p < none:
            one = r.part[p]
            r.queues[kind, one.site].head += 1
            r.waiting[kind] -= 1
            if not worker.wanted:
                worker.message, worker.since, r.doing[w] = on.message(pool, w), pool.state[0].now, BUSY
                r.many[BUSY] += 1
            r.on[p, one.copies] = on.put(pool, worker.message, p // r.parts, p % r.parts)
            worker.wanted += 1
            one.copies += 1
            if one.copies < r.most:
                _line_up(pool, r, p)
            return True
    return False


@part
def _assume_idle(pool: Pool, r: Lines, patience: int) -> None:
    """Take workers for idle that have not said that they are, while the pool was heard of so many times."""
    while r.many[DRAINING]:
        first = pool.workers[0]
        for w in range(len(r.doing)):
            if r.doing[w] == DRAINING and (r.doing[first.number] != DRAINING or pool.workers[w].turn < first.turn):
                first = pool.workers[w]
        if pool.state[0].heard - first.heard < patience:
            return
        _free(pool, r, first)


@part
def _fill(pool: Pool, r: Lines) -> None:
    """What idle workers do next: one part each, and more only when every idle worker has one."""
    s, begin = pool.state[0], pool.state[0].messages
    for w in range(len(r.doing) if r.waiting[0] + r.waiting[1] else 0):
        lane = r.lane[w]
        if r.doing[w] == IDLE and lane != on.NONE:
            lines = r.queues[0, lane], r.queues[1, lane]
            r.doing[w] = IDLE if lines[0].head < lines[0].tail or lines[1].head < lines[1].tail else ASKED
    while r.waiting[0] + r.waiting[1]:
        first = pool.workers[0]
        for w in range(len(r.doing)):
            if r.doing[w] == IDLE and (r.doing[first.number] != IDLE or prediction.before(pool.workers[w], first)):
                first = pool.workers[w]
        if r.doing[first.number] != IDLE:
            break
        if not _pull(pool, r, first):
            r.doing[first.number] = ASKED
            for w in range(len(r.doing) if r.lane[first.number] != on.NONE else 0):
                same = r.doing[w] == IDLE and r.lane[w] == r.lane[first.number]
                r.doing[w] = ASKED if same else r.doing[w]
    for w in range(len(r.doing)):
        r.doing[w] = IDLE if r.doing[w] == ASKED else r.doing[w]
    for _ in range(1, r.burst):
        for m in range(begin, s.messages):
            _pull(pool, r, pool.workers[pool.messages[m].worker])
    for m in range(begin, s.messages):
        on.send(pool, m)


@inlined
def _told(pool: Pool, r: Lines, task: Any) -> None:
    """A row has come, or word of work that went stale."""
    worker, doing = pool.workers[task.worker], r.doing[task.worker]
    pool.state[0].heard += 1
    if worker.message == task.message and task.thought == WANTED and doing == BUSY and not task.stale:
        task.thought = ANSWERED
        worker.wanted -= 1
        if not worker.wanted:
            _free(pool, r, worker)
    elif worker.message == task.message and task.thought == GONE:
        task.thought = ANSWERED
        if doing == DRAINING:
            _free(pool, r, worker)


@inlined
def _row(pool: Pool, r: Lines, x: int) -> bool:
    """The first row of a part counts, and its other copies are cancelled; whether its job is complete."""
    job, p = pool.tasks[x].job, pool.tasks[x].job * r.parts + pool.tasks[x].group
    one = r.part[p]
    if one.done:
        return False
    one.done = True
    r.waiting[1] -= one.copies < r.most
    for other in r.on[p, : one.copies]:
        if other != x:
            _give_up(pool, r, pool.tasks[other])
            on.cancel(pool, other)
    r.left[job] -= 1
    if r.left[job] == 0 and not r.own:
        r.open[one.site] -= 1
    return r.left[job] == 0


@inlined
def _give_up(pool: Pool, r: Lines, task: Any) -> None:
    """Wait for a copy no more."""
    worker, s = pool.workers[task.worker], pool.state[0]
    if r.doing[task.worker] != BUSY or worker.message != task.message or task.thought != WANTED:
        return
    task.thought = GONE
    worker.wanted -= 1
    if worker.wanted == 0 and r.frees:
        waited = s.now - worker.since
        if not worker.weight or waited > prediction.mean(worker):
            prediction.add(worker, waited)
        _free(pool, r, worker)
    elif worker.wanted == 0:
        s.turn += 1
        r.doing[task.worker], worker.turn, worker.heard = DRAINING, s.turn, s.heard
        r.many[BUSY] -= 1
        r.many[DRAINING] += 1
