"""The progress of one scheme: rows in hand, and which jobs are open, due, complete or safe.

A row counts whenever it arrives, as long as its job is open. All state is here; schemes themselves have none.
"""

from itertools import repeat
from math import inf

import numpy as np

from distseq.coding.codes.gradient_code import AmplifyingCode, Shortage
from distseq.coding.plan import MiniTask
from distseq.coding.schemes.scheme import Scheme, missing


class Watch:
    """Tracks a shortage, and tells when it is worth computing anew."""

    # A shortage names workers and a number of rows without which it cannot be met, so that it is computed again only when these
    # have arrived, instead of after every row: 3 ms per round at n = 256 (docs/decisions/001).
    def __init__(self, shortage: Shortage | None) -> None:
        self.met = shortage is None
        self._workers = None if shortage is None else shortage.workers
        self._need = 0 if shortage is None else shortage.need

    def note(self, worker: int) -> bool:
        """Count a row of this worker. Returns whether the shortage should be computed anew."""
        if self._workers is not None and self._workers[worker]:
            self._need -= 1
        return not self.met and self._need <= 0


class Ledger:
    """The rows of one scheme's jobs, round by round.

    `begin` opens a round and a job in it, if any; `receive` takes rows; `retire` drops a decoded job. Callers name jobs by their
    own numbers, schemes by the round in which they started.

    most: the amplification up to which a decode is used (AmplifyingCode). Beyond it a job waits for further rows.
    """

    def __init__(self, scheme: Scheme, *, most: float = inf) -> None:
        self.scheme, self._most = scheme, most
        self.round = -1
        self._rows: dict[int, np.ndarray] = {}  # start -> (groups, n) bool, open jobs only
        self._job: dict[int, int] = {}  # start -> job
        self._start: dict[int, int] = {}  # job -> start
        self._complete: dict[int, Watch] = {}  # job -> what its rows lack to decode
        self._safe = Watch(None)

    @property
    def open(self) -> tuple[int, ...]:
        """Jobs that are not retired, oldest first."""
        return tuple(self._start)

    def begin(self, job: int | None, order: np.ndarray | None = None) -> list[MiniTask]:
        """Start the next round, and `job` in it. Returns the round's mini-tasks, worker by worker.

        `order` (n,): the worker that takes each place in the plan, for schemes whose workers are interchangeable. RuntimeError if
        the previous round was not ended safely, so that a job is overdue. ValueError if `job` is open already.
        """
        # Checked before anything changes, so that a refused round leaves the ledger as it was.
        late = [j for j, start in self._start.items() if start + self.scheme.delay <= self.round]
        overdue = [j for j in late if not self.complete(j)]
        if overdue:
            raise RuntimeError(f"round {self.round} of {self.scheme.spec} ended with overdue jobs {overdue}")
        if job in self._start:
            raise ValueError(f"job {job} is open already")
        self.round += 1
        t = self.round
        if job is not None:
            self._rows[t] = np.zeros((len(self.scheme.tolerance), self.scheme.n), dtype=bool)
            self._job[t], self._start[job] = job, t
            self._complete[job] = Watch(self._lacking(self._rows[t]))
        # Complete jobs are left out: nobody should repeat work for a job that only waits to be retired.
        plan = self.scheme.assign(t, self._unfinished())
        if order is not None:
            plan = plan.among(order)
        self._safe = Watch(self._unsafe())
        return plan.tasks(self._job)

    def _lacking(self, rows: np.ndarray) -> Shortage | None:
        """What a job lacks: rows to decode, or to decode without amplifying rounding errors too much."""
        shortage = missing(self.scheme.codes, rows)
        if shortage is not None or self._most == inf:
            return shortage
        for code, has in zip(self.scheme.codes, rows, strict=True):
            # All rows decode best: there is nothing more to wait for.
            if isinstance(code, AmplifyingCode) and not has.all() and code.amplified(has) > self._most:
                return Shortage(~has, 1)
        return None

    def _unsafe(self) -> Shortage | None:
        """What must still arrive before the round may end safely."""
        shortage = self.scheme.shortage(self.round, self._unfinished())
        due = self._unfinished().get(self.round - self.scheme.delay)
        # Schemes count rows. The job that is due must also be one that may be decoded.
        return self._lacking(due) if shortage is None and due is not None else shortage

    def _unfinished(self) -> dict[int, np.ndarray]:
        return {start: rows for start, rows in self._rows.items() if not self._complete[self._job[start]].met}

    def receive(self, task: MiniTask) -> bool:
        """Record a row. Returns False if it is in hand already or its job is not open."""
        start = self._start.get(task.job)
        # A pool delivers at least once: a row may come twice, after a retry, and after its job was decoded without it.
        if start is None or self._rows[start][task.group, task.worker]:
            return False
        self._rows[start][task.group, task.worker] = True
        if self._complete[task.job].note(task.worker):
            self._complete[task.job] = Watch(self._lacking(self._rows[start]))
        if self._safe.note(task.worker):
            self._safe = Watch(self._unsafe())
        return True

    def complete(self, job: int) -> bool:
        """Whether the job can be decoded from the rows in hand."""
        return self._complete[job].met

    def safe(self) -> bool:
        """Whether the round may end now: if every later round were complete, each open job would be complete by its due round."""
        return self._safe.met

    def due_complete(self) -> bool:
        """Whether the job that is due in this round is complete; True if there is none."""
        # A job that was retired has been decoded, or given up with its learner; nothing waits for it.
        job = self._job.get(self.round - self.scheme.delay)
        return job is None or job not in self._start or self.complete(job)

    def weights(self, job: int) -> dict[MiniTask, float]:
        """Decode weights of the rows to be summed, by group and worker. ValueError if the job is not complete."""
        rows = self._rows[self._start[job]]
        a = np.array([code.decode(has) for code, has in zip(self.scheme.codes, rows, strict=True)])
        # Without zeros: of two replicas one is not needed, and it may still be on its way.
        groups, workers = np.nonzero(a)
        tasks = map(MiniTask._make, zip(repeat(job), groups.tolist(), workers.tolist()))
        return dict(zip(tasks, a[groups, workers].tolist(), strict=True))

    def retire(self, job: int) -> None:
        """Drop a job that was decoded or given up; its rows no longer count."""
        start, complete = self._start.pop(job), self._complete.pop(job).met
        del self._rows[start], self._job[start]
        # What the round is short of may have been rows of this job. A complete job was not part of it.
        if not complete:
            self._safe = Watch(self._unsafe())
