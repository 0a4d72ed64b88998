"""No rounds: the jobs of all ready learners are open at once, and idle workers pull their parts.

A part is bound to a worker as late as can be: an idle worker, the one that is predicted to be fastest first, takes the next part
of the oldest open job and, when every part is under way, a further copy of the part that was sent the longest ago.
"""

from collections import OrderedDict, deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from distseq.cluster.pool import Delivery
from distseq.coding.plan import MiniTask
from distseq.coding.schemes.scheme import Scheme
from distseq.scheduling.latency import Prediction
from distseq.scheduling.pipeline import Pipeline
from distseq.scheduling.scheduler import Decision

PATIENCE = 8  # a cancelled copy is given up when the others have been heard of so many times each


@dataclass(eq=False)
class Part:
    """A part that has no row in hand, and its copies that are under way."""

    job: int
    group: int
    sent: int = -1  # number of its latest sending
    copies: list[MiniTask] = field(default_factory=list)


@dataclass(eq=False)
class Site:
    """Work that the same workers may do."""

    waiting: deque[Part] = field(default_factory=deque)  # never sent, oldest job first
    copied: OrderedDict[Part, None] = field(
        default_factory=OrderedDict
    )  # may have a further copy, sent longest ago first
    jobs: int = 0  # open ones


@dataclass(eq=False)
class OpenJob:
    """An open job."""

    site: int  # of all its parts; -1 where each has its own
    load: float  # of a part
    parts: dict[int, Part]  # group -> without a row
    rows: dict[int, MiniTask] = field(default_factory=dict)  # group -> its row


@dataclass(eq=False)
class Outstanding:
    """What a worker is doing."""

    since: float
    wanted: dict[MiniTask, None] = field(default_factory=dict)
    cancelled: set[MiniTask] = field(default_factory=set)  # cancelled, and not heard of since


