"""Compiled form of distseq.scheduling.round_scheduler with safe closing on the simulated pool.

Learners never end, so round t opens job t, in slot t modulo T + 1. The arrays of `Rounds`:

sets (codes, n): replica set of each worker under each code; under a dense code every worker is a set of its own.
starts (sets + 1,): first worker of each replica set of the last code.
groups (groups,): records of the `code` of each group, the answers it needs, and the round in which it was copied.
slots (slots,): records of the job in each slot: groups `left` to complete, rows `owed` in this round, `begin` in `again`.
hit (slots, groups, sets) bool: replica sets that have answered; answered (slots, groups): how many.
sent (slots, groups, n): the round in which a mini-task was sent last.
again: groups that are sent again in this round, oldest job first.
copy (copies,): for each copy of `again`, the place in the order of workers that gets its first group.
idle: workers that have answered in this round, in order.
complete, decoded (jobs,): the order in which jobs complete, and their decode times.
"""

from collections import namedtuple
from typing import Any

import numpy as np

from distseq.cluster.trace import Trace
from distseq.coding.codes.fractional_repetition import FractionalRepetition
from distseq.coding.schemes.backup_tasks import Backup
from distseq.coding.schemes.gradient_coding import GC
from distseq.coding.schemes.m_sgc import MSGC
from distseq.coding.schemes.redispatch import Redispatch
from distseq.coding.schemes.scheme import Scheme, interchangeable
from distseq.coding.schemes.sr_sgc import SRSGC
from distseq.scheduling.replay import latency as prediction
from distseq.scheduling.replay import pool as on
from distseq.scheduling.replay.pool import NONE, Pool, inlined, loop, part, records

# How a scheme assigns groups to workers: by a code, by M-SGC's rule, or to any worker.
CODED, MULTIPLEXED, ANYWHERE = range(3)
ASSIGNS = {GC: CODED, SRSGC: CODED, MSGC: MULTIPLEXED, Redispatch: ANYWHERE, Backup: ANYWHERE}
Rounds = namedtuple(
    "Rounds",
    "assigns T W few ordered dense load master cutoff "
    "sets starts groups slots hit answered sent again copy idle complete decoded",
)


def replay_rounds(
    trace: Trace, scheme: Scheme, jobs: int, *, unfinished: str, whole: bool, cutoff: float, cost: float
) -> tuple[np.ndarray, float, int, int]:
    """The fields of Replayed: decode times (jobs,), busy worker-seconds, messages started, wanted rows.

    ValueError for a kind of scheme that has no replay.
    """
    if type(scheme) not in ASSIGNS:
        raise ValueError(f"{scheme.spec} has no replay")
    n, T, groups, slots, rounds = scheme.n, scheme.delay, len(scheme.codes), scheme.delay + 1, jobs + scheme.delay + 1
    # By exact type: a subclass could assign differently, and its replay would silently be another scheme's.
    assigns, W = ASSIGNS[type(scheme)], scheme.W if isinstance(scheme, MSGC) else 0
    copies = min(scheme.copies, n) if isinstance(scheme, Redispatch) else 0
    few = n - scheme.enough if isinstance(scheme, Backup) else 0  # backup copies begin when at most so many parts miss
    codes = list(dict.fromkeys(scheme.codes))
    # A dense code has no replica sets: as sets of one worker it fits into the same arrays, with n - s of n sets needed.
    replicas = [code if isinstance(code, FractionalRepetition) else FractionalRepetition(n, 0) for code in codes]
    r = Rounds(
        *(assigns, T, W, few, interchangeable(scheme), codes[-1] is not replicas[-1]),
        *(trace.slope * float(scheme.load), trace.master, cutoff),
        *(np.array([code.replica_set for code in replicas]), np.append(replicas[-1].starts, n)),
        *(records(groups, "code need copied"), records(slots, "left owed begin")),
        np.zeros((slots, groups, max(code.parts for code in replicas)), bool),
        *(np.zeros((slots, groups), int), np.full((slots, groups, n), NONE), np.zeros(T * groups, int)),
        *(np.zeros(copies, int), np.zeros(2 * n, int), np.zeros(rounds, int), np.zeros(jobs)),
    )
    # Under fractional repetition every part must come, under a dense code any n - s rows suffice.
    need = [code.parts if code is own else n - code.s for code, own in zip(codes, replicas, strict=True)]
    r.groups["code"] = [codes.index(code) for code in scheme.codes]
    r.groups["need"], r.groups["copied"] = np.array(need)[r.groups["code"]], NONE
    # Room for all that can be sent: backup tasks may double a round's messages; a message has at most `most` mini-tasks.
    messages, most = rounds * n * (2 if few else 1), groups if assigns == CODED else T * max(1, copies) + 1
    kinds = list(zip(scheme.shares, scheme.codes, strict=True))
    loads = {(share, code): float(share * len(code.row(0)) / code.parts) for share, code in set(kinds)}
    seconds = trace.slope * np.array([loads[one] for one in kinds]) * cost
    pool = on.new_pool(trace, seconds, rounds, slots, messages, messages * most, unfinished, whole)
    _rounds(pool, r)
    return r.decoded, *on.counted(pool)


