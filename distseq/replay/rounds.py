"""RoundScheduler under safe closing on the simulated pool, in one compiled loop: the same decode times, a hundred times quicker.

At most T + 1 jobs are open; the one that started in round t has slot t mod (T + 1). Names are those of
distseq.scheduling.rounds, distseq.coding and distseq.cluster.simulated, whose order of events this keeps.
"""

from heapq import heappop, heappush
from math import exp, floor, log

import numpy as np
from numba import njit

from distseq.replay.pipelined import LOST, SERIAL
from distseq.scheduling.prediction import DECAY, LEAST

STREAMED, REPEATED, MULTIPLEXED, SENT_AGAIN, COPIED = range(5)  # how a scheme assigns
FREE = -1  # of a slot


@njit(cache=True)
def rounds(
    startups: np.ndarray,  # (depth, n) seconds
    depths: np.ndarray,  # (n,) entries of each column
    slope: float,
    master: float,
    cutoff: float,
    models: int,
    jobs: int,
    assigns: int,
    delay: int,
    numbers: np.ndarray,  # (3,) of the scheme: W, B and coded groups; copies; how few missing parts are copied
    loads: np.ndarray,  # (groups,) units of the slope per mini-task
    kind: np.ndarray,  # (groups,) which code
    set_of: np.ndarray,  # (codes, n) replica set of each worker
    need: np.ndarray,  # (codes,) sets that must answer
    member: np.ndarray,  # (n,) position in the replica set of the last code
    sizes: np.ndarray,  # (sets,) workers in each set of the last code
    dense: bool,
    ordered: bool,
    load: float,
    whole: bool,
    mode: int,
    most: int,  # mini-tasks of a message
) -> tuple[np.ndarray, np.ndarray, float, int, int]:
    """(jobs,) decode times, and learners; until the last of them, busy worker-seconds, messages that have started, rows that were wanted."""
    n, groups, slots, owners = startups.shape[1], len(loads), delay + 1, np.zeros(jobs, np.int64)
    times, busy, decoded, received = np.zeros(jobs), 0.0, 0, 0
    start = np.full(slots, FREE)  # round of each open job
    owner = np.full(slots, FREE)
    rows = np.zeros((slots, groups, n), np.bool_)
    gone, wanted = np.zeros((slots, groups, n), np.bool_), np.zeros((slots, groups, n), np.bool_)
    hit, answered = np.zeros((slots, groups, n), np.bool_), np.zeros((slots, groups), np.int64)
    left, owed = np.zeros(slots, np.int64), np.zeros(slots, np.int64)
    any_row = np.zeros((slots, groups), np.bool_)
    # Messages of workers, numbers of which are used again.
    room = 8 * n
    worker_of, long, place = np.zeros(room, np.int64), np.zeros(room, np.int64), np.zeros(room, np.int64)
    took = np.zeros((room, most))
    task_start, task_group = np.zeros((room, most), np.int64), np.zeros((room, most), np.int64)
    begun, startup, ended, follows = np.zeros(room), np.zeros(room), np.zeros(room, np.bool_), np.full(room, -1)
    number, spare, numbered = np.zeros(room, np.int64), list(range(room)), 0
    alive = np.full(n, -1)  # LOST: the message of each worker
    invocations, running, queued = np.zeros(n, np.int64), np.full(n, -1), np.full(n, -1)
    # Prediction.
    weight, total, known, told = np.zeros(n), np.zeros(n), np.zeros(n, np.bool_), np.full(n, -1)
    since = np.full(n, np.inf)
    at, place_of = np.arange(n), np.arange(n)  # the worker at each place of a plan, and back
    # Backup copies.
    missing, copied, idle = np.zeros(n, np.bool_), np.zeros(n, np.bool_), [0]
    idle.pop()
    few = 0
    events = [(0.0, 0, 0)]
    events.pop()
    pushed, now, t = 0, 0.0, -1
    ready, complete = list(range(models)), [0]
    complete.pop()
    running_round, round_begun, first_arrival, outstanding = False, 0.0, np.inf, 0
    block_worker, block_set, block_kind = -1, -1, -1
    turns, turn = 0, np.arange(n)  # in which order messages are sent
    plan_start, plan_group, plan_long = (
        np.zeros((n, most), np.int64),
        np.zeros((n, most), np.int64),
        np.zeros(n, np.int64),
    )
    while True:
        sending = False
        if len(complete):
            for q in complete:
                now += master
                times[decoded], owners[decoded] = now, owner[q]
                decoded += 1
                ready.append(owner[q])
                outstanding -= owed[q]
                start[q], owed[q] = FREE, 0
                if mode == LOST:
                    busy += _drop(
                        alive, ended, place, long, task_start, task_group, start, gone, rows, slots, now, begun
                    )
                if decoded == jobs:
                    for m in range(len(ended)):
                        if not ended[m] and long[m] and begun[m] < np.inf:
                            busy += max(0.0, now - begun[m])
                    return times, owners, busy, int(invocations.sum()), received
            complete.clear()
            continue
        may_end = not running_round or outstanding == 0
        due = max(round_begun + cutoff, first_arrival)
        if not may_end and now >= due and first_arrival < np.inf:
            if assigns != MULTIPLEXED:
                may_end = start[(t - delay) % slots] != t - delay if t >= delay else True
            else:
                if block_kind == -2:
                    block_worker, block_set, block_kind = _short(
                        t, delay, numbers, start, left, rows, set_of, need, kind, dense, hit
                    )
                may_end = block_kind == -1
        if may_end:
            if running_round and mode == LOST:
                for q in range(slots):
                    if start[q] != FREE and owed[q]:
                        for g in range(groups):
                            for w in range(n):
                                if wanted[q, g, w]:
                                    gone[q, g, w] = True
                busy += _drop(alive, ended, place, long, task_start, task_group, start, gone, rows, slots, now, begun)
            wanted[:] = False
            owed[:] = 0
            outstanding, running_round = 0, False
            while not outstanding:
                t += 1
                slot = t % slots
                opens = len(ready) > 0
                if opens:
                    start[slot], owner[slot], left[slot] = t, ready.pop(0), groups
                    rows[slot], gone[slot], hit[slot] = False, False, False
                    answered[slot], any_row[slot] = 0, False
                if ordered:
                    at = _order(weight, total, known, since, slope, load, now)
                    place_of[at] = np.arange(n)
                _plan(t, delay, assigns, numbers, groups, start, opens, rows, any_row, set_of, member, sizes, need, answered, dense, plan_start, plan_group, plan_long)  # fmt: skip
                if opens and assigns == COPIED:
                    missing[:], copied[:], few = True, False, numbers[0]
                    idle.clear()
                for k in range(n):
                    for j in range(plan_long[k]):
                        q, g, w = plan_start[k, j] % slots, plan_group[k, j], at[k]
                        wanted[q, g, w] = True
                        gone[q, g, w] = False
                        owed[q] += 1
                        outstanding += 1
            running_round, round_begun, first_arrival, sending = True, now, np.inf, True
            turns, turn = n, np.arange(n)
            block_kind = -2
            if ordered:
                for k in range(n):
                    if plan_long[k]:
                        w = at[k]
                        if since[w] < np.inf:
                            silent, usual = now - since[w], exp(total[w] / weight[w]) if weight[w] else 0.0
                            weight[w], total[w] = (
                                DECAY * weight[w] + 1,
                                DECAY * total[w] + log(max(max(silent, usual), LEAST)),
                            )
                        since[w] = now
        elif assigns == COPIED and 0 < missing.sum() <= few:
            plan_long[:], turns = 0, 0
            for g in range(n):
                if len(idle) and missing[g] and not copied[g]:
                    w = idle.pop(0)
                    copied[g] = True
                    k = place_of[w]
                    plan_start[k, plan_long[k]], plan_group[k, plan_long[k]] = t, g
                    plan_long[k] += 1
                    gone[t % slots, g, w] = False
                    if plan_long[k] == 1:
                        turn[turns], turns = w, turns + 1
                    sending = True
        if sending:
            for w in turn[:turns]:
                k = place_of[w]
                if not plan_long[k]:
                    continue
                if not len(spare):
                    old = len(ended)
                    worker_of, long, place = _more(worker_of), _more(long), _more(place)
                    number, begun, startup, took = _more(number), _more(begun), _more(startup), _more(took)
                    ended, follows = _more(ended), _more(follows)
                    task_start, task_group = _more(task_start), _more(task_group)
                    long[old:] = 0
                    for m in range(old, 2 * old):
                        spare.append(m)
                m = spare.pop()
                numbered += 1
                number[m], worker_of[m], long[m], place[m] = numbered, w, plan_long[k], 0
                begun[m], startup[m], ended[m], follows[m] = np.inf, 0.0, False, -1
                for j in range(plan_long[k]):
                    task_start[m, j], task_group[m, j] = plan_start[k, j], plan_group[k, j]
                alive[w] = m
                if mode == SERIAL and running[w] >= 0:
                    if queued[w] < 0:
                        follows[running[w]] = m
                    else:
                        follows[queued[w]] = m
                    queued[w] = m
                    continue
                running[w] = m
                begun[m], pushed = now, pushed + 1
                while place[m] < long[m] and _stale(m, place[m], w, task_start, task_group, start, gone, rows, slots):
                    place[m] += 1
                if place[m] == long[m]:
                    heappush(events, (now, pushed, m))
                    continue
                startup[m] = startups[invocations[w] % depths[w], w]
                invocations[w] += 1
                heappush(events, (now + max(0.0, startup[m] + slope * loads[task_group[m, place[m]]]), pushed, m))
        due = max(round_begun + cutoff, first_arrival)
        until = due if first_arrival < np.inf and due > now and outstanding else np.inf
        heard = False
        while not heard and len(events) and events[0][0] <= until:
            now = max(now, events[0][0])
            arrivals = [(0, 0, 0, 0, False, 0.0, 0.0)]
            arrivals.pop()
            while len(events) and events[0][0] <= now:
                m = heappop(events)[2]
                if ended[m]:
                    spare.append(m)
                    long[m] = 0
                    continue
                w = worker_of[m]
                last = place[m]
                if place[m] < long[m]:
                    place[m] += 1
                while place[m] < long[m] and _stale(m, place[m], w, task_start, task_group, start, gone, rows, slots):
                    place[m] += 1
                over = place[m] == long[m]
                if not over:
                    pushed += 1
                    heappush(events, (now + slope * loads[task_group[m, place[m]]], pushed, m))
                if last < long[m]:  # what is done and not sent yet has a negative number
                    r, g = task_start[m, last], task_group[m, last]
                    took[m, last] = slope * loads[g] if start[r % slots] == r else 0.0
                    task_group[m, last] = -1 - g
                low, high = last, min(last + 1, long[m])
                if whole:
                    low, high = 0, long[m] if over else 0
                for k in range(low, high):
                    g = -1 - task_group[m, k]
                    if g < 0:
                        continue
                    task_group[m, k] = g
                    r = task_start[m, k]
                    q = r % slots
                    old_row = start[q] != r or gone[q, g, w] or rows[q, g, w]
                    if not old_row:
                        rows[q, g, w] = True
                    arrivals.append((w, r, g, number[m], old_row, startup[m], took[m, k]))
                    heard = True
                if not over:
                    continue
                ended[m] = True
                busy += now - begun[m]
                if alive[w] == m:
                    alive[w] = -1
                follower = follows[m]
                spare.append(m)
                long[m] = 0
                if mode != SERIAL:
                    continue
                running[w] = follower
                if follower < 0:
                    continue
                m = follower
                if queued[w] == m:
                    queued[w] = -1
                begun[m], pushed = now, pushed + 1
                while place[m] < long[m] and _stale(m, place[m], w, task_start, task_group, start, gone, rows, slots):
                    place[m] += 1
                if place[m] == long[m]:
                    heappush(events, (now, pushed, m))
                    continue
                startup[m] = startups[invocations[w] % depths[w], w]
                invocations[w] += 1
                heappush(events, (now + max(0.0, startup[m] + slope * loads[task_group[m, place[m]]]), pushed, m))
            for w, r, g, message, old_row, first, compute in arrivals:
                q = r % slots
                if ordered:
                    if now - first - compute > since[w] - 1e-9:
                        since[w] = np.inf
                    if told[w] != message:
                        told[w] = message
                        weight[w], total[w] = DECAY * weight[w] + 1, DECAY * total[w] + log(max(first, LEAST))
                    known[w] = known[w] or (start[q] == r and compute > 0)
                if old_row:
                    continue
                received += 1
                if wanted[q, g, w]:
                    wanted[q, g, w] = False
                    owed[q] -= 1
                    outstanding -= 1
                    first_arrival = min(first_arrival, now)
                if start[q] != r:
                    continue
                if assigns == COPIED and r == t:
                    missing[g] = False
                    idle.append(w)
                any_row[q, g] = True
                c = kind[g]
                k = set_of[c, w]
                if not hit[q, g, k]:
                    hit[q, g, k] = True
                    answered[q, g] += 1
                    if answered[q, g] == need[c]:
                        left[q] -= 1
                        if not left[q]:
                            complete.append(q)
                if block_worker == w or block_kind == -3 or (block_kind >= 0 and set_of[block_kind, w] == block_set):
                    block_kind, block_worker = -2, -1
        if not heard:
            now = max(now, until)


