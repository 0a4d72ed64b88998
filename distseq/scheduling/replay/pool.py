"""Compiled form of distseq.cluster.simulated, with the same names and the same order of events.

The arrays of `Pool`, of which `state`, `workers`, `messages`, `tasks` and `events` are tables of records:

state (1,): counters and the time; workers (n,). Both also hold the fields of prediction and schedulers.
messages, tasks: append-only; the tasks of a message are neighbours, from `first` to `end`.
events: a heap, by time and then by the order of scheduling.
arrived: indices of tasks, in the order of arrival.
startups (depth, n): start-up seconds of each worker's invocations; a column that ends repeats.
seconds (groups,): compute seconds of a mini-task of each group.
slot (jobs,): place of an open job in `stale`, NONE if it is not open.
stale (slots, groups, n) bool: mini-tasks that a worker need not do any more.
"""

from collections import namedtuple
from importlib.resources import files
from typing import Any
from zlib import crc32

import numpy as np
from numba import njit

from distseq.cluster.simulated import notice_seconds
from distseq.cluster.trace import Trace

NONE = -1
Pool = namedtuple("Pool", "state workers messages tasks events arrived startups seconds slot stale")


def _sources(package: str) -> bytes:
    """The modules of a package, one after the other; also where the package lies in an archive."""
    modules = [file for file in files(package).iterdir() if file.name.endswith(".py")]
    return b"".join(file.read_bytes() for file in sorted(modules, key=lambda file: file.name))


def _cacheable() -> bool:
    """Whether numba finds a folder to cache in: beside this file, or below the user's home; it raises where there is none."""
    try:
        njit(cache=True)(_cacheable)
    except RuntimeError:
        # Then loops are compiled anew in each process. Not cached in the temporary folder, where others could put code.
        return False
    return True


# The name of a field of `state`, and with it part of the type that every loop is compiled for. numba's cache looks at the time
# of one source file only and would go on with loops whose callees have changed; a changed type is not in the cache.
VERSION = f"version{crc32(_sources('distseq.scheduling.replay') + _sources('distseq.scheduling'))}"
# Loops allocate nothing, so numba need not count references to arrays (_nrt), which would take longer than the loops' own work;
# and division by zero needs no check (error_model).
HOW: dict[str, Any] = {"error_model": "numpy", "_nrt": False}
LOOP: dict[str, Any] = HOW | {"cache": _cacheable(), "no_cfunc_wrapper": True}
loop = njit(**LOOP)
# For functions that only loops call: a wrapper to call them from Python would take as long to compile as the function.
part = njit(**LOOP | {"no_cpython_wrapper": True})
inlined = njit(**HOW | {"inline": "always"})  # for functions that are called in one place


def records(n: int, ints: str = "", floats: str = "", bools: str = "") -> np.ndarray:
    """(n,) records of zeros with these fields."""
    fields = [(name, int) for name in ints.split()] + [(name, float) for name in floats.split()]
    return np.zeros(n, np.dtype(fields + [(name, bool) for name in bools.split()], align=True))


def new_pool(
    trace: Trace, seconds: np.ndarray, jobs: int, slots: int, messages: int, tasks: int, unfinished: str, whole: bool
) -> Pool:
    """A pool with room for `jobs` jobs, `slots` of them open at once, `messages` messages and `tasks` mini-tasks.

    seconds (groups,): compute seconds of a mini-task of each group; whole: rows of a message arrive with its last.
    """
    startups, depths = _columns(trace)
    counts = "messages tasks room events scheduled arrived started received round turn heard"
    known = "number depth next latest told order place repeats behind turn message wanted heard"
    pool = Pool(
        records(1, counts, "now busy", f"lost serial whole {VERSION}"),
        records(trace.workers, known, "weight total silent predicted since", "computes"),
        records(messages, "worker first place end follows", "begun startup", "ended"),
        records(tasks, "job group message worker thought", "compute", "done stale"),
        records(messages, "number message", "at"),
        np.zeros(tasks, int),
        *(startups, seconds, np.full(jobs, NONE), np.zeros((slots, len(seconds), trace.workers), bool)),
    )
    # Flags in the state instead of arguments: every `part` gets the state anyway.
    pool.state[["lost", "serial", "whole"]] = unfinished == "lost", unfinished == "serial", whole
    workers = pool.workers
    workers["depth"], workers["silent"] = depths, np.inf
    workers["number"] = workers["order"] = workers["turn"] = np.arange(trace.workers)
    # NONE and not 0, which is the first message.
    workers["latest"] = workers["told"] = workers["message"] = NONE
    return pool


