"""What has been observed of the workers lately, as a trace to replay: their latest start-ups, in order, and seconds per load.

An invocation that was given up, or is still waited for, has only been seen to take longer than it was waited for. It gets the
seconds that longer ones took, each beside what its worker usually takes (the estimate of Kaplan and Meier, 1958). Rare long
events are expected by their rate.
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

DEPTH = 24  # latest invocations of each worker
ROWS = 32  # of a table
PRIOR, PRIOR_RANGE = 5.0, (0.1, 20.0)  # of workers, before each was seen twice; and within what it is believed
LATEST = 128  # start-ups that a sudden change shows in
UNITS = 512  # latest rows whose compute is kept
CHANGED = (
    1.4  # a median of newer start-ups this far from that of older ones, and unlike most: what is older counts no more
)


@dataclass
class Seen:
    """One invocation."""

    number: int  # of all that were seen
    seconds: float
    whole: bool = True  # else it took longer than this


@dataclass
class Waited:
    """A worker that owes rows."""

    since: float
    tasks: dict[MiniTask, float] = field(default_factory=dict)  # and their loads


class Evidence:
    """Told of everything that is sent, given up and delivered. `silent`: of what is given up the pool says nothing more."""

    def __init__(self, *, silent: bool) -> None:
        self.rare_events = RareEvents()
        self.invocations = 0
        self._silent = silent
        self._seen: dict[int, deque[Seen]] = {}
        self._waited: dict[int, Waited] = {}
        self._of_job: dict[int, set[MiniTask]] = {}
        self._heard: dict[int, tuple[int, int]] = {}
        self._hosts: dict[int, str] = {}
        self._units: deque[float] = deque(maxlen=UNITS)
        self._looked_at, self._slope = 0, 0.0
        self._latest: deque[float] = deque(maxlen=LATEST)
        self._void = 0  # what was seen before this number counts no more

    def members(self, workers: Mapping[int, str]) -> None:
        """worker -> host. What was seen of a worker on another host is forgotten."""
        for worker in [w for w, host in self._hosts.items() if workers.get(w) != host]:
            for table in (self._seen, self._waited, self._heard):
                table.pop(worker, None)
        self._hosts = dict(workers)

    def record_sent(self, tasks: Iterable[MiniTask], now: float, load: Callable[[MiniTask], float]) -> None:
        for task in tasks:
            self._waited.setdefault(task.worker, Waited(now)).tasks[task] = load(task)
            self._of_job.setdefault(task.job, set()).add(task)

    def record_cancelled(self, tasks: Iterable[MiniTask], now: float) -> None:
        """Cancelled, or of jobs that are over."""
        for task in tasks:
            waited = self._waited.get(task.worker)
            if waited is not None and task in waited.tasks:
                load = waited.tasks.pop(task)
                if not waited.tasks:
                    del self._waited[task.worker]
                    so_far = now - waited.since - self.slope * load
                    if self._silent and so_far > 0:
                        self._add(task.worker, so_far, whole=False)

    def record_finished(self, jobs: Iterable[int], now: float) -> None:
        """These jobs are decoded or withdrawn."""
        for job in jobs:
            self.record_cancelled(self._of_job.pop(job, ()), now)

    def record_delivery(self, delivery: Delivery, load: float) -> None:
        """A row, or word of work that went stale; `load` of the row, 0 where it is not known."""
        worker, message = delivery.task.worker, (delivery.invocation, delivery.attempt)
        waited = self._waited.get(worker)
        if waited is not None and delivery.at - delivery.startup - delivery.compute > waited.since - 1e-9:
            waited.tasks.pop(delivery.task, None)
            waited.since = delivery.at
            if not waited.tasks:
                del self._waited[worker]
        if self._heard.get(worker) != message:
            self._heard[worker] = message
            self._add(worker, delivery.startup)
            self._latest.append(delivery.startup)
            self.rare_events.add(delivery.startup)
        if load > 0 and delivery.compute > 0:
            self._units.append(delivery.compute / load)
            self._looked_at += 1
            if self._looked_at & (self._looked_at - 1) == 0 or self._looked_at % (UNITS // 4) == 0:
                self._slope = float(np.median(self._units))
            beyond = delivery.compute - self._slope * load
            self._seen[worker][-1].seconds += max(0.0, beyond)

    def _add(self, worker: int, seconds: float, *, whole: bool = True) -> None:
        self.invocations += 1
        self._seen.setdefault(worker, deque(maxlen=DEPTH)).append(Seen(self.invocations, seconds, whole))

    @property
    def slope(self) -> float:
        """Seconds of compute per unit of load; 0 before any."""
        return self._slope

    @property
    def latest(self) -> float:
        """Median of the latest start-ups that were told, whoever's they were; 0 before any."""
        return float(np.median(self._latest)) if self._latest else 0.0

    def forget(self) -> None:
        """Only the latest start-ups count from here on."""
        self._void = self.invocations - len(self._latest)

    def trace(self, n: int, now: float) -> Trace | None:
        """A table of ROWS start-ups for each of n workers; None while nothing was heard of any."""
        columns = {w: list(seen) for w, seen in self._seen.items() if w < n}
        if not columns:
            return None
        for worker, waited in self._waited.items():
            if worker < n:
                so_far = now - waited.since - self.slope * min(waited.tasks.values())
                if so_far > 0:
                    columns.setdefault(worker, []).append(Seen(self.invocations + 1, so_far, whole=False))
        since = max(self._void, _changed(list(columns.values())))
        columns = {w: [one for one in seen if one.number > since] or seen[-1:] for w, seen in columns.items()}
        lengths = [len(seen) for seen in columns.values()]
        every = [one for seen in columns.values() for one in seen]
        seconds, whole = np.array([one.seconds for one in every]), np.array([one.whole for one in every])
        who = np.repeat(np.arange(len(lengths)), lengths)
        alike = _prior_strength(seconds, whole, who)
        usual = _usual(seconds, whole, who, alike)[who]
        known = np.split(usual * _imputed(seconds / usual, whole), np.cumsum(lengths)[:-1])
        by_worker = dict(zip(columns, known, strict=True))
        draws = np.random.Generator(np.random.Philox(self.invocations))
        pooled = np.concatenate(known)
        table = np.array([_column(by_worker.get(i, pooled[:0]), pooled, alike, draws) for i in range(n)]).T
        return Trace(self.rare_events.expected_in(table), 0.0, self.slope)