@njit(cache=True)
def _more(values):  # type: ignore[no-untyped-def]
    return np.concatenate((values, values))


@njit(cache=True)
def _stale(m, k, w, task_start, task_group, start, gone, rows, slots):  # type: ignore[no-untyped-def]
    """Whether nobody needs the row of place k of message m."""
    r, g = task_start[m, k], task_group[m, k]
    q = r % slots
    return start[q] != r or gone[q, g, w] or rows[q, g, w]


@njit(cache=True)
def _drop(alive, ended, place, long, task_start, task_group, start, gone, rows, slots, now, begun):  # type: ignore[no-untyped-def]
    """End the messages that have nothing left to do; their seconds."""
    busy = 0.0
    for w in range(len(alive)):
        m = alive[w]
        if m < 0 or ended[m]:
            continue
        over = True
        for k in range(long[m]):
            g = task_group[m, k]
            if g < 0:
                g = -1 - g  # done, but not sent yet
            elif k < place[m]:
                continue
            r = task_start[m, k]
            q = r % slots
            over = over and (start[q] != r or gone[q, g, w] or rows[q, g, w])
        if over:
            ended[m] = True
            alive[w] = -1
            busy += now - begun[m]
    return busy


@njit(cache=True)
def _order(weight, total, known, since, slope, load, now):  # type: ignore[no-untyped-def]
    """Prediction.order"""
    n = len(weight)
    seen, logs, units = 0, 0.0, 0
    for w in range(n):
        if weight[w]:
            seen += 1
            logs += total[w] / weight[w]
        units += known[w]
    usual, unit = exp(logs / seen) if seen else 0.0, slope if units else 0.0
    seconds = np.zeros(n)
    for w in range(n):
        first = exp(total[w] / weight[w]) if weight[w] else usual
        silent = now - since[w] if since[w] < np.inf else 0.0
        seconds[w] = floor(1e6 * (max(first, silent) + load * (slope if known[w] else unit)) + 0.5) / 1e6
    return np.argsort(seconds, kind="mergesort")


