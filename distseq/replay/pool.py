"""SimulatedPool, compiled: names and the order of events are those of distseq.cluster.simulated.

Tables of records: `messages` and `tasks` only grow, and a message's tasks, from `first` to `end`, are neighbours. `events` is a heap;
`arrived` holds tasks in the order of arrival. An open job j has rows of stale[slot[j]], (groups, n) bool: who need not do which
group. `startups` (depth, n) and `seconds` (groups,) of computing a mini-task are in seconds, as all times. The records of workers hold
what prediction and schedulers know, too.
"""

from collections import namedtuple
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numba import njit

from distseq.cluster.simulated import notice_seconds
from distseq.cluster.trace import Trace

NONE = -1
HOW = {"cache": True, "error_model": "numpy", "no_cfunc_wrapper": True, "_nrt": False}
Function = TypeVar("Function", bound=Callable[..., Any])
Pool = namedtuple("Pool", "state workers messages tasks events arrived startups seconds slot stale")


def entry(function: Function) -> Function:
    """A loop that Python calls. It allocates nothing, so arrays are not counted: that would take longer than the work."""
    loop: Function = njit(**HOW)(function)
    return loop


def compiled(function: Function) -> Function:
    """A part of a loop. Python cannot call it: the way in would take as long to compile as the rest."""
    part: Function = njit(no_cpython_wrapper=True, **HOW)(function)
    return part


def records(n: int, ints: str = "", floats: str = "", bools: str = "") -> np.ndarray:
    """(n,) records of zeros with these fields."""
    kinds = ((ints, np.int64), (floats, np.float64), (bools, np.bool_))
    return np.zeros(n, np.dtype([(name, kind) for names, kind in kinds for name in names.split()], align=True))


def new_pool(
    trace: Trace,
    seconds: np.ndarray,
    jobs: int,
    slots: int,
    messages: int,
    tasks: int,
    room: int,
    unfinished: str,
    whole: bool,
) -> Pool:
    """For at most so many jobs, jobs open at once, messages and mini-tasks; a message has `room` for so many mini-tasks, or for any number
    if no other is begun before it is sent."""
    startups, depths = _columns(trace)
    counts = "messages tasks room events scheduled arrived started round turn heard busies draining fills"
    pool = Pool(
        records(1, counts, "now busy", "lost serial whole"),
        records(
            trace.workers,
            "number depth next latest told order place repeats behind state turn message wanted heard asked",
            "weight total silent predicted since",
            "computes",
        ),
        records(messages, "worker first place end follows", "begun startup", "ended"),
        records(tasks, "job group message worker thought", "compute", "done stale"),
        records(messages, "number message", "at"),
        np.zeros(tasks, np.int64),
        startups,
        seconds,
        np.full(jobs, NONE),
        np.zeros((slots, len(seconds), trace.workers), np.bool_),
    )
    pool.state[["lost", "serial", "whole"]] = unfinished == "lost", unfinished == "serial", whole
    pool.state["room"] = room
    pool.workers["depth"], pool.workers["silent"] = depths, np.inf
    pool.workers["number"] = pool.workers["order"] = np.arange(trace.workers)
    pool.workers["latest"] = pool.workers["told"] = pool.workers["message"] = NONE
    return pool


def _columns(trace: Trace) -> tuple[np.ndarray, np.ndarray]:
    """(depth, n) start-ups and (n,) how many of each column count: a lost invocation goes with the next that is not."""
    table, columns, notice = trace.startups(), [], notice_seconds(trace)
    if np.isfinite(table).all():
        return table, np.full(trace.workers, len(table))
    for column in table.T:
        arrives = np.isfinite(column)
        lost = np.diff(np.flatnonzero(np.r_[True, arrives])) - 1  # before each that arrives
        columns.append(column[arrives] + notice * lost if arrives.any() else np.array([np.inf]))
    depths = np.array([len(column) for column in columns])
    return np.array([np.resize(column, len(table)) for column in columns]).T.copy(), depths


@compiled
def publish(pool: Pool, job: int, slot: int) -> None:
    pool.slot[job] = slot
    pool.stale[slot] = False


@compiled
def message(pool: Pool, worker: int) -> int:
    """A new one, without mini-tasks."""
    s = pool.state[0]
    one = pool.messages[s.messages]
    one.worker, one.follows, one.begun = worker, NONE, np.inf
    one.first = one.place = one.end = s.tasks
    s.tasks += s.room
    s.messages += 1
    return int(s.messages - 1)


@compiled
def forget(pool: Pool) -> None:
    """The latest message, which has no mini-task."""
    pool.state[0].messages -= 1
    pool.state[0].tasks -= pool.state[0].room


@compiled
def put(pool: Pool, m: int, job: int, group: int) -> int:
    """One more mini-task in a message."""
    s, one = pool.state[0], pool.messages[m]
    task = pool.tasks[one.end]
    task.job, task.group, task.message, task.worker = job, group, m, one.worker
    pool.stale[pool.slot[job], group, one.worker] = False
    one.end += 1
    s.tasks = max(s.tasks, one.end)
    return int(one.end - 1)