@loop
def _rounds(pool: Pool, r: Rounds) -> None:
    s, begun, heard, waited, first = pool.state[0], 0.0, False, 0, 0
    completed = decoded = read = idles = taken = low = high = 0
    s.round = NONE
    while True:
        while decoded < completed:
            job = r.complete[decoded]
            s.now += r.master
            r.decoded[decoded] = s.now
            decoded += 1
            waited -= r.slots[pool.slot[job]].owed
            on.retire(pool, job)
            if decoded == len(r.decoded):
                return
        over = waited == 0
        if not over and heard and s.now >= begun + r.cutoff:
            # A shortage is asked for again only when one of its workers has answered: asking after every row would take most
            # of the time (docs/decisions/001).
            if low == high:
                low, high = _shortage(pool, r)
            over = low == high
        if over:
            # `late` is False under "lost": what is late is cancelled when its round ends.
            if s.lost:
                for x in range(first, s.tasks):
                    on.cancel(pool, x)
            # The mini-tasks of the new round begin at index `first`: append-only tables need no list of them.
            begun, heard, first = s.now, False, s.tasks
            idles = taken = low = high = 0
            s.round += 1
            _begin(pool, r)
            waited = s.tasks - first
        # Backup tasks: BackupScheduler.step, for the job of the running round.
        elif r.slots[pool.slot[s.round]].left <= r.few:
            for g in range(len(r.groups)):
                if taken < idles and not r.answered[pool.slot[s.round], g] and r.groups[g].copied != s.round:
                    m = on.message(pool, r.idle[taken])
                    on.put(pool, m, s.round, g)
                    on.send(pool, m)
                    r.groups[g].copied = s.round
                    taken += 1
        on.poll(pool, begun + r.cutoff if heard and begun + r.cutoff > s.now else np.inf)
        for x in pool.arrived[read : s.arrived]:
            task = pool.tasks[x]
            if r.ordered:
                prediction.record_delivery(pool, task)
            if task.stale:
                continue
            slot = pool.slot[task.job]
            if r.sent[slot, task.group, task.worker] == s.round:
                heard = True
                waited -= 1
                r.slots[slot].owed -= 1
            if r.few and task.job == s.round:
                r.idle[idles] = task.worker
                idles += 1
            # One of the workers that were short has answered: what the round is short of must be asked for again.
            if low <= task.worker < high:
                low = high = 0
            if _receive(pool, r, task):
                r.complete[completed] = task.job
                completed += 1
        read = s.arrived


@inlined
def _receive(pool: Pool, r: Rounds, task: Any) -> bool:
    """Counts a row; whether it completes its job."""
    slot, g, group = pool.slot[task.job], task.group, r.groups[task.group]
    k = r.sets[group.code, task.worker]
    if r.hit[slot, g, k]:
        return False
    r.hit[slot, g, k] = True
    r.answered[slot, g] += 1
    if r.answered[slot, g] != group.need:
        return False
    r.slots[slot].left -= 1
    return r.slots[slot].left == 0


@part
def _begin(pool: Pool, r: Rounds) -> None:
    """Opens the next job and sends the plan of its round."""
    s, first = pool.state[0], pool.state[0].tasks
    slot = s.round % len(r.slots)
    on.publish(pool, s.round, slot)
    r.hit[slot], r.answered[slot], r.slots[slot].left = False, 0, len(r.groups)
    if r.ordered:
        prediction.reorder(pool, r.load)
    _again(pool, r)
    for worker in pool.workers:
        m = on.message(pool, worker.number)
        _assign(pool, r, m, worker)
        on.send(pool, m)
        if r.ordered:
            prediction.record_sent(worker, s.now)
    for one in r.slots:
        one.owed = 0
    for task in pool.tasks[first : s.tasks]:
        r.sent[pool.slot[task.job], task.group, task.worker] = s.round
        r.slots[pool.slot[task.job]].owed += 1


