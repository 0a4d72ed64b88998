"""PipelineScheduler on the simulated pool in one compiled loop: the same decode times, a hundred times quicker.

A learner has one open job, so part g of learner m's job is `m P + g`. Names are those of distseq.scheduling.pipeline and
distseq.cluster.simulated, whose order of events this keeps: what arrives at one time is taken together, then decided upon.
"""

from heapq import heappop, heappush
from math import exp, floor, log

import numpy as np
from numba import njit

from distseq.scheduling.pipeline import UNHEARD
from distseq.scheduling.prediction import DECAY, LEAST

LOST, OVERLAP, SERIAL = 0, 1, 2
WANTED, ANSWERED, GONE = 0, 1, 2  # of a part in a message
IDLE, BUSY, DRAINING = 0, 1, 2  # of a worker


@njit(cache=True)
def expected(weight: float, total: float, compute: float) -> float:
    """Prediction.expected"""
    return floor(1e6 * (exp(total / weight) + compute) + 0.5) / 1e6 if weight else 0.0


@njit(cache=True)
def pipelined(
    startups: np.ndarray,  # (depth, n) seconds
    depths: np.ndarray,  # (n,) entries of each column
    seconds: float,  # of computing a part
    share: float,  # seconds of computing a part of a job of cost 1
    master: float,
    models: int,
    jobs: int,
    parts: int,
    copies: int,
    burst: int,
    sites: np.ndarray,  # (site, n) bool: who is where
    own: bool,  # every part has a site of its own
    mode: int,
) -> tuple[np.ndarray, np.ndarray, float, int, int]:
    """(jobs,) decode times, and learners; until the last of them, busy worker-seconds, messages that have started, rows that were wanted."""
    n, count, owners = startups.shape[1], len(sites), np.zeros(jobs, np.int64)
    frees, most = mode != SERIAL, (jobs + models) * parts * copies + 1
    times, busy, decoded, opened, received = np.zeros(jobs), 0.0, 0, 0, 0
    # Parts: job of each learner, and who has a copy.
    job, left, lane = np.full(models, -1), np.zeros(models, np.int64), np.zeros(models, np.int64)
    size = models * parts
    done, stale, sent, on = (
        np.zeros(size, np.bool_),
        np.zeros(size, np.bool_),
        np.zeros(size, np.int64),
        np.zeros(size, np.int64),
    )
    copy_message, copy_place = np.zeros((size, copies), np.int64), np.zeros((size, copies), np.int64)
    # Sites: a queue of parts never sent, and a doubly linked list of those that may have a further copy.
    lane_jobs = np.zeros(count, np.int64)
    head, tail, after = np.full(count, -1), np.full(count, -1), np.full(size, -1)
    first, last = np.full(count, -1), np.full(count, -1)
    before, behind, linked = np.full(size, -1), np.full(size, -1), np.zeros(size, np.bool_)
    waiting = linkeds = sendings = 0
    # Messages: parts in order, how far the worker is, what the scheduler thinks of each.
    worker_of, part_of, job_of = (
        np.zeros(most, np.int64),
        np.zeros((most, burst), np.int64),
        np.zeros((most, burst), np.int64),
    )
    long, place, thought = np.zeros(most, np.int64), np.zeros(most, np.int64), np.zeros((most, burst), np.int64)
    begun, startup, ended, follows = np.zeros(most), np.zeros(most), np.zeros(most, np.bool_), np.full(most, -1)
    messages = 0
    # Workers.
    state, current, wanted = np.zeros(n, np.int64), np.full(n, -1), np.zeros(n, np.int64)
    since, key, freed, drained, heard_then = (
        np.zeros(n),
        np.zeros(n),
        np.arange(n),
        np.zeros(n, np.int64),
        np.zeros(n, np.int64),
    )
    weight, total, known, told = np.zeros(n), np.zeros(n), np.zeros(n, np.bool_), np.full(n, -1)
    invocations, running, queued = np.zeros(n, np.int64), np.full(n, -1), np.full(n, -1)
    heard, frees_so_far, drains, draining, busies = 0, n, 0, 0, 0
    events = [(0.0, 0, 0)]
    events.pop()
    pushed, now = 0, 0.0
    ready, complete, cancelled = list(range(models)), [0], [0]
    complete.pop()
    cancelled.pop()
    tries = np.zeros(n, np.int64)
    while True:
        for p in cancelled:  # the pool passes over them from here on
            stale[p] = True
        if mode == LOST:
            for p in cancelled:
                for c in range(on[p]):
                    m = copy_message[p, c]
                    over = not ended[m]
                    for k in range(place[m], long[m]):
                        over = over and (job_of[m, k] != job[part_of[m, k] // parts] or stale[part_of[m, k]])
                    if over:
                        ended[m] = True
                        busy += now - begun[m]
        cancelled.clear()
        if len(complete):
            for l in complete:
                now += master
                times[decoded], owners[decoded] = now, l
                decoded += 1
                if not own:
                    lane_jobs[lane[l]] -= 1
                job[l] = -1
                ready.append(l)
                if decoded == jobs:
                    for m in range(messages):
                        if not ended[m] and begun[m] < np.inf:
                            busy += max(0.0, now - begun[m])
                    return times, owners, busy, int(invocations.sum()), received
            complete.clear()
        for l in ready:
            k = 0
            for s in range(count):
                if lane_jobs[s] < lane_jobs[k]:
                    k = s
            job[l], left[l], lane[l] = opened, parts, k
            opened += 1
            lane_jobs[k] += 1
            for g in range(parts):
                p = l * parts + g
                s = g if own else k
                done[p], stale[p], on[p], after[p] = False, False, 0, -1
                if tail[s] < 0:
                    head[s] = p
                else:
                    after[tail[s]] = p
                tail[s] = p
                waiting += 1
        ready.clear()
        sent_before = messages
        for patient in range(2):
            if patient and (busies or not waiting):
                break
            while draining:  # presume
                w = -1
                for i in range(n):
                    if state[i] == DRAINING and (w < 0 or drained[i] < drained[w]):
                        w = i
                if not patient and heard - heard_then[w] < UNHEARD * n:
                    break
                draining -= 1
                state[w] = IDLE
                frees_so_far += 1
                freed[w], key[w] = frees_so_far, expected(weight[w], total[w], share if known[w] else 0.0)
            takers = 0
            tries[:] = 0
            while waiting or linkeds:
                w = -1
                for i in range(n):
                    if state[i] == IDLE and not tries[i]:
                        if w < 0 or key[i] < key[w] or (key[i] == key[w] and freed[i] < freed[w]):
                            w = i
                if w < 0:
                    break
                tries[w] = 1
                p, s = _fresh(w, sites, head, job, parts)
                if p >= 0:
                    head[s] = after[p]
                    if head[s] < 0:
                        tail[s] = -1
                    waiting -= 1
                else:
                    for k in range(count):
                        if sites[k, w] and first[k] >= 0 and (p < 0 or sent[first[k]] < sent[p]):
                            p = first[k]
                    if p < 0:
                        continue
                    s = p % parts if own else lane[p // parts]
                    linkeds -= _unlink(p, s, first, last, before, behind, linked)
                m = messages
                messages += 1
                takers += 1
                worker_of[m], begun[m] = w, np.inf
                state[w], current[w], wanted[w], since[w] = BUSY, m, 0, now
                busies += 1
                linkeds += _give(m, p, s, job, parts, copies, sendings, sent, on, copy_message, copy_place, part_of, job_of, long, wanted, w, first, last, before, behind, linked)  # fmt: skip
                sendings += 1
            low = messages - takers
            able = np.ones(takers, np.bool_)
            for _ in range(1, burst):
                for m in range(low, messages):
                    if not waiting or not able[m - low]:
                        continue
                    w = worker_of[m]
                    p, s = _fresh(w, sites, head, job, parts)
                    able[m - low] = p >= 0
                    if p < 0:
                        continue
                    head[s] = after[p]
                    if head[s] < 0:
                        tail[s] = -1
                    waiting -= 1
                    linkeds += _give(m, p, s, job, parts, copies, sendings, sent, on, copy_message, copy_place, part_of, job_of, long, wanted, w, first, last, before, behind, linked)  # fmt: skip
                    sendings += 1
        for m in range(sent_before, messages):  # the pool takes them
            w = worker_of[m]
            if mode == SERIAL and running[w] >= 0:
                if queued[w] < 0:
                    follows[running[w]] = m
                else:
                    follows[queued[w]] = m
                queued[w] = m
                continue
            running[w] = m
            pushed += 1
            begun[m], startup[m] = now, startups[invocations[w] % depths[w], w]
            invocations[w] += 1
            heappush(events, (now + max(0.0, startup[m] + seconds), pushed, m))
        arrivals = [(0, 0, False)]
        arrivals.pop()
        while not len(arrivals):
            now = max(now, events[0][0])
            while len(events) and events[0][0] <= now:
                m = heappop(events)[2]
                if ended[m]:
                    continue
                w = worker_of[m]
                if place[m] < long[m]:
                    k = place[m]
                    place[m] += 1
                    p = part_of[m, k]
                    arrivals.append((m, k, job_of[m, k] != job[p // parts] or stale[p]))
                while place[m] < long[m] and _passed(m, place, part_of, job_of, job, stale, parts):
                    place[m] += 1
                if place[m] < long[m]:
                    pushed += 1
                    heappush(events, (now + seconds, pushed, m))
                    continue
                ended[m] = True
                busy += now - begun[m]
                if mode == SERIAL:
                    follower = follows[m]
                    running[w] = follower
                    if follower >= 0:
                        if queued[w] == follower:
                            queued[w] = -1
                        begun[follower] = now
                        while place[follower] < long[follower] and _passed(
                            follower, place, part_of, job_of, job, stale, parts
                        ):
                            place[follower] += 1
                        pushed += 1
                        if place[follower] < long[follower]:
                            startup[follower] = startups[invocations[w] % depths[w], w]
                            invocations[w] += 1
                            heappush(events, (now + max(0.0, startup[follower] + seconds), pushed, follower))
                        else:
                            heappush(events, (now, pushed, follower))
        for m, k, old in arrivals:  # the scheduler is told
            heard += 1
            w, p = worker_of[m], part_of[m, k]
            l = p // parts
            if told[w] != m:
                told[w] = m
                weight[w], total[w] = DECAY * weight[w] + 1, DECAY * total[w] + log(max(startup[m], LEAST))
            known[w] = known[w] or (job_of[m, k] == job[l] and seconds > 0)
            if current[w] == m and state[w] == BUSY and thought[m, k] == WANTED and not old:
                thought[m, k] = ANSWERED
                wanted[w] -= 1
                if not wanted[w]:
                    busies -= 1
                    state[w] = IDLE
                    frees_so_far += 1
                    freed[w], key[w] = frees_so_far, expected(weight[w], total[w], share if known[w] else 0.0)
            elif current[w] == m and state[w] == DRAINING and thought[m, k] == GONE:
                draining -= 1
                state[w] = IDLE
                frees_so_far += 1
                freed[w], key[w] = frees_so_far, expected(weight[w], total[w], share if known[w] else 0.0)
            elif current[w] == m and thought[m, k] == GONE:
                thought[m, k] = ANSWERED
            received += not old
            if old or job_of[m, k] != job[l] or done[p]:
                continue
            done[p] = True
            if linked[p]:
                linkeds -= _unlink(p, p % parts if own else lane[l], first, last, before, behind, linked)
            cancelled.append(p)
            left[l] -= 1
            if not left[l]:
                complete.append(l)
            for c in range(on[p]):
                m2, k2 = copy_message[p, c], copy_place[p, c]
                w2 = worker_of[m2]
                if m2 == m or current[w2] != m2 or state[w2] != BUSY or thought[m2, k2] != WANTED:
                    continue
                thought[m2, k2] = GONE
                wanted[w2] -= 1
                if wanted[w2]:
                    continue
                busies -= 1
                if not frees:
                    state[w2], heard_then[w2] = DRAINING, heard
                    drains += 1
                    draining += 1
                    drained[w2] = drains
                    continue
                waited = now - since[w2]
                if not weight[w2] or waited > exp(total[w2] / weight[w2]):
                    weight[w2], total[w2] = DECAY * weight[w2] + 1, DECAY * total[w2] + log(max(waited, LEAST))
                state[w2] = IDLE
                frees_so_far += 1
                freed[w2], key[w2] = frees_so_far, expected(weight[w2], total[w2], share if known[w2] else 0.0)


@njit(cache=True)
def _passed(m: int, place, part_of, job_of, job, stale, parts: int) -> bool:  # type: ignore[no-untyped-def]
    """Whether nobody needs the part that message m has come to."""
    p = part_of[m, place[m]]
    return bool(job_of[m, place[m]] != job[p // parts] or stale[p])


@njit(cache=True)
def _fresh(w: int, sites, head, job, parts: int) -> tuple[int, int]:  # type: ignore[no-untyped-def]
    """The part never sent, of the oldest job, that a worker may do, and its site; -1 for none."""
    p, s = -1, -1
    for k in range(len(sites)):
        q = head[k]
        if (
            sites[k, w]
            and q >= 0
            and (p < 0 or job[q // parts] < job[p // parts] or (job[q // parts] == job[p // parts] and q < p))
        ):
            p, s = q, k
    return p, s


@njit(cache=True)
def _give(m, p, s, job, parts, copies, number, sent, on, copy_message, copy_place, part_of, job_of, long, wanted, w, first, last, before, behind, linked) -> int:  # type: ignore[no-untyped-def]  # noqa: E501  # fmt: skip
    """Put a part into message m; 1 when it may have a further copy, else 0."""
    copy_message[p, on[p]], copy_place[p, on[p]] = m, long[m]
    part_of[m, long[m]], job_of[m, long[m]] = p, job[p // parts]
    long[m] += 1
    wanted[w] += 1
    on[p] += 1
    sent[p] = number
    if on[p] >= copies:
        return 0
    before[p], behind[p], linked[p] = last[s], -1, True
    if last[s] < 0:
        first[s] = p
    else:
        behind[last[s]] = p
    last[s] = p
    return 1


@njit(cache=True)
def _unlink(p: int, s: int, first, last, before, behind, linked) -> int:  # type: ignore[no-untyped-def]
    """Take a part from those of site s that may have a further copy; 1."""
    if before[p] < 0:
        first[s] = behind[p]
    else:
        behind[before[p]] = behind[p]
    if behind[p] < 0:
        last[s] = before[p]
    else:
        before[behind[p]] = before[p]
    linked[p] = False
    return 1