@compiled
def send(pool: Pool, m: int) -> None:
    worker = pool.workers[pool.messages[m].worker]
    before, worker.latest = worker.latest, m
    if pool.state[0].serial and before != NONE and not pool.messages[before].ended:
        pool.messages[before].follows = m
    else:
        _start(pool, m)


@compiled
def _start(pool: Pool, m: int) -> None:
    """Start up; if all is stale by now, end at once."""
    s, one = pool.state[0], pool.messages[m]
    worker = pool.workers[one.worker]
    one.begun, one.startup = s.now, pool.startups[worker.next, one.worker]
    if _go_on(pool, m, one.startup):
        worker.next = worker.next + 1 if worker.next + 1 < worker.depth else 0
        s.started += 1
    else:
        _schedule(pool, m, 0.0)


@compiled
def _end(pool: Pool, m: int) -> None:
    s, one = pool.state[0], pool.messages[m]
    one.ended = True
    s.busy += s.now - one.begun
    if one.follows != NONE:
        _start(pool, one.follows)


@compiled
def _stale(pool: Pool, x: int) -> bool:
    task = pool.tasks[x]
    slot = pool.slot[task.job]
    return bool(slot == NONE or pool.stale[slot, task.group, task.worker])


@compiled
def _go_on(pool: Pool, m: int, startup: float) -> bool:
    """Pass over stale mini-tasks and begin the next; whether there is one."""
    one = pool.messages[m]
    while one.place < one.end and _stale(pool, one.place):
        one.place += 1
    if one.place < one.end:
        _schedule(pool, m, startup + pool.seconds[pool.tasks[one.place].group])
    return bool(one.place < one.end)


@compiled
def _schedule(pool: Pool, m: int, seconds: float) -> None:
    s, events = pool.state[0], pool.events
    at, k = s.now + max(0.0, seconds), s.events
    while k and at < events[(k - 1) // 2].at:
        events[k] = events[(k - 1) // 2]
        k = (k - 1) // 2
    events[k].at, events[k].number, events[k].message = at, s.scheduled, m
    s.events += 1
    s.scheduled += 1


@compiled
def _next(pool: Pool) -> int:
    """Take the first message out of the heap; of those at one time, the one that was scheduled first."""
    s, events = pool.state[0], pool.events
    s.events -= 1
    m, last, k, child = events[0].message, events[s.events], 0, 1
    while child < s.events:
        if child + 1 < s.events and _before(events[child + 1], events[child]):
            child += 1
        if _before(last, events[child]):
            break
        events[k] = events[child]
        k, child = child, 2 * child + 1
    events[k] = last
    return int(m)


@compiled
def _before(a: Any, b: Any) -> bool:
    return bool(a.at < b.at or (a.at == b.at and a.number < b.number))


@compiled
def poll(pool: Pool, until: float) -> None:
    s, events = pool.state[0], pool.events
    arrived = s.arrived
    while s.arrived == arrived and s.events and events[0].at <= until:
        s.now = max(s.now, events[0].at)
        while s.events and events[0].at <= s.now:
            _event(pool, _next(pool))
    if s.arrived == arrived:
        s.now = max(s.now, until)


@compiled
def _event(pool: Pool, m: int) -> None:
    """A mini-task has ended."""
    s, one = pool.state[0], pool.messages[m]
    if one.ended:
        return
    if one.place < one.end:
        task = pool.tasks[one.place]
        task.done, task.compute = True, pool.seconds[task.group] if pool.slot[task.job] != NONE else 0.0
        one.place += 1
    ended = not _go_on(pool, m, 0.0)
    if ended or not s.whole:
        for x in range(one.first, one.place):
            if pool.tasks[x].done:
                _deliver(pool, x)
        one.first = one.place
    if ended:
        _end(pool, m)


@compiled
def _deliver(pool: Pool, x: int) -> None:
    s, task = pool.state[0], pool.tasks[x]
    task.stale = _stale(pool, x)
    if not task.stale:
        pool.stale[pool.slot[task.job], task.group, task.worker] = True
    pool.arrived[s.arrived] = x
    s.arrived += 1


@compiled
def cancel(pool: Pool, x: int) -> None:
    task = pool.tasks[x]
    if pool.slot[task.job] != NONE:
        pool.stale[pool.slot[task.job], task.group, task.worker] = True
    _drop_lost(pool, pool.workers[task.worker].latest)


@compiled
def _drop_lost(pool: Pool, m: int) -> None:
    """Under "lost", a message with nothing left to do is gone at once."""
    one = pool.messages[m]
    if pool.state[0].lost and m != NONE and not one.ended:
        for x in range(one.first, one.end):
            if (x >= one.place or pool.tasks[x].done) and not _stale(pool, x):
                return
        _end(pool, m)


@compiled
def retire(pool: Pool, job: int) -> None:
    pool.slot[job] = NONE
    for worker in pool.workers:
        _drop_lost(pool, worker.latest)


@compiled
def worker_seconds(pool: Pool) -> float:
    s = pool.state[0]
    seconds = s.busy
    for one in pool.messages[: s.messages]:
        if not one.ended:
            seconds += max(0.0, s.now - one.begun)
    return float(seconds)
