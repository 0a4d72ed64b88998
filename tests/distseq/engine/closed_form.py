"""Learners whose gradients are known in closed form, run through the master and the simulated pool."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from distseq.cluster.probe import Probe, feature
from distseq.cluster.simulated import SimulatedPool
from distseq.cluster.trace import Trace
from distseq.coding.codes.cyclic import RESIDUAL
from distseq.coding.layout import layout
from distseq.coding.plan import MiniTask
from distseq.coding.schemes.ksync import KSync
from distseq.coding.schemes.registry import parse
from distseq.coding.schemes.scheme import Scheme
from distseq.engine.interfaces import JobInput
from distseq.engine.journal import MemoryJournal, Record
from distseq.engine.master import Master
from distseq.scheduling.backup import round_scheduler
from distseq.scheduling.closing import Closing, Safe
from distseq.scheduling.scheduler import Scheduler

SIZE = 3
POISON = 5000  # a sample that no worker can read


class Sums:
    """A learner that keeps every decoded total; the batch of its step k is `batches[k]`; step `fails` raises."""

    def __init__(self, name: str, batches: Sequence[np.ndarray], cost: float, fails: int | None = None) -> None:
        self.name, self.batches, self.steps, self.cost, self.fails = name, batches, len(batches), cost, fails
        self.totals: list[np.ndarray] = []

    def open(self, step: int) -> JobInput:
        return JobInput(np.zeros(0), self.batches[step], cost=self.cost)

    def apply(self, total: np.ndarray) -> Mapping[str, float]:
        if len(self.totals) == self.fails:
            raise FloatingPointError("not finite")
        self.totals.append(total)
        return {}


def failing(
    steps: Sequence[int], ways: Sequence[str] = ("row", "step")
) -> st.SearchStrategy[dict[int, tuple[int, str]]]:
    """Which learners fail, each at a step of its own and in one of these ways; learner m makes `steps[m]`."""
    ones = [st.none() | st.tuples(st.integers(0, count - 1), st.sampled_from(ways)) for count in steps]
    return st.tuples(*ones).map(lambda drawn: {m: one for m, one in enumerate(drawn) if one is not None})


@dataclass(frozen=True)
class Played:
    """A run to its end."""

    learners: list[Sums]
    records: list[Record]
    seconds: float

    @property
    def rounds(self) -> list[Record]:
        return [record for record in self.records if record["kind"] == "round"]

    @property
    def jobs(self) -> list[Record]:
        return [record for record in self.records if record["kind"] == "job"]

    @property
    def moves(self) -> list[str]:
        """The schemes that took new jobs, each once, in their order."""
        return list(dict.fromkeys(record["schemes"][-1] for record in self.rounds))


def play(
    scheme: Scheme,
    times: Any,
    steps: Sequence[int],
    closing: Closing | None = None,
    *,
    slope: float = 0.0,
    unfinished: str = "overlap",
    arrival: str = "row",
    costs: Sequence[float] | None = None,
    fails: Mapping[int, tuple[int, str]] | None = None,
    wrap: Callable[[Scheduler], Scheduler] = lambda scheduler: scheduler,
    inner: Scheduler | None = None,
    ahead: int = 1,
) -> Played:
    """Learner m makes `steps[m]` steps; `times` (rounds, n) are start-up seconds; `inner` schedules in place of rounds.

    `fails`: learner -> the step that it cannot make, and whether it is a "row" or the "step" itself that fails. `ahead`: jobs of
    a learner that are open at once; where a row fails, the steps before it may not be made either.
    """
    draws = np.random.default_rng([*steps, scheme.n])
    learners = [
        Sums(f"m{m}", [draws.integers(0, 1000, draws.integers(1, 40)) for _ in range(count)], 1.0)
        for m, count in enumerate(steps)
    ]
    for learner, cost in zip(learners, costs or (), strict=False):
        learner.cost = cost
    for m, (step, how) in (fails or {}).items():
        if how == "row":
            learners[m].batches[step][-1] = POISON
        else:
            learners[m].fails = step
    trace = Trace(np.asarray(times, dtype=float), 0.0, slope)
    pool = SimulatedPool(
        trace, Probe(SIZE, dtype="float64", fail_on=POISON), unfinished=unfinished, arrival=arrival, compute="rows"
    )
    journal = MemoryJournal()
    scheduler = wrap(inner or round_scheduler(scheme, closing, late=unfinished != "lost"))
    master = Master(learners, scheduler, pool, journal, ahead=ahead)
    seconds = master.run()
    failed = {int(one.learner[1:]): one.step for one in master.failures}
    assert failed.keys() == (fails or {}).keys()
    for m, (step, how) in (fails or {}).items():
        assert failed[m] == step or (how == "row" and step - ahead < failed[m] < step)
    return Played(learners, journal.records, seconds)


def check_exact(played: Played, code: str, fails: Mapping[int, tuple[int, str]] | None = None) -> None:
    """Each step of each learner, but those that fail, was made once, in order, with the sum over its full batch: to the bit
    under fr."""
    check_steps(played, fails)
    for m, learner in enumerate(played.learners):
        steps = (fails or {}).get(m, (learner.steps, ""))[0]
        for total, ids in zip(learner.totals, learner.batches[:steps], strict=True):
            rows = feature(ids, SIZE)
            if code == "fr":
                np.testing.assert_array_equal(total, rows.sum(axis=0))
            else:
                assert (np.abs(total - rows.sum(axis=0)) <= RESIDUAL * np.abs(rows).sum(axis=0)).all()


def check_steps(played: Played, fails: Mapping[int, tuple[int, str]] | None = None) -> None:
    """Each step of each learner, but those that fail, was made once, in order."""
    for m, learner in enumerate(played.learners):
        steps = (fails or {}).get(m, (learner.steps, ""))[0]
        made = [record["step"] for record in played.jobs if record["learner"] == learner.name]
        assert made == list(range(steps))
        assert len(learner.totals) == steps
    numbers = [record["job"] for record in played.jobs]
    assert fails or sorted(numbers) == list(range(len(numbers)))


def check_scaled(played: Played, n: int, K: int, fails: Mapping[int, tuple[int, str]] | None = None) -> None:
    """Each step was made once, in order, with n/K times the sum over the parts of exactly K workers: those recorded."""
    check_steps(played, fails)
    cut, learners = layout("uncoded", n), {learner.name: learner for learner in played.learners}
    for record in played.jobs:
        learner, step = learners[record["learner"]], record["step"]
        workers = [worker for _, worker in record["rows"]]
        assert len(set(workers)) == len(workers) == K
        parts = [cut.row(MiniTask(0, 0, worker), learner.batches[step])[0] for worker in workers]
        rows = feature(np.concatenate(parts), SIZE)
        assert (np.abs(learner.totals[step] - n / K * rows.sum(axis=0)) <= 1e-12 * np.abs(rows).sum(axis=0)).all()


def check_sums(played: Played, scheme: Scheme, fails: Mapping[int, tuple[int, str]] | None = None) -> None:
    """What the scheme promises of the sums."""
    if isinstance(scheme, KSync):
        check_scaled(played, scheme.n, scheme.K, fails)
    else:
        assert scheme.exact
        check_exact(played, getattr(scheme, "code", "fr"), fails)


def check_on_time(played: Played, n: int, early: bool = True) -> None:
    """Each job was decoded at most T rounds after the one that opened it. A job decoded early is recorded before its round."""
    opened = {record["opened"]: record["index"] for record in played.rounds}
    for position, record in enumerate(played.records):
        if record["kind"] == "job":
            around = played.records[position:] if early else played.records[position::-1]
            decoded = next(other["index"] for other in around if other["kind"] == "round")
            assert decoded <= opened[record["job"]] + parse(record["scheme"], n).delay


def checked(played: Played, scheme: Scheme, closing: Closing | None = None) -> Played:
    """The run, once it is known to be on time, and exact where its scheme is."""
    check_sums(played, scheme)
    check_on_time(played, scheme.n, (closing or Safe()).early)
    return played
