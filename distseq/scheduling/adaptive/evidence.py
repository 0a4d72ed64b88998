"""Turns the latest observations of every worker into a trace that replays can use.

Each worker contributes its latest start-ups, in order; the compute seconds per unit of load are one median over all workers. An
invocation that was cancelled, or has not answered yet, is *censored*: it is only known to take longer than the time waited so
far. Its start-up is drawn from those that took longer, by the Kaplan-Meier estimate (1958), relative to each worker's usual one.
Rare, very long start-ups are added at their expected rate (distseq.scheduling.adaptive.rare_events).
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from distseq.cluster.pool import Delivery
from distseq.cluster.trace import Trace
from distseq.coding.plan import MiniTask
from distseq.scheduling.adaptive.rare_events import GOLDEN, RareEvents
from distseq.scheduling.latency import LEAST

# Latest invocations kept of each worker. More would smooth the estimate and react later when workers change.
DEPTH = 24
# Start-ups per worker in the table. A table of one or two rows that repeats makes every slow answer a slow worker, so short
# columns are filled up to this length (docs/decisions/014).
ROWS = 32
# Prior for the similarity of workers, used until some worker was seen twice, and the range that the estimate is clipped to: how
# many of its own start-ups a worker must show to outweigh those of all others.
PRIOR, PRIOR_RANGE = 5.0, (0.1, 20.0)
# Latest start-ups, of any worker, whose median shows a sudden change. At 256 workers this is half a round.
LATEST = 128
# Latest rows whose compute time is kept for the slope.
UNITS = 512
# Factor between the medians of older and newer start-ups from which the older ones are void. A smaller one would drop evidence
# by chance; with this one the regimes that change half-way in docs/benchmarks.md are followed within 1 to 4 % of the best.
CHANGED = 1.4


@dataclass
class Seen:
    """One observed invocation."""

    number: int  # in the order of observation, over all workers
    seconds: float  # of start-up
    complete: bool = True  # False: censored, it took longer than `seconds`


@dataclass
class Waited:
    """The mini-tasks that one worker still owes."""

    since: float  # pool time of the sending, or of its latest answer
    tasks: dict[MiniTask, float] = field(default_factory=dict)  # mini-task -> load


class Evidence:
    """Records what is sent, cancelled and delivered, and makes a trace of it.

    silent: the pool reports nothing more about cancelled work (`unfinished` = "lost"), so that cancelling is the only evidence
        of slow workers. Otherwise a late answer arrives and counts in full.
    """

    def __init__(self, *, silent: bool) -> None:
        self.rare_events = RareEvents()
        self.invocations = 0
        self._silent = silent
        self._seen: dict[int, deque[Seen]] = {}
        self._waited: dict[int, Waited] = {}
        self._of_job: dict[int, set[MiniTask]] = {}
        self._heard: dict[int, tuple[int, int]] = {}
        self._hosts: dict[int, str] = {}
        self._units: deque[float] = deque(maxlen=UNITS)  # compute seconds per unit of load
        self._rows, self._slope = 0, 0.0
        self._latest: deque[float] = deque(maxlen=LATEST)
        self._void = 0  # observations up to this number are void

    def members(self, workers: Mapping[int, str]) -> None:
        """Updates worker -> host, and forgets what was observed of a worker that has moved."""
        # Straggling belongs to hosts: on another host the worker's past says nothing.
        for worker in [w for w, host in self._hosts.items() if workers.get(w) != host]:
            for table in (self._seen, self._waited, self._heard):
                table.pop(worker, None)
        self._hosts = dict(workers)

    def record_sent(self, tasks: Iterable[MiniTask], now: float, load: Callable[[MiniTask], float]) -> None:
        for task in tasks:
            self._waited.setdefault(task.worker, Waited(now)).tasks[task] = load(task)
            self._of_job.setdefault(task.job, set()).add(task)

    def record_cancelled(self, tasks: Iterable[MiniTask], now: float) -> None:
        """These mini-tasks were cancelled, or their jobs are finished."""
        for task in tasks:
            waited = self._waited.get(task.worker)
            if waited is not None and task in waited.tasks:
                load = waited.tasks.pop(task)
                if not waited.tasks:
                    del self._waited[task.worker]
                    # The compute is taken off: only the start-up is censored.
                    so_far = now - waited.since - self.slope * load
                    if self._silent and so_far > 0:
                        self._add(task.worker, so_far, complete=False)

    def record_finished(self, jobs: Iterable[int], now: float) -> None:
        """These jobs were decoded or withdrawn."""
        for job in jobs:
            self.record_cancelled(self._of_job.pop(job, ()), now)

    def record_delivery(self, delivery: Delivery, load: float) -> None:
        """A row, or the report of a stale one, has arrived; `load` of the row, 0 where it is not known."""
        worker, message = delivery.task.worker, (delivery.invocation, delivery.attempt)
        waited = self._waited.get(worker)
        # Only an answer to the latest message counts: an older invocation may answer for one that has hardly begun. 1e-9 s
        # absorbs the rounding of the subtraction.
        if waited is not None and delivery.at - delivery.startup - delivery.compute > waited.since - 1e-9:
            waited.tasks.pop(delivery.task, None)
            waited.since = delivery.at
            if not waited.tasks:
                del self._waited[worker]
        # Every row of a message repeats its start-up, which is one observation.
        if self._heard.get(worker) != message:
            self._heard[worker] = message
            self._add(worker, delivery.startup)
            self._latest.append(delivery.startup)
            self.rare_events.add(delivery.startup)
        if load > 0 and delivery.compute > 0:
            self._units.append(delivery.compute / load)
            self._rows += 1
            # A median of 512 numbers per row would dominate the cost of a delivery: it is refreshed at powers of two (often at
            # first, when it moves most) and then at every 128th row.
            if self._rows & (self._rows - 1) == 0 or self._rows % (UNITS // 4) == 0:
                self._slope = float(np.median(self._units))
            # Replays know one slope, so compute beyond it is counted as start-up: slow computing is not lost.
            beyond = delivery.compute - self._slope * load
            self._seen[worker][-1].seconds += max(0.0, beyond)

    def _add(self, worker: int, seconds: float, *, complete: bool = True) -> None:
        self.invocations += 1
        self._seen.setdefault(worker, deque(maxlen=DEPTH)).append(Seen(self.invocations, seconds, complete))

    @property
    def slope(self) -> float:
        """Compute seconds per unit of load (their median); 0 before the first row."""
        return self._slope

    @property
    def latest(self) -> float:
        """Median of the latest complete start-ups, over all workers; 0 before the first."""
        return float(np.median(self._latest)) if self._latest else 0.0

    def forget(self) -> None:
        """Voids all but the latest start-ups."""
        self._void = self.invocations - len(self._latest)

    def trace(self, n: int, now: float) -> Trace | None:
        """A trace of ROWS start-ups for each of n workers; None before the first delivery.

        now: pool time, by which work that has not answered yet is censored.
        """
        columns = {w: list(seen) for w, seen in self._seen.items() if w < n}
        if not columns:
            return None
        for worker, waited in self._waited.items():
            if worker < n:
                so_far = now - waited.since - self.slope * min(waited.tasks.values())
                if so_far > 0:
                    columns.setdefault(worker, []).append(Seen(self.invocations + 1, so_far, complete=False))
        since = max(self._void, _changed(list(columns.values())))
        # A worker without an observation since the change keeps its last one: some evidence is better than none.
        columns = {w: [one for one in seen if one.number > since] or seen[-1:] for w, seen in columns.items()}
        lengths = [len(seen) for seen in columns.values()]
        every = [one for seen in columns.values() for one in seen]
        seconds, complete = np.array([one.seconds for one in every]), np.array([one.complete for one in every])
        owner = np.repeat(np.arange(len(lengths)), lengths)
        strength = _prior_strength(seconds, complete, owner)
        # Imputed relative to each worker's usual time, or slow workers would lend their seconds to fast ones
        # (docs/decisions/014).
        usual = _usual(seconds, complete, owner, strength)[owner]
        known = np.split(usual * _imputed(seconds / usual, complete), np.cumsum(lengths)[:-1])
        by_worker = dict(zip(columns, known, strict=True))
        # Keyed by the number of observations: the same evidence gives the same trace, so a run can be replayed.
        draws = np.random.Generator(np.random.Philox(self.invocations))
        pooled = np.concatenate(known)
        table = np.array([_column(by_worker.get(i, pooled[:0]), pooled, strength, draws) for i in range(n)]).T
        return Trace(self.rare_events.expected_in(table), 0.0, self.slope)


def _column(own: np.ndarray, pooled: np.ndarray, strength: float, draws: np.random.Generator) -> np.ndarray:
    """(ROWS,) start-ups of one worker: its own, then resampled ones.

    A resampled entry is one of its own with probability len(own) / (len(own) + strength), else one of all workers.
    """
    more = ROWS - len(own)
    others = draws.choice(pooled, more)
    if not len(own):
        return others
    resampled = np.where(draws.random(more) < len(own) / (len(own) + strength), draws.choice(own, more), others)
    return np.concatenate((own, resampled))


def _changed(columns: list[list[Seen]]) -> int:
    """The number of the last invocation before start-ups changed for good; 0 when they have not changed.

    Start-ups are compared relative to their worker's median.
    """
    order: list[tuple[int, float]] = []
    for seen in columns:
        own = [one for one in seen if one.complete]
        usual = float(np.median([one.seconds for one in own])) + LEAST if own else 1.0
        order += [(one.number, one.seconds / usual) for one in own]
    order.sort()
    since = 0
    # Cut points half-way and nearer to the present, the latest match counts: a change is noticed soon after it happened.
    for fraction in (0.5, 0.7, 0.85):
        cut = int(fraction * len(order))
        older, newer = ([seconds for _, seconds in part] for part in (order[:cut], order[cut:]))
        # With fewer than 8 on a side, a median says nothing.
        if min(len(older), len(newer)) >= 8:
            low, usual, high = np.quantile(older, [0.15, 0.5, 0.85]) + LEAST
            now = float(np.median(newer))
            # Both must hold: outside of what was common before (else heavy tails look like changes), and by a factor.
            if not (low <= now <= high or usual / CHANGED < now < usual * CHANGED):
                since = order[cut - 1][0]
    return since


def _prior_strength(seconds: np.ndarray, complete: np.ndarray, owner: np.ndarray) -> float:
    """How many of a worker's own start-ups weigh as much as those of all others.

    The ratio of the variance within workers to the variance between them, of logarithms: the weight of the prior in an
    empirical Bayes estimate.
    """
    logs, owner = np.log(np.maximum(seconds[complete], LEAST)), owner[complete]
    counts = np.bincount(owner)
    twice = counts >= 2
    if not twice.any():
        return PRIOR
    means = np.bincount(owner, weights=logs) / np.maximum(counts, 1)
    within = float(((logs - means[owner]) ** 2)[twice[owner]].sum() / (counts[twice] - 1).sum())
    # The variance of means of k values exceeds that between workers by the noise of such a mean, within / k.
    between = float(np.var(means[twice])) - within / float(counts[twice].mean())
    # Where the estimate of `between` is not positive, workers do not differ: the largest strength of the range.
    return float(np.clip(within / max(between, 1e-9), *PRIOR_RANGE))


def _usual(seconds: np.ndarray, complete: np.ndarray, owner: np.ndarray, strength: float) -> np.ndarray:
    """(workers,) usual start-up of each worker: its geometric mean, shrunk towards that of all workers."""
    logs = np.log(np.maximum(seconds, LEAST))
    of_all = float(logs[complete].mean()) if complete.any() else float(logs.mean())
    sums = strength * of_all + np.bincount(owner, weights=np.where(complete, logs, 0.0))
    return np.asarray(np.exp(sums / (strength + np.bincount(owner, weights=complete))))


def _imputed(seconds: np.ndarray, complete: np.ndarray) -> np.ndarray:
    """A copy of `seconds` in which censored entries are replaced by draws from the start-ups that took longer."""
    seconds = seconds.copy()
    # Of equal times the complete ones first: a censored entry was still at risk at its time (Kaplan and Meier 1958).
    order = np.lexsort((~complete, seconds))
    at_risk = np.arange(len(seconds), 0, -1)
    survival = np.cumprod(np.where(complete[order], 1 - 1 / at_risk, 1.0))  # after each
    steps, left = seconds[order][complete[order]], survival[complete[order]]
    for j, k in enumerate(np.flatnonzero(~complete)):
        later = int(np.searchsorted(steps, seconds[k], side="right"))
        before = left[later - 1] if later else 1.0
        # Quantiles spread by the golden ratio instead of drawn at random: deterministic, and right in the mean.
        wanted = before * (1 - (GOLDEN * (j + 1)) % 1)
        drawn = later + int(np.count_nonzero(left[later:] > wanted))
        # Beyond the longest complete start-up Kaplan-Meier has no answer: at least twice what was waited is assumed.
        seconds[k] = steps[drawn] if drawn < len(steps) else max(2 * seconds[k], steps[-1] if len(steps) else 0.0)
    return seconds
