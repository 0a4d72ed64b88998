"""Compiled form of distseq.scheduling.pipeline_scheduler on the simulated pool, with the same names.

Learners never end: when a job is decoded, the next one opens in its slot. The arrays of `Lines`:

doing (n,): what each worker does, IDLE to ASKED; many (states,): how many workers are in each state.
lane (n,): the only site of each worker, NONE if it has several.
part (parts,): records of all parts of all jobs; part g of job j has the index j x parts + g. `turn` orders its queue, `copies`
    counts its sendings, `site` is where it runs, `done` tells that its row is there.
on (parts, copies): the mini-tasks of each part's copies.
left (jobs,): parts of each job without a row.
open (sites,): open jobs at each site.
at (sites, n) bool: which workers belong to which site.
line (kinds, sites, capacity): queues of parts, of kind 0 those never sent, of kind 1 those that may have another copy.
queues (kinds, sites): records of the head and tail of each queue.
waiting (kinds,): parts in all queues of a kind.
complete, decoded, learners (jobs,): the order in which jobs complete; their decode times and learners.

Wherever `turn` is compared, the smaller one came first.
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

# What a worker is doing. ASKED: idle, but in this step there was no part for it, so that it is not tried again.
IDLE, BUSY, DRAINING, ASKED = range(4)
WANTED, ANSWERED, GONE = range(3)  # what the scheduler expects of a mini-task
Lines = namedtuple(
    "Lines",
    "models parts most burst own frees seconds master "
    "doing many lane part on left open at queues line waiting complete decoded learners",
)


def replay_pipeline(
    trace: Trace, pipeline: Pipeline, models: int, jobs: int, *, unfinished: str, cost: float
) -> tuple[np.ndarray, float, int, int, np.ndarray]:
    """The fields of Replayed: decode times (jobs,), busy worker-seconds, messages started, wanted rows, learners (jobs,)."""
    n, parts, copies, burst = trace.workers, pipeline.parts, min(pipeline.copies, trace.workers), pipeline.burst
    # Besides the jobs to decode, each learner has one open job when the replay ends. The slope is multiplied by 1 / parts and
    # not divided by parts, as the real scheduler does it: the predictions must agree to the last digit.
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
        # A part enters a queue once per copy at most.
        np.zeros((2, sites, copies * (opened if own else total)), int),
        *(np.zeros(2, int), np.zeros(opened, int), np.zeros(jobs), np.zeros(jobs, int)),
    )
    pool = on.new_pool(trace, np.full(parts, seconds * cost), opened, models, sends, sends * burst, unfinished, False)
    # A message is opened before it is known how many parts it will carry: up to `burst` may follow the first.
    pool.state["room"] = burst
    _pipelined(pool, r)
    return r.decoded, *on.counted(pool), r.learners


@loop
def _pipelined(pool: Pool, r: Lines) -> None:
    s, n, completed, decoded, read = pool.state[0], len(pool.workers), 0, 0, 0
    for worker in pool.workers:
        _free(pool, r, worker)
    # In the order of learners, as the master opens them.
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
        # 0 * n and not 0, so that both have one type, which numba needs to compile the loop.
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
    # Predicted once, when it becomes idle, as in the real scheduler.
    worker.turn, worker.predicted = pool.state[0].turn, prediction.expected(worker, r.seconds)


@part
def _open(pool: Pool, r: Lines, job: int, slot: int) -> None:
    on.publish(pool, job, slot)
    lane = 0
    for k in range(len(r.open)):
        # The first of the lanes with the fewest open jobs, as `min` finds it in the real scheduler.
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
    """Gives a worker a part: one never sent or, if its message is still empty, another copy; False if there is none."""
    w, none = worker.number, len(r.part)
    for kind in range(1 if worker.wanted else 2):
        p = none
        low, high = (0, len(r.at)) if r.lane[w] == on.NONE else (r.lane[w], r.lane[w] + 1)
        for site in range(low, high if r.waiting[kind] else low):
            queue, line = r.queues[kind, site], r.line[kind, site]
            # A part whose row has come stays in its queue until it is at the head: removing it from the middle would cost a
            # search, which the real scheduler's ordered dict does not need.
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
    """Assumes draining workers idle that have been silent for at least `patience` deliveries, longest first."""
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
    """Gives every idle worker a part, and further ones (up to `burst`) only when every idle worker has one."""
    s, begin = pool.state[0], pool.state[0].messages
    # Workers whose lane has nothing are skipped at once: with many lanes most searches below would be in vain.
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
            # Nothing for one worker of a lane is nothing for the others.
            for w in range(len(r.doing) if r.lane[first.number] != on.NONE else 0):
                same = r.doing[w] == IDLE and r.lane[w] == r.lane[first.number]
                r.doing[w] = ASKED if same else r.doing[w]
    for w in range(len(r.doing)):
        r.doing[w] = IDLE if r.doing[w] == ASKED else r.doing[w]
    for _ in range(1, r.burst):
        for m in range(begin, s.messages):
            _pull(pool, r, pool.workers[pool.messages[m].worker])
    # Sent only now: a message starts up when it is sent, and all of a step are sent together.
    for m in range(begin, s.messages):
        on.send(pool, m)


@inlined
def _told(pool: Pool, r: Lines, task: Any) -> None:
    """Takes in a row or the report of a stale one."""
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
    """Counts the first row of a part and cancels its other copies; whether that completes the job."""
    job, p = pool.tasks[x].job, pool.tasks[x].job * r.parts + pool.tasks[x].group
    one = r.part[p]
    if one.done:
        return False
    one.done = True
    # It was queued for another copy, unless it has them all; it leaves the queue later (see _pull) but counts no more.
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
    """Stops waiting for a copy."""
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
