"""The round scheduler: rounds under any scheme; no round ends before its due job is complete.

Each round takes the ready learner that has waited longest, opens its job in the current ledger, and sends the plans of all
ledgers that have open jobs.
"""

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from distseq.cluster.pool import Delivery
from distseq.coding.layout import layout
from distseq.coding.ledger import Ledger
from distseq.coding.plan import MiniTask
from distseq.coding.schemes.scheme import Scheme, interchangeable
from distseq.coding.stragglers import History
from distseq.scheduling.closing import Closing, Progress, Safe, Stream
from distseq.scheduling.latency import Prediction
from distseq.scheduling.scheduler import Decision, Round


def check_delay(scheme: Scheme, models: int) -> None:
    """ValueError unless T <= M - 1.

    Learners take turns, so with a longer delay a learner would open its next job before it has the gradient of its last.
    """
    if scheme.delay > models - 1:
        raise ValueError(f"{scheme.spec} has delay T={scheme.delay} and needs at least T + 1 learners: got {models}")


class RoundScheduler:
    """Schedules learners in rounds.

    scheme: lays out the jobs; its n is the number of workers.
    closing: when a round ends; default `Safe()`.
    late: rows of an earlier round count while their job is open; False is the papers' model, in which they are lost.
    left: for learners whose latest job belongs to another scheduler, the jobs that each will open after it.
    most: the amplification up to which a decode is used (distseq.coding.ledger).

    When fewer than T + 1 learners remain, jobs opened from then on go to a second ledger, under a scheme with a smaller delay
    (`scheme.within`), while the first ledger finishes its own jobs.
    """

    def __init__(
        self,
        scheme: Scheme,
        closing: Closing | None = None,
        *,
        late: bool = True,
        left: Mapping[int, int] | None = None,
        most: float = np.inf,
    ) -> None:
        self._given = self._scheme = scheme  # the scheme as given, and the one for jobs to open
        self._most = most
        self._closing = closing or Safe()
        self._late = late
        # Ledgers with their straggler patterns; the last one takes new jobs.
        self._streams = [_stream(scheme, most)]  # the last one takes new jobs
        self._ready: deque[tuple[int, int]] = deque()  # (job, learner) in order of opening
        self._left = dict(left or {})  # learner -> jobs it will open after its latest
        self._owner: dict[int, Stream] = {}  # open job -> stream
        self._cost: dict[int, float] = {}  # unfinished job -> compute, in units of a trace's slope
        self._loads: dict[int, list[list[float]]] = {}  # open job -> share of its batch of each (group, worker)
        self._prediction: Prediction | None = None  # only where a scheme's workers are interchangeable: it costs time
        self.switch(scheme)
        self._decodable: list[int] = []
        self._sent: set[MiniTask] = set()  # mini-tasks of this round whose rows are still waited for
        self._progress: Progress | None = None
        self._round = -1
        self._opened = -1  # job that started in this round; -1 = none

    def opened(self, job: int, learner: int, cost: float, left: int, now: float) -> None:
        self._ready.append((job, learner))
        self._left[learner] = left
        self._cost[job] = cost

    def withdrawn(self, job: int, learner: int) -> None:
        # It leaves as if it had made its last step, so that the others move to a smaller delay in time.
        self._left[learner] = 0
        if (job, learner) in self._ready:
            self._ready.remove((job, learner))
        for stream in self._streams:
            if job in stream.ledger.open:
                stream.ledger.retire(job)
        self._owner.pop(job, None)
        if job in self._decodable:
            self._decodable.remove(job)
        self._forget([job])

    def delivered(self, arrivals: Sequence[Delivery], now: float) -> None:
        for delivery in arrivals:
            task = delivery.task
            if self._prediction is not None:
                self._prediction.record_delivery(delivery, self._load(task))
            if delivery.stale:
                continue
            if task in self._sent:
                self._arrived(delivery)
            stream = self._owner.get(task.job)
            # A late row of an earlier round counts as well: its job's owner is still open.
            if stream is not None and stream.ledger.receive(task) and stream.ledger.complete(task.job):
                self._decodable.append(task.job)
                del self._owner[task.job]

    def _load(self, task: MiniTask) -> float:
        """Load of a row, in units of the slope; 0 when its job is finished."""
        return self._cost[task.job] * self._loads[task.job][task.group][task.worker] if task.job in self._loads else 0.0

    def _arrived(self, delivery: Delivery) -> None:
        self._excuse(delivery.task)
        progress = self._progress
        assert progress is not None, f"{delivery.task} is waited for outside a round"
        if progress.first_arrival is None:
            progress.first_arrival = delivery.at
        # An older invocation may answer for one that has hardly begun, which would make the fastest worker look too fast and
        # the mu rule close too early.
        own = delivery.at - delivery.startup - delivery.compute > progress.begun - 1e-9
        if progress.first_finish is None and own and not progress.waiting[delivery.task.worker]:
            progress.first_finish = delivery.at

    def members(self, workers: Mapping[int, str], now: float) -> None:
        if self._prediction is not None:
            self._prediction.members(workers)
        if len(workers) != self._scheme.n:
            # From the scheme as given, so that workers that come back restore it; but never to a longer delay than now, for
            # which there may be too few learners left.
            self.switch(self._given.on(len(workers)).within(self._scheme.delay))

    def switch(self, scheme: Scheme) -> None:
        """Opens the next jobs under another scheme; open jobs finish under their own."""
        self._scheme = scheme
        if self._prediction is None and interchangeable(scheme):
            self._prediction = Prediction()

    def missing(self) -> Mapping[int, int]:
        owed: dict[int, int] = {}
        for task in self._sent:
            owed[task.worker] = owed.get(task.worker, 0) + 1
        return owed

    def step(self, now: float) -> Decision:
        # Under a rule that is not early, complete jobs wait for the end of their round: the papers' accounting.
        if self._decodable and (self._closing.early or self._progress is None):
            return Decision(decode=self._decode())
        if self._progress is None:
            return self._begin(now)
        cutoff = self._closing.cutoff(self._progress)
        if not self._may_end(now, cutoff):
            return Decision(wake=cutoff if cutoff is not None and cutoff > now else None)
        ended, cancel = self._end(now, cutoff)
        # The ended round's jobs are decoded first; the next round begins in the next step, with the jobs that their learners
        # open.
        if self._decodable:
            return Decision(decode=self._decode(), ended=(ended,), cancel=cancel)
        return replace(self._begin(now), ended=(ended,), cancel=cancel)

    def _decode(self) -> dict[int, dict[MiniTask, float]]:
        weights = {}
        for job in self._decodable:
            stream = next(s for s in self._streams if job in s.ledger.open)
            weights[job] = stream.ledger.weights(job)
            stream.ledger.retire(job)
        self._decodable = []
        self._forget(weights)
        return weights

    def _forget(self, jobs: Collection[int]) -> None:
        """Stops waiting for the rows of these jobs, and drops older ledgers without open jobs."""
        for job in jobs:
            self._cost.pop(job, None)
            self._loads.pop(job, None)
        for task in [task for task in self._sent if task.job in jobs]:
            self._excuse(task)
        self._streams = [s for s in self._streams[:-1] if s.ledger.open] + self._streams[-1:]

    def _excuse(self, task: MiniTask) -> None:
        """Stops waiting for one row."""
        self._sent.discard(task)
        if self._progress is not None:
            self._progress.waiting[task.worker] -= 1

    def _may_end(self, now: float, cutoff: float | None) -> bool:
        assert self._progress is not None
        if not self._sent:
            return True
        if cutoff is None or now < cutoff:
            return False
        progress = self._progress
        return all(self._closing.enough(stream, progress) for stream in self._streams)

    def _end(self, now: float, cutoff: float | None) -> tuple[Round, list[MiniTask]]:
        assert self._progress is not None
        progress, self._progress = self._progress, None
        for stream in self._streams:
            stream.history.append(progress.stragglers(stream.ledger.scheme.n))
        slow = tuple(worker for worker, owed in enumerate(progress.waiting) if owed)
        names = tuple(stream.ledger.scheme.spec for stream in self._streams)
        # Beyond the cutoff only because the rows in hand were not enough: the papers' rule would have closed the round.
        waited = cutoff is not None and now > cutoff
        ended = Round(self._round, names, self._opened, progress.begun, now, waited, slow)
        # Late rows are of no use in the papers' model: cancelling frees their workers. Sorted, so that a run's messages do
        # not depend on hashing.
        cancel = [] if self._late else sorted(self._sent)
        return ended, cancel

    def _begin(self, now: float) -> Decision:
        """Starts the next round that has something to send; rounds with nothing to send take no time."""
        self._sent = set()
        while self._ready or self._owner:
            start = self._open_next()
            job = next(iter(start), None)
            # Round numbers count rounds without work, too: schemes reckon their delays in rounds.
            self._round += 1
            self._opened = -1 if job is None else job
            send: list[MiniTask] = []
            for stream in self._streams:
                order = self._order(stream.ledger.scheme, now)
                send += stream.ledger.begin(job if stream is self._streams[-1] else None, order)
            if send:
                if self._prediction is not None:
                    self._prediction.record_sent({task.worker for task in send}, now)
                self._progress = _progress(send, now, max(s.ledger.scheme.n for s in self._streams))
                self._sent = set(send)
                return Decision(start=start, send=send)
        return Decision()

    def _order(self, scheme: Scheme, now: float) -> np.ndarray | None:
        """(n,) workers, fastest first, if the scheme's workers are interchangeable; else None."""
        if self._prediction is None or not interchangeable(scheme):
            return None
        return self._prediction.order(scheme.n, float(scheme.load), now)

    def _open_next(self) -> dict[int, Scheme]:
        if not self._ready:
            return {}
        job, learner = self._ready.popleft()
        # Learners that will open another job after this one: a scheme with delay T needs T + 1 of them.
        staying = len({m for m, left in self._left.items() if left} | {m for _, m in self._ready})
        if self._left[learner] and staying <= self._scheme.delay:
            self.switch(self._scheme.within(staying - 1))
        # A ledger has one scheme for its whole life, because its rows and deadlines are reckoned in that scheme's groups.
        if self._scheme != self._streams[-1].ledger.scheme:
            self._streams.append(_stream(self._scheme, self._most))
        self._owner[job] = self._streams[-1]
        self._loads[job] = layout(self._scheme.spec, self._scheme.n).loads
        return {job: self._scheme}


def _stream(scheme: Scheme, most: float) -> Stream:
    return Stream(Ledger(scheme, most=most), History(scheme.models, scheme.n))


def _progress(send: Sequence[MiniTask], now: float, n: int) -> Progress:
    return Progress(now, np.bincount([task.worker for task in send], minlength=n).tolist())