def _columns(trace: Trace) -> tuple[np.ndarray, np.ndarray]:
    """(depth, n) start-ups and (n,) the length of each column; a lost invocation is merged into the next that answers."""
    table, columns, notice = trace.startups(), [], notice_seconds(trace)
    if np.isfinite(table).all():
        return table, np.full(trace.workers, len(table))
    for column in table.T:
        arrives = np.isfinite(column)
        # The lost invocations before each one that answers: each costs the time until it is noticed and sent again. A column
        # without any answer is infinite, and with it the replay's seconds.
        lost = np.diff(np.flatnonzero(np.r_[True, arrives])) - 1
        columns.append(column[arrives] + notice * lost if arrives.any() else np.array([np.inf]))
    padded = [np.resize(column, len(table)) for column in columns]
    return np.array(padded).T.copy(), np.array([len(column) for column in columns])


def counted(pool: Pool) -> tuple[float, int, int]:
    """Busy worker-seconds so far, messages started, and wanted rows."""
    s = pool.state[0]
    begun = pool.messages["begun"][: s["messages"]][~pool.messages["ended"][: s["messages"]]]
    return float(s["busy"] + np.maximum(0.0, s["now"] - begun).sum()), int(s["started"]), int(s["received"])


@part
def publish(pool: Pool, job: int, slot: int) -> None:
    pool.slot[job] = slot
    pool.stale[slot] = False


@part
def message(pool: Pool, worker: int) -> int:
    """A new message without mini-tasks: it has `room` for some, and the newest message may grow without bound."""
    s = pool.state[0]
    m, one = s.messages, pool.messages[s.messages]
    one.worker, one.follows, one.begun = worker, NONE, np.inf
    one.first = one.place = one.end = s.tasks
    s.tasks += s.room
    s.messages += 1
    return m


@part
def put(pool: Pool, m: int, job: int, group: int) -> int:
    """Adds a mini-task to a message."""
    s, one = pool.state[0], pool.messages[m]
    task = pool.tasks[one.end]
    task.job, task.group, task.message, task.worker = job, group, m, one.worker
    pool.stale[pool.slot[job], group, one.worker] = False
    one.end += 1
    s.tasks = max(s.tasks, one.end)
    return one.end - 1


@part
def send(pool: Pool, m: int) -> None:
    worker = pool.workers[pool.messages[m].worker]
    before, worker.latest = worker.latest, m
    # Under "serial" a message waits for the one before it on the same worker; otherwise it starts up beside it.
    if pool.state[0].serial and before != NONE and not pool.messages[before].ended:
        pool.messages[before].follows = m
    else:
        _start(pool, m)


@part
def _start(pool: Pool, m: int) -> None:
    """Starts a message up, or ends it at once if all its mini-tasks are stale by now."""
    s, one = pool.state[0], pool.messages[m]
    worker = pool.workers[one.worker]
    one.begun, one.startup = s.now, pool.startups[worker.next, one.worker]
    # A message that is stale before it starts consumes no entry of the trace: the real pool would not have invoked it.
    if _go_on(pool, m, one.startup):
        worker.next = worker.next + 1 if worker.next + 1 < worker.depth else 0
        s.started += 1
    else:
        _schedule(pool.state[0], pool.events, m, 0.0)