class PipelineScheduler:
    """`n`: the most workers that there will ever be; `members` says how many there are.

    `frees`: a worker whose copies are cancelled is idle at once (what it was doing is cancelled, or goes on beside the new). Else
    it is idle when the pool has said that it is done, with a row or with stale word. A host that dies says nothing: a worker
    is taken for idle, too, when the pool has been heard of PATIENCE times n since, or when nothing else would go on.
    """

    def __init__(self, pipeline: Pipeline, n: int, *, frees: bool = False) -> None:
        self._pipeline, self._scheme, self._frees = pipeline, pipeline.scheme(n), frees
        self._prediction = Prediction()
        self._ready: dict[int, float] = {}  # job -> cost
        self._jobs: dict[int, OpenJob] = {}  # oldest first
        self._complete: list[int] = []
        self._busy: dict[int, Outstanding] = {}  # worker -> what is waited for
        self._draining: dict[int, tuple[Outstanding, int]] = {}  # worker -> all cancelled; what was heard before
        self._idle: dict[int, tuple[float, int]] = {}  # worker -> predicted seconds, and when it became idle: a count
        self._cancel: set[MiniTask] = set()
        self._heard = self._sent = self._freed = 0
        self._workers: list[int] = []
        self._sites: list[Site] = []
        self._serves: dict[int, list[Site]] = {}  # worker -> the sites it is at
        self._divide(range(n))

    def opened(self, job: int, learner: int, cost: float, left: int, now: float) -> None:
        self._ready[job] = cost

    def members(self, workers: Mapping[int, str], now: float) -> None:
        self._prediction.members(workers)
        if set(workers) != set(self._workers):
            self._divide(workers)

    def retune(self, pipeline: Pipeline) -> None:
        """OpenJob the next jobs under other numbers; open jobs keep their parts. Not from or to pipelines with places."""
        assert pipeline.places == self._pipeline.places == 0, "parts that cannot move stay where they are"
        self._pipeline, self._scheme = pipeline, pipeline.scheme(self._scheme.n)
        self._divide(self._workers)

    def _divide(self, workers: Collection[int]) -> None:
        """Who is where, and the parts of open jobs, anew."""
        self._workers = sorted(i for i in workers if i < self._scheme.n)
        where = self._pipeline.sites(len(self._workers))
        self._sites = [Site() for _ in where]
        self._serves = {i: [] for i in self._workers}
        for site, places in zip(self._sites, where, strict=True):
            for k in places:
                self._serves[self._workers[k % len(self._workers)]].append(site)
        self._idle = {}
        for i in self._workers:
            if i not in self._busy and i not in self._draining:
                self._free(i)
        for job in self._jobs.values():
            if job.site >= 0:
                job.site %= len(self._sites)
                self._sites[job.site].jobs += 1
            for part in job.parts.values():
                if not part.copies:
                    self._site(part).waiting.append(part)
        for part in sorted(
            (p for job in self._jobs.values() for p in job.parts.values() if p.copies), key=lambda p: p.sent
        ):
            if len(part.copies) < self._pipeline.copies:
                self._site(part).copied[part] = None

    def _site(self, part: Part) -> Site:
        site = self._jobs[part.job].site
        return self._sites[part.group if site < 0 else site]

    def withdrawn(self, job: int, learner: int) -> None:
        self._ready.pop(job, None)
        if job in self._complete:
            self._complete.remove(job)
        if job not in self._jobs:
            return
        for part in self._jobs[job].parts.values():
            site = self._site(part)
            site.copied.pop(part, None)
            if not part.copies:
                site.waiting.remove(part)
            for task in part.copies:
                self._give_up(task)
        self._close(job)
        self._cancel = {task for task in self._cancel if task.job != job}

    def _close(self, job: int) -> OpenJob:
        over = self._jobs.pop(job)
        if over.site >= 0:
            self._sites[over.site].jobs -= 1
        return over

    def delivered(self, arrivals: Sequence[Delivery], now: float) -> None:
        for delivery in arrivals:
            self._heard += 1
            task, worker = delivery.task, delivery.task.worker
            self._prediction.record_delivery(delivery, self._load(task.job))
            work = self._busy.get(worker)
            if work is not None and task in work.wanted and (delivery.fault is not None or not delivery.stale):
                del work.wanted[task]
                if not work.wanted:
                    del self._busy[worker]
                    self._free(worker)
            elif worker in self._draining and task in self._draining[worker][0].cancelled:
                del self._draining[worker]
                self._free(worker)
            elif work is not None:
                work.cancelled.discard(task)
            self._cancel.discard(task)
            if not delivery.stale and task.job in self._jobs:
                self._row(task, now)

    def _load(self, job: int) -> float:
        """Of an open job's part; 0 when its job is over."""
        return self._jobs[job].load if job in self._jobs else 0.0

    def _row(self, task: MiniTask, now: float) -> None:
        job = self._jobs[task.job]
        part = job.parts.pop(task.group, None)
        if part is None:
            return
        job.rows[task.group] = task
        self._site(part).copied.pop(part, None)
        for other in part.copies:
            if other != task:
                self._give_up(other, now)
                self._cancel.add(other)
        if not job.parts:
            self._complete.append(task.job)

    def _give_up(self, task: MiniTask, now: float | None = None) -> None:
        """Wait for a copy no more; `now` when it is because another was faster."""
        work = self._busy.get(task.worker)
        if work is None or task not in work.wanted:
            return
        del work.wanted[task]
        work.cancelled.add(task)
        if work.wanted:
            return
        del self._busy[task.worker]
        if self._frees:
            if now is not None:
                self._prediction.record_cancelled(task.worker, now - work.since)
            self._free(task.worker)
        else:
            self._draining[task.worker] = (work, self._heard)

    def _free(self, worker: int) -> None:
        if worker in self._serves:
            self._freed += 1
            self._idle[worker] = (self._prediction.expected(worker, 1 / self._pipeline.parts), self._freed)

    def missing(self) -> Mapping[int, int]:
        return {worker: len(work.wanted) for worker, work in self._busy.items()}

    def step(self, now: float) -> Decision:
        cancel = tuple(sorted(self._cancel))
        self._cancel = set()
        if self._complete:
            return Decision(decode=self._decode(), cancel=cancel, roundless=True)
        start = self._start()
        self._assume_idle(PATIENCE * len(self._workers))
        send = self._fill(now)
        if not self._busy and any(site.waiting for site in self._sites):
            self._assume_idle(0)
            send = self._fill(now)
        return Decision(start=start, send=send, cancel=cancel)

    def _decode(self) -> dict[int, dict[MiniTask, float]]:
        jobs, self._complete = self._complete, []
        return {job: {task: 1.0 for _, task in sorted(self._close(job).rows.items())} for job in jobs}

    def _start(self) -> dict[int, Scheme]:
        """OpenJob the jobs of all learners that are ready."""
        ready, self._ready = self._ready, {}
        for job, cost in ready.items():
            k = -1 if self._pipeline.places else min(range(len(self._sites)), key=lambda k: self._sites[k].jobs)
            parts = {g: Part(job, g) for g in range(self._pipeline.parts)}
            self._jobs[job] = OpenJob(k, cost / self._pipeline.parts, parts)
            if k >= 0:
                self._sites[k].jobs += 1
            for part in parts.values():
                self._site(part).waiting.append(part)
        return dict.fromkeys(ready, self._scheme)

    def _assume_idle(self, patience: int) -> None:
        """Take workers for idle that have not said that they are, while the pool was heard of so many times."""
        while self._draining:
            worker, (_, before) = next(iter(self._draining.items()))
            if self._heard - before < patience:
                return
            del self._draining[worker]
            self._free(worker)

    def _fill(self, now: float) -> tuple[MiniTask, ...]:
        """What idle workers do next: one part each, and more only when every idle worker has one."""
        if not any(site.waiting or site.copied for site in self._sites):
            return ()
        send: list[MiniTask] = []
        takers = sorted(self._idle, key=self._idle.__getitem__)
        for k in range(self._pipeline.burst):
            takers = [worker for worker in takers if self._pull(worker, send, now, fresh=k > 0)]
        return tuple(send)

    def _pull(self, worker: int, send: list[MiniTask], now: float, *, fresh: bool) -> bool:
        """Give a worker a part to do, never sent if `fresh`; whether there is one that it may do."""
        waiting = [site.waiting for site in self._serves[worker] if site.waiting]
        copied = [] if waiting or fresh else [site.copied for site in self._serves[worker] if site.copied]
        if waiting:
            part = min(waiting, key=lambda parts: (parts[0].job, parts[0].group)).popleft()
        elif copied:
            part = min((next(iter(parts)) for parts in copied), key=lambda part: part.sent)
            del self._site(part).copied[part]
        else:
            return False
        task = MiniTask(part.job, part.group, worker)
        part.copies.append(task)
        part.sent, self._sent = self._sent, self._sent + 1
        self._idle.pop(worker, None)
        self._busy.setdefault(worker, Outstanding(now)).wanted[task] = None
        if len(part.copies) < self._pipeline.copies:
            self._site(part).copied[part] = None
        send.append(task)
        return True