@njit(cache=True)
def _plan(t, delay, assigns, numbers, groups, start, opens, rows, any_row, set_of, member, sizes, need, answered, dense, plan_start, plan_group, plan_long):  # type: ignore[no-untyped-def]  # noqa: E501  # fmt: skip
    """Scheme.assign: the mini-tasks of each place in round t."""
    n, slots = len(plan_long), delay + 1
    plan_long[:] = 0
    if assigns == STREAMED and opens:
        for w in range(n):
            for k in range(groups):
                plan_start[w, k], plan_group[w, k] = t, (k + member[w]) % groups
            plan_long[w] = groups
    if assigns == COPIED and opens:
        for w in range(n):
            plan_start[w, 0], plan_group[w, 0], plan_long[w] = t, w, 1
    if assigns == REPEATED:
        q = (t - delay) % slots
        again = start[q] == t - delay and t >= delay
        short = need[-1] - answered[q, 0] if again else 0
        for w in range(n):
            repeat = False
            if again and dense:
                repeat = short > 0 and not rows[q, 0, w]
                short -= repeat
            elif again:
                # The set is silent, and this is the member whose turn it is.
                first = w - member[w]
                repeat = member[w] == t % sizes[set_of[-1, w]]
                for i in range(first, first + sizes[set_of[-1, w]]):
                    repeat = repeat and not rows[q, 0, i]
            if repeat or opens:
                plan_start[w, 0], plan_group[w, 0], plan_long[w] = t - delay if repeat else t, 0, 1
    if assigns == MULTIPLEXED:
        W, coded = numbers[0], numbers[2]
        for age in range(delay, -1, -1):
            r = t - age
            q = r % slots
            if r < 0 or start[q] != r:
                continue
            for w in range(n):
                g = age
                if age >= W - 1:
                    g = age if coded else -1
                    for k in range(W - 2, -1, -1):
                        if not rows[q, k, w]:
                            g = k
                if g >= 0:
                    plan_start[w, plan_long[w]], plan_group[w, plan_long[w]] = r, g
                    plan_long[w] += 1
    if assigns == SENT_AGAIN:
        items = 0
        for r in range(max(0, t - delay), t):
            if start[r % slots] == r:
                for g in range(groups):
                    items += not any_row[r % slots, g]
        copies = min(numbers[0], n)
        firsts = np.zeros(copies, np.int64)
        for c in range(copies):
            first = c * items % n
            while first in firsts[:c]:
                first = (first + 1) % n
            firsts[c] = first
        # A place does what is due first, first; among parts of one job, in the order of copies.
        for r in range(max(0, t - delay), t):
            if start[r % slots] != r:
                continue
            begin = 0
            for older in range(max(0, t - delay), r):
                if start[older % slots] == older:
                    for g in range(groups):
                        begin += not any_row[older % slots, g]
            for c in range(copies):
                k = begin
                for g in range(groups):
                    if not any_row[r % slots, g]:
                        w = (firsts[c] + k) % n
                        plan_start[w, plan_long[w]], plan_group[w, plan_long[w]] = r, g
                        plan_long[w] += 1
                        k += 1
        if opens:
            for w in range(n):
                plan_start[w, plan_long[w]], plan_group[w, plan_long[w]] = t, w
                plan_long[w] += 1