@part
def _again(pool: Pool, r: Rounds) -> None:
    """Finds what is sent again in this round: workers that repeat their row, or groups and where their copies go."""
    n, items, t = len(pool.workers), 0, pool.state[0].round
    for worker in pool.workers:
        worker.repeats = 0
    for j in range(r.T):
        slot = pool.slot[t - r.T + j] if t - r.T + j >= 0 else NONE
        r.slots[j].begin = items
        if r.assigns == ANYWHERE and slot != NONE:
            for g in range(n):
                if not r.answered[slot, g]:
                    r.again[items] = g
                    items += 1
        if r.assigns == CODED and slot != NONE and j == 0:
            need = r.groups[0].need - r.answered[slot, 0]
            for k in range(len(r.starts) - 1):
                if need and not r.hit[slot, 0, k]:
                    pool.workers[r.starts[k] + t % (r.starts[k + 1] - r.starts[k])].repeats = 1
                    need -= 1
    r.slots[r.T].begin = items
    for c in range(len(r.copy)):
        # The places that Redispatch.assign gives to copies: evenly spread, and moved on where two would meet.
        place = c * items % n
        while place in r.copy[:c]:
            place = (place + 1) % n
        r.copy[c] = place


@inlined
def _assign(pool: Pool, r: Rounds, m: int, worker: Any) -> None:
    """Puts the mini-tasks of a worker for this round into its message, as Scheme.assign does."""
    t, groups, n = pool.state[0].round, len(r.groups), len(pool.workers)
    k = worker.place if r.ordered else worker.number
    if r.assigns == CODED:
        # Members of a replica set begin with different groups, so that their streamed rows complement each other.
        member = k if r.dense else k - r.starts[r.sets[0, k]]
        for i in range(groups):
            on.put(pool, m, t - r.T if pool.workers[k].repeats else t, (i + member) % groups)
    elif r.assigns == MULTIPLEXED:
        for job in range(max(0, t - r.T), t + 1):
            group = _group(r, pool.slot[job], t - job, k)
            if group < groups:
                on.put(pool, m, job, group)
    else:
        for j in range(r.T):
            for c in range(len(r.copy)):
                for i in range(r.slots[j].begin + (k - r.copy[c] - r.slots[j].begin) % n, r.slots[j + 1].begin, n):
                    on.put(pool, m, t - r.T + j, r.again[i])
        on.put(pool, m, t, k)


@part
def _group(r: Rounds, slot: int, age: int, w: int) -> int:
    """M-SGC: the group that worker w does for the job of this age; a number beyond the groups means none."""
    if slot == NONE:
        return len(r.groups)
    for g in range(r.W - 1 if age >= r.W - 1 else 0):
        if not r.hit[slot, g, w]:
            return g
    return age


@part
def _shortage(pool: Pool, r: Rounds) -> tuple[int, int]:
    """(low, high): a row of some worker in range(low, high) must still arrive; low == high if the round may end safely."""
    t, n = pool.state[0].round, len(pool.workers)
    if r.assigns != MULTIPLEXED:
        return 0, n if t >= r.T and pool.slot[t - r.T] != NONE else 0
    for job in range(max(0, t - r.T), t + 1):
        slot, age = pool.slot[job], t - job
        if slot == NONE:
            continue
        # The closed form of MSGC.shortage: uncoded groups that were attempted, and the round up to which they may still be
        # retried.
        attempted, retried = min(age + 1, r.W - 1), max(age, r.W - 2)
        for w in range(n):
            behind = attempted
            for g in range(attempted):
                behind -= r.hit[slot, g, w]
            pool.workers[w].behind = behind
            if behind > r.T - retried:
                return w, w + 1
        for g in range(r.W - 1, len(r.groups)):
            low, spare = NONE, len(r.starts) - 1 - r.groups[g].need
            for k in range(len(r.starts) - 1):
                has = g <= age and r.hit[slot, g, k]
                for w in range(r.starts[k], r.starts[k + 1] if g > age else 0):
                    has = has or pool.workers[w].behind <= g - retried - 1
                if not has:
                    low, spare = r.starts[k] if low == NONE else low, spare - 1
                    if spare < 0:
                        return low, r.starts[k + 1]
    return 0, 0
