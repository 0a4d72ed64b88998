"""The pipeline scheduler: without rounds, idle workers pull parts of all open jobs.

A part is assigned only when a worker is idle. The idle worker that is predicted to be fastest goes first; it takes the next part
of the oldest open job or, when every part is in flight, another copy of the part that was sent longest ago.
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

# A worker that is silent about a cancelled copy is assumed idle after this many answers per worker from the pool. Only a dead
# host stays silent; a smaller number would send new work to workers that are still busy with the old (docs/decisions/011).
PATIENCE = 8


@dataclass(eq=False)
class Part:
    """A part without a row in hand."""

    job: int
    group: int
    sent: int = -1  # sequence number of its latest sending; -1 = never sent
    copies: list[MiniTask] = field(default_factory=list)


@dataclass(eq=False)
class Site:
    """The parts that one set of workers may do: a lane, or with places the workers of one part."""

    waiting: deque[Part] = field(default_factory=deque)  # never sent, oldest job first
    # May have another copy, sent longest ago first. An ordered dict, because a part leaves it from anywhere when its row comes.
    copied: OrderedDict[Part, None] = field(default_factory=OrderedDict)
    jobs: int = 0  # open jobs


@dataclass(eq=False)
class OpenJob:
    """An open job."""

    site: int  # index of the site of all its parts; -1 with places, where each part has its own
    load: float  # of one part
    parts: dict[int, Part]  # group -> part without a row
    rows: dict[int, MiniTask] = field(default_factory=dict)  # group -> the mini-task whose row counts


@dataclass(eq=False)
class Outstanding:
    """The latest message of a busy worker."""

    since: float  # pool time of its sending
    wanted: dict[MiniTask, None] = field(default_factory=dict)  # still waited for
    cancelled: set[MiniTask] = field(default_factory=set)  # cancelled, and not reported by the pool yet


class PipelineScheduler:
    """Schedules any number of learners without rounds.

    n: the most workers that there will ever be; `members` tells how many there are.
    frees: a worker is idle as soon as its copies are cancelled, because its work is gone ("lost") or goes on beside the new
        ("overlap"). Otherwise ("serial", real pools) it is idle once the pool has delivered a row or a stale report of them.
        A dead host delivers neither: its worker is also assumed idle after PATIENCE x n further deliveries, or when otherwise
        nothing would go on.
    """

    def __init__(self, pipeline: Pipeline, n: int, *, frees: bool = False) -> None:
        self._pipeline, self._scheme, self._frees = pipeline, pipeline.scheme(n), frees
        self._prediction = Prediction()
        self._ready: dict[int, float] = {}  # job -> cost
        self._jobs: dict[int, OpenJob] = {}  # oldest first
        self._complete: list[int] = []
        self._busy: dict[int, Outstanding] = {}  # worker -> its message, with rows that are waited for
        # Worker -> its message, all of it cancelled, and the deliveries before that.
        self._draining: dict[int, tuple[Outstanding, int]] = {}
        self._idle: dict[
            int, tuple[float, int]
        ] = {}  # worker -> predicted seconds; sequence number of its becoming idle
        self._cancel: set[MiniTask] = set()
        self._heard = self._sent = self._freed = 0  # counts of deliveries, sendings and workers that became idle
        self._workers: list[int] = []
        self._sites: list[Site] = []
        self._serves: dict[int, list[Site]] = {}  # worker -> its sites
        self._divide(range(n))

    def opened(self, job: int, learner: int, cost: float, left: int, now: float) -> None:
        self._ready[job] = cost

    def members(self, workers: Mapping[int, str], now: float) -> None:
        self._prediction.members(workers)
        if set(workers) != set(self._workers):
            self._divide(workers)

    def retune(self, pipeline: Pipeline) -> None:
        """Changes the settings for jobs opened from now on; open jobs keep their parts. Not for pipelines with places."""
        assert pipeline.places == self._pipeline.places == 0, "with places, parts cannot move to other workers"
        self._pipeline, self._scheme = pipeline, pipeline.scheme(self._scheme.n)
        self._divide(self._workers)

    def _divide(self, workers: Collection[int]) -> None:
        """Assigns workers and the parts of open jobs to sites anew."""
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
        # In the order of sending, which decides whose copy is next.
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
        # The pool forgets a withdrawn job as a whole: cancelling its mini-tasks one by one would name a job it does not know.
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
            # A stale report of a mini-task that is still wanted is of an earlier sending to this worker; only a fault says
            # that its row will never come.
            if work is not None and task in work.wanted and (delivery.fault is not None or not delivery.stale):
                del work.wanted[task]
                if not work.wanted:
                    del self._busy[worker]
                    self._free(worker)
            # One report of any of its cancelled mini-tasks is enough: a worker does them one after the other, and skips what
            # is cancelled.
            elif worker in self._draining and task in self._draining[worker][0].cancelled:
                del self._draining[worker]
                self._free(worker)
            elif work is not None:
                work.cancelled.discard(task)
            self._cancel.discard(task)
            if not delivery.stale and task.job in self._jobs:
                self._row(task, now)

    def _load(self, job: int) -> float:
        """Load of one part of a job; 0 when the job is finished."""
        return self._jobs[job].load if job in self._jobs else 0.0

    def _row(self, task: MiniTask, now: float) -> None:
        job = self._jobs[task.job]
        part = job.parts.pop(task.group, None)
        # Another copy was faster: its row is in the job already.
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
        """Stops waiting for a copy; `now` is given when another copy was faster."""
        work = self._busy.get(task.worker)
        if work is None or task not in work.wanted:
            return
        del work.wanted[task]
        work.cancelled.add(task)
        if work.wanted:
            return
        del self._busy[task.worker]
        if self._frees:
            # Nothing more is heard of the loser of a race under "lost": that it lost is the only evidence of how slow it is.
            if now is not None:
                self._prediction.record_cancelled(task.worker, now - work.since)
            self._free(task.worker)
        else:
            # Cancelling cannot interrupt a row that is being computed (real pools, "serial"): new work would wait behind it
            # there while another worker is idle.
            self._draining[task.worker] = (work, self._heard)

    def _free(self, worker: int) -> None:
        if worker in self._serves:
            self._freed += 1
            # Predicted once, when it becomes idle: predicting for all idle workers in every step would cost more than it
            # gains.
            self._idle[worker] = (self._prediction.expected(worker, 1 / self._pipeline.parts), self._freed)

    def missing(self) -> Mapping[int, int]:
        return {worker: len(work.wanted) for worker, work in self._busy.items()}

    def step(self, now: float) -> Decision:
        cancel = tuple(sorted(self._cancel))
        self._cancel = set()
        # Decoding comes alone: the learners open their next jobs before workers are given new parts.
        if self._complete:
            return Decision(decode=self._decode(), cancel=cancel, roundless=True)
        start = self._start()
        self._assume_idle(PATIENCE * len(self._workers))
        send = self._fill(now)
        # Every worker is draining and parts wait: without an assumption nothing would ever happen again.
        if not self._busy and any(site.waiting for site in self._sites):
            self._assume_idle(0)
            send = self._fill(now)
        return Decision(start=start, send=send, cancel=cancel)

    def _decode(self) -> dict[int, dict[MiniTask, float]]:
        jobs, self._complete = self._complete, []
        # In the order of groups, not of arrival. Parts are added unweighted: a group has one part, of which each row is the
        # plain sum.
        return {job: {task: 1.0 for _, task in sorted(self._close(job).rows.items())} for job in jobs}

    def _start(self) -> dict[int, Scheme]:
        """Starts the jobs of all ready learners, each at the site with the fewest open jobs."""
        ready, self._ready = self._ready, {}
        for job, cost in ready.items():
            # Lanes are balanced by open jobs, not by learner: learners may differ in cost, and some end early.
            k = -1 if self._pipeline.places else min(range(len(self._sites)), key=lambda k: self._sites[k].jobs)
            parts = {g: Part(job, g) for g in range(self._pipeline.parts)}
            self._jobs[job] = OpenJob(k, cost / self._pipeline.parts, parts)
            if k >= 0:
                self._sites[k].jobs += 1
            for part in parts.values():
                self._site(part).waiting.append(part)
        return dict.fromkeys(ready, self._scheme)

    def _assume_idle(self, patience: int) -> None:
        """Assumes draining workers idle that have been silent for at least `patience` deliveries."""
        while self._draining:
            worker, (_, before) = next(iter(self._draining.items()))
            # They are in the order in which they began to drain, so the rest is more recent still.
            if self._heard - before < patience:
                return
            del self._draining[worker]
            self._free(worker)

    def _fill(self, now: float) -> tuple[MiniTask, ...]:
        """Gives every idle worker a part, and further ones (up to `burst`) only when every idle worker has one."""
        if not any(site.waiting or site.copied for site in self._sites):
            return ()
        send: list[MiniTask] = []
        # Fastest first; of equal predictions the one that has been idle longest.
        takers = sorted(self._idle, key=self._idle.__getitem__)
        for k in range(self._pipeline.burst):
            takers = [worker for worker in takers if self._pull(worker, send, now, fresh=k > 0)]
        return tuple(send)

    def _pull(self, worker: int, send: list[MiniTask], now: float, *, fresh: bool) -> bool:
        """Gives a worker a part, only one that was never sent if `fresh`; False if there is none for it."""
        waiting = [site.waiting for site in self._serves[worker] if site.waiting]
        copied = [] if waiting or fresh else [site.copied for site in self._serves[worker] if site.copied]
        if waiting:
            # The oldest job first: its learner has waited longest, and a job whose last part comes late delays all its later
            # steps.
            part = min(waiting, key=lambda parts: (parts[0].job, parts[0].group)).popleft()
        elif copied:
            # Copies are made at once. Waiting until a part was out for 0.3 to 1.5 times the usual time took 0.251 to 0.306
            # s/job instead of 0.197 at M = 4 (docs/decisions/011); the one sent longest ago is the likeliest to be late.
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