@njit(cache=True)
def _short(t, delay, numbers, start, left, rows, set_of, need, kind, dense, hit):  # type: ignore[no-untyped-def]
    """MSGC.shortage: (worker, replica set, code) whose row is missing first; code -1 = the ledger is safe, -3 = any worker's."""
    n, slots, W, coded = rows.shape[2], delay + 1, numbers[0], numbers[2]
    behind = np.zeros(n, np.int64)
    for r in range(max(0, t - delay), t + 1):
        q = r % slots
        if start[q] != r or not left[q]:
            continue
        age = t - r
        attempted, retried = min(age + 1, W - 1), max(age, W - 2)
        for w in range(n):
            behind[w] = attempted
            for k in range(attempted):
                behind[w] -= rows[q, k, w]
            if behind[w] > delay - retried:
                return w, -1, -4
        for c in range(coded):
            g = W - 1 + c
            code = kind[g]
            found = np.zeros(n, np.bool_)
            sets = 0
            for w in range(n):
                has = rows[q, g, w] if g <= age else behind[w] <= g - retried - 1
                if has and not found[set_of[code, w]]:
                    found[set_of[code, w]] = True
                    sets += 1
            if sets < need[code]:
                if dense:
                    return -1, -1, -3
                for k in range(need[code]):
                    if not found[k]:
                        return -1, k, code
    return -1, -1, -1
