"""A ledger played round by round, with the plain table of its rows beside it."""

from collections.abc import Iterator

import numpy as np

from distseq.coding.ledger import Ledger
from distseq.coding.plan import MiniTask
from distseq.coding.schemes.scheme import Scheme, missing


class Play:
    """A ledger whose jobs are numbered by the round in which they start; the first `jobs` rounds start one each."""

    def __init__(self, scheme: Scheme, jobs: int) -> None:
        self.scheme, self.jobs, self.ledger = scheme, jobs, Ledger(scheme)
        self.rows: dict[int, np.ndarray] = {}  # open job -> (groups, n) bool
        self.pending: list[MiniTask] = []  # mini-tasks of open jobs whose rows have not arrived

    @property
    def rounds(self) -> range:
        return range(self.jobs + self.scheme.delay)

    def begin(self) -> list[MiniTask]:
        t = self.ledger.round + 1
        tasks = self.ledger.begin(t if t < self.jobs else None)
        if t < self.jobs:
            self.rows[t] = np.zeros((len(self.scheme.tolerance), self.scheme.n), dtype=bool)
        self.pending += [task for task in tasks if task not in self.pending]
        return tasks

    def receive(self, task: MiniTask) -> None:
        assert self.ledger.receive(task)
        self.rows[task.job][task.group, task.worker] = True
        self.pending.remove(task)

    def unfinished(self) -> dict[int, np.ndarray]:
        """Copies of the tables of the jobs that do not decode yet."""
        return {job: has.copy() for job, has in self.rows.items() if missing(self.scheme.codes, has) is not None}

    def end(self) -> list[int]:
        """End the round: complete jobs are retired and returned, their outstanding rows forgotten."""
        done = [job for job in self.ledger.open if self.ledger.complete(job)]
        for job in done:
            self.ledger.retire(job)
            del self.rows[job]
        self.pending = [task for task in self.pending if task.job in self.rows]
        return done


def with_rows(table: dict[int, np.ndarray], tasks: list[MiniTask]) -> dict[int, np.ndarray]:
    """The table of unfinished jobs with the rows of these mini-tasks added."""
    more = {job: has.copy() for job, has in table.items()}
    for task in tasks:
        if task.job in more:
            more[task.job][task.group, task.worker] = True
    return more


def random_play(scheme: Scheme, jobs: int, draws: np.random.Generator) -> Iterator[Play]:
    """A random play after each begin and each row: rows arrive in any order, late ones too; a safe round may end."""
    play = Play(scheme, jobs)
    eager, lost = draws.choice((0.1, 0.5, 1.0)), draws.choice((0.0, 0.5, 1.0))
    for _ in play.rounds:
        play.begin()
        yield play
        while play.pending and not (play.ledger.safe() and draws.random() < eager):
            play.receive(play.pending[draws.integers(len(play.pending))])
            yield play
        play.end()
        play.pending = [task for task in play.pending if draws.random() >= lost]


def decoded_on_time(scheme: Scheme, pattern: np.ndarray) -> set[int]:
    """Jobs decoded by their deadlines when the stragglers' rows (pattern: rounds, n) are lost and no round waits."""
    ledger, jobs, done = Ledger(scheme), len(pattern) - scheme.delay, set()
    for t, stragglers in enumerate(pattern):
        for task in ledger.begin(t if t < jobs else None):
            if not stragglers[task.worker]:
                ledger.receive(task)
        for job in ledger.open:
            if ledger.complete(job):
                done.add(job)
            if ledger.complete(job) or job + scheme.delay == t:
                ledger.retire(job)
    return done