@part
def _stale(slot: np.ndarray, stale: np.ndarray, task: Any) -> bool:
    return slot[task.job] == NONE or stale[slot[task.job], task.group, task.worker]


@part
def _go_on(pool: Pool, m: int, startup: float) -> bool:
    """Skips stale mini-tasks and begins the next one; False if there is none."""
    one = pool.messages[m]
    while one.place < one.end and _stale(pool.slot, pool.stale, pool.tasks[one.place]):
        one.place += 1
    if one.place < one.end:
        _schedule(pool.state[0], pool.events, m, startup + pool.seconds[pool.tasks[one.place].group])
    return one.place < one.end


@part
def _schedule(s: Any, events: np.ndarray, m: int, seconds: float) -> None:
    at, k = s.now + max(0.0, seconds), s.events
    # heapq is not available in compiled code: a binary heap, sifted up here and down in _next.
    while k and at < events[(k - 1) // 2].at:
        events[k] = events[(k - 1) // 2]
        k = (k - 1) // 2
    # The sequence number decides between events at one time, as in the real pool: ties are common, since profiles repeat
    # numbers.
    events[k].at, events[k].number, events[k].message = at, s.scheduled, m
    s.events += 1
    s.scheduled += 1


@inlined
def _next(pool: Pool) -> int:
    """Removes and returns the message of the earliest event; ties in the order of scheduling."""
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
    return m


@part
def _before(a: Any, b: Any) -> bool:
    return a.at < b.at or (a.at == b.at and a.number < b.number)


@inlined
def poll(pool: Pool, until: float) -> None:
    s, events = pool.state[0], pool.events
    arrived = s.arrived
    while s.arrived == arrived and s.events and events[0].at <= until:
        s.now = max(s.now, events[0].at)
        while s.events and events[0].at <= s.now:
            _event(pool, _next(pool))
    if s.arrived == arrived:
        s.now = max(s.now, until)


@inlined
def _event(pool: Pool, m: int) -> None:
    """Handles the end of a message's current mini-task."""
    s, one = pool.state[0], pool.messages[m]
    if one.ended:
        return
    if one.place < one.end:
        task = pool.tasks[one.place]
        # A mini-task whose job was retired meanwhile counts as done, but its compute is not reported: its load is not known
        # any more.
        task.done, task.compute = True, pool.seconds[task.group] if pool.slot[task.job] != NONE else 0.0
        one.place += 1
    ended = not _go_on(pool, m, 0.0)
    # All rows of the message arrive with its last: nothing to hand over yet.
    if s.whole and not ended:
        return
    for x in range(one.first, one.place):
        task = pool.tasks[x]
        if task.done:
            task.stale = _stale(pool.slot, pool.stale, task)
            if not task.stale:
                pool.stale[pool.slot[task.job], task.group, task.worker] = True
                s.received += 1
            pool.arrived[s.arrived] = x
            s.arrived += 1
    one.first = one.place
    if ended:
        one.ended = True
        s.busy += s.now - one.begun
        if one.follows != NONE:
            _start(pool, one.follows)


@part
def cancel(pool: Pool, x: int) -> None:
    task = pool.tasks[x]
    if pool.slot[task.job] != NONE:
        pool.stale[pool.slot[task.job], task.group, task.worker] = True
    _drop_lost(pool, task.worker)


@part
def retire(pool: Pool, job: int) -> None:
    pool.slot[job] = NONE
    for worker in range(len(pool.workers)):
        _drop_lost(pool, worker)


@part
def _drop_lost(pool: Pool, worker: int) -> None:
    """Under "lost", ends a worker's latest message at once if nothing in it is wanted any more."""
    s, m = pool.state[0], pool.workers[worker].latest
    one = pool.messages[m]
    if s.lost and m != NONE and not one.ended:
        for x in range(one.first, one.end):
            if (x >= one.place or pool.tasks[x].done) and not _stale(pool.slot, pool.stale, pool.tasks[x]):
                return
        one.ended = True
        s.busy += s.now - one.begun
