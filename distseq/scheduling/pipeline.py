"""No rounds: the jobs of all ready learners are open at once, and idle workers pull their parts.

A job is `parts` groups of one part each, of which any one row suffices: streamed gradient coding that tolerates n - 1
stragglers. A part is bound to a worker as late as can be: an idle worker takes the next part of the oldest open job and, when
every part is under way, a further copy of the part that was sent the longest ago.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from distseq.cluster.pool import Delivery
from distseq.coding.gc import GC
from distseq.coding.plan import MiniTask
from distseq.coding.scheme import Scheme
from distseq.scheduling.scheduler import Decision

UNHEARD = 8  # a cancelled copy is given up when the others have been heard of so many times each


@dataclass(frozen=True)
class Pipeline:
    """Into how many parts a job is cut, and how many copies of one may be under way at once.

    With `lanes` > 1 the workers are divided into so many static sets of neighbours; a job stays in the lane that had the
    fewest open jobs.
    """

    parts: int = 1
    copies: int = 1
    lanes: int = 1

    def __post_init__(self) -> None:
        for name in ("parts", "copies", "lanes"):
            if getattr(self, name) < 1:
                raise ValueError(f"pipeline needs {name} >= 1: got {name}={getattr(self, name)}")

    def scheme(self, n: int) -> Scheme:
        """How a job is laid out over n workers. ValueError when there are fewer workers than lanes."""
        if self.lanes > n:
            raise ValueError(f"pipeline needs lanes <= workers: got lanes={self.lanes}, workers={n}")
        return GC(n, n - 1, self.parts)

    @property
    def name(self) -> str:
        return f"pipeline:{self.parts},{self.copies}" + (f",lanes={self.lanes}" if self.lanes > 1 else "")


@dataclass(eq=False)
class Part:
    """A part that has no row in hand, and its copies that are under way."""

    job: int
    group: int
    sent: int = -1  # number of its latest sending
    on: list[MiniTask] = field(default_factory=list)


@dataclass(eq=False)
class Lane:
    """A set of workers and what is to be done there."""

    idle: OrderedDict[int, None] = field(default_factory=OrderedDict)
    waiting: deque[Part] = field(default_factory=deque)  # never sent, oldest job first
    copied: OrderedDict[Part, None] = field(
        default_factory=OrderedDict
    )  # may have a further copy, sent longest ago first
    jobs: int = 0  # open ones


@dataclass(eq=False)
class Open:
    """An open job."""

    lane: int
    parts: dict[int, Part]  # group -> without a row
    rows: dict[int, MiniTask] = field(default_factory=dict)  # group -> its row


class PipelineScheduler:
    """`n`: the most workers that there will ever be; `members` says how many there are.

    `frees`: a worker whose copy is cancelled is idle at once (what it was doing is gone, or goes on beside the new). Else it
    is idle when the pool has said that it is done, with a row or with stale word. A host that dies says nothing: a worker is
    taken for idle, too, when the pool has been heard of UNHEARD times n since, or when nothing else would go on.
    """

    def __init__(self, pipeline: Pipeline, n: int, *, frees: bool = False) -> None:
        self._pipeline, self._scheme, self._frees = pipeline, pipeline.scheme(n), frees
        self._ready: list[int] = []
        self._jobs: dict[int, Open] = {}  # oldest first
        self._complete: list[int] = []
        self._busy: dict[int, MiniTask] = {}  # worker -> what is waited for
        self._draining: dict[int, tuple[MiniTask, int]] = {}  # worker -> its cancelled copy, and what was heard before
        self._cancel: set[MiniTask] = set()
        self._heard = self._sent = 0
        self._workers: frozenset[int] = frozenset()
        self._lanes: list[Lane] = []
        self._divide(range(n))

    def opened(self, job: int, learner: int, cost: float, left: int, now: float) -> None:
        self._ready.append(job)

    def members(self, workers: Mapping[int, str], now: float) -> None:
        if workers.keys() != self._workers:
            self._divide(workers)

    def _divide(self, workers: Iterable[int]) -> None:
        """Put workers and open jobs into lanes anew."""
        self._workers = frozenset(i for i in workers if i < self._scheme.n)
        count = min(self._pipeline.lanes, len(self._workers))
        self._lanes = [Lane() for _ in range(count)]
        for i in sorted(self._workers - self._busy.keys() - self._draining.keys()):
            self._lane(i).idle[i] = None
        for job in self._jobs.values():
            job.lane %= count
            lane = self._lanes[job.lane]
            lane.jobs += 1
            lane.waiting.extend(part for part in job.parts.values() if not part.on)
        under_way = [(p.sent, job.lane, p) for job in self._jobs.values() for p in job.parts.values() if p.on]
        for _, k, part in sorted(under_way, key=lambda one: one[0]):
            if len(part.on) < self._pipeline.copies:
                self._lanes[k].copied[part] = None

    def _lane(self, worker: int) -> Lane:
        return self._lanes[min(worker * len(self._lanes) // len(self._workers), len(self._lanes) - 1)]

    def withdrawn(self, job: int, learner: int) -> None:
        if job in self._ready:
            self._ready.remove(job)
        if job in self._complete:
            self._complete.remove(job)
        gone = self._jobs.pop(job, None)
        if gone is None:
            return
        lane = self._lanes[gone.lane]
        lane.jobs -= 1
        lane.waiting = deque(part for part in lane.waiting if part.job != job)
        for part in gone.parts.values():
            lane.copied.pop(part, None)
            for task in part.on:
                self._give_up(task)
        self._cancel = {task for task in self._cancel if task.job != job}

    def delivered(self, arrivals: Sequence[Delivery], now: float) -> None:
        for delivery in arrivals:
            self._heard += 1
            task = delivery.task
            if self._draining.get(task.worker, (None,))[0] == task:
                del self._draining[task.worker]
                self._free(task.worker)
            elif self._busy.get(task.worker) == task and (delivery.fault is not None or not delivery.stale):
                del self._busy[task.worker]
                self._free(task.worker)
            self._cancel.discard(task)
            if not delivery.stale and task.job in self._jobs:
                self._row(task)

    def _row(self, task: MiniTask) -> None:
        job = self._jobs[task.job]
        part = job.parts.pop(task.group, None)
        if part is None:
            return
        job.rows[task.group] = task
        self._lanes[job.lane].copied.pop(part, None)
        for other in part.on:
            if other != task:
                self._give_up(other)
                self._cancel.add(other)
        if not job.parts:
            self._complete.append(task.job)

    def _give_up(self, task: MiniTask) -> None:
        """Wait for a copy no more."""
        if self._busy.get(task.worker) == task:
            del self._busy[task.worker]
            if self._frees:
                self._free(task.worker)
            else:
                self._draining[task.worker] = (task, self._heard)

    def _free(self, worker: int) -> None:
        if worker in self._workers:
            self._lane(worker).idle[worker] = None

    def missing(self) -> Mapping[int, int]:
        return dict.fromkeys(self._busy, 1)

    def step(self, now: float) -> Decision:
        cancel = tuple(sorted(self._cancel))
        self._cancel = set()
        if self._complete:
            return Decision(decode=self._decode(), cancel=cancel, roundless=True)
        start = self._start()
        self._presume(UNHEARD * len(self._workers))
        send = self._fill()
        if not self._busy and any(lane.waiting for lane in self._lanes):
            self._presume(0)
            send = self._fill()
        return Decision(start=start, send=send, cancel=cancel)

    def _decode(self) -> dict[int, dict[MiniTask, float]]:
        weights = {}
        for job in self._complete:
            over = self._jobs.pop(job)
            self._lanes[over.lane].jobs -= 1
            weights[job] = {task: 1.0 for _, task in sorted(over.rows.items())}
        self._complete = []
        return weights

    def _start(self) -> dict[int, Scheme]:
        """Open the jobs of all learners that are ready."""
        ready, self._ready = self._ready, []
        for job in ready:
            k = min(range(len(self._lanes)), key=lambda k: self._lanes[k].jobs)
            parts = {g: Part(job, g) for g in range(self._pipeline.parts)}
            self._jobs[job] = Open(k, parts)
            self._lanes[k].jobs += 1
            self._lanes[k].waiting.extend(parts.values())
        return dict.fromkeys(ready, self._scheme)

    def _presume(self, patience: int) -> None:
        """Take workers for idle that have not said that they are, while the pool was heard of so many times."""
        while self._draining:
            worker, (_, before) = next(iter(self._draining.items()))
            if self._heard - before < patience:
                return
            del self._draining[worker]
            self._free(worker)

    def _fill(self) -> tuple[MiniTask, ...]:
        """What idle workers do next."""
        return tuple(task for lane in self._lanes for task in self._pulled(lane))

    def _pulled(self, lane: Lane) -> list[MiniTask]:
        send = []
        while lane.idle and (lane.waiting or lane.copied):
            part = lane.waiting.popleft() if lane.waiting else lane.copied.popitem(last=False)[0]
            worker, _ = lane.idle.popitem(last=False)
            task = MiniTask(part.job, part.group, worker)
            part.on.append(task)
            part.sent, self._sent = self._sent, self._sent + 1
            self._busy[worker] = task
            if len(part.on) < self._pipeline.copies:
                lane.copied[part] = None
            send.append(task)
        return send