def _column(own: np.ndarray, pooled: np.ndarray, alike: float, draws: np.random.Generator) -> np.ndarray:
    """(ROWS,) start-ups of a worker: what it took itself, then more of the kind, of others as long as it has shown little."""
    more = ROWS - len(own)
    others = draws.choice(pooled, more)
    if not len(own):
        return others
    more_of_it = np.where(draws.random(more) < len(own) / (len(own) + alike), draws.choice(own, more), others)
    return np.concatenate((own, more_of_it))


def _changed(columns: list[list[Seen]]) -> int:
    """The number of the latest invocation before the start-ups changed for good, each beside its worker's median; 0 when they
    have not."""
    order: list[tuple[int, float]] = []
    for seen in columns:
        own = [one for one in seen if one.whole]
        usual = float(np.median([one.seconds for one in own])) + LEAST if own else 1.0
        order += [(one.number, one.seconds / usual) for one in own]
    order.sort()
    since = 0
    for fraction in (0.5, 0.7, 0.85):
        cut = int(fraction * len(order))
        older, newer = ([seconds for _, seconds in part] for part in (order[:cut], order[cut:]))
        if min(len(older), len(newer)) >= 8:
            low, usual, high = np.quantile(older, [0.15, 0.5, 0.85]) + LEAST
            now = float(np.median(newer))
            if not (low <= now <= high or usual / CHANGED < now < usual * CHANGED):
                since = order[cut - 1][0]
    return since


def _prior_strength(seconds: np.ndarray, whole: np.ndarray, who: np.ndarray) -> float:
    """How many invocations of a worker say as much of it as those of all others: variance within workers over between them."""
    logs, who = np.log(np.maximum(seconds[whole], LEAST)), who[whole]
    counts = np.bincount(who)
    twice = counts >= 2
    if not twice.any():
        return PRIOR
    means = np.bincount(who, weights=logs) / np.maximum(counts, 1)
    within = float(((logs - means[who]) ** 2)[twice[who]].sum() / (counts[twice] - 1).sum())
    between = float(np.var(means[twice])) - within / float(counts[twice].mean())
    return float(np.clip(within / max(between, 1e-9), *PRIOR_RANGE))


def _usual(seconds: np.ndarray, whole: np.ndarray, who: np.ndarray, alike: float) -> np.ndarray:
    """(workers,) what each usually takes: geometric means, shrunk towards that of all."""
    logs = np.log(np.maximum(seconds, LEAST))
    of_all = float(logs[whole].mean()) if whole.any() else float(logs.mean())
    sums = alike * of_all + np.bincount(who, weights=np.where(whole, logs, 0.0))
    return np.asarray(np.exp(sums / (alike + np.bincount(who, weights=whole))))


def _imputed(seconds: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """`seconds`, those that are not `whole` replaced by what longer ones took."""
    seconds = seconds.copy()
    order = np.lexsort((~whole, seconds))
    at_risk = np.arange(len(seconds), 0, -1)
    survival = np.cumprod(np.where(whole[order], 1 - 1 / at_risk, 1.0))  # after each
    steps, left = seconds[order][whole[order]], survival[whole[order]]
    for j, k in enumerate(np.flatnonzero(~whole)):
        later = int(np.searchsorted(steps, seconds[k], side="right"))
        before = left[later - 1] if later else 1.0
        wanted = before * (1 - (GOLDEN * (j + 1)) % 1)  # survival at the value drawn
        drawn = later + int(np.count_nonzero(left[later:] > wanted))
        seconds[k] = steps[drawn] if drawn < len(steps) else max(2 * seconds[k], steps[-1] if len(steps) else 0.0)
    return seconds
