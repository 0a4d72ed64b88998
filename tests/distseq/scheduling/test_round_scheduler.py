"""Rounds: any delays give exact sums on time, and no round is longer than its rule says."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distseq.cluster.pool import Delivery, PoolError
from distseq.cluster.trace import Trace
from distseq.coding.codes.registry import CODES
from distseq.coding.plan import MiniTask
from distseq.coding.schemes.gradient_coding import GC
from distseq.coding.schemes.m_sgc import MSGC
from distseq.coding.schemes.registry import SCHEMES, parse
from distseq.coding.schemes.scheme import Scheme
from distseq.coding.schemes.sr_sgc import SRSGC
from distseq.scheduling.closing import Closing, Mu, Safe, closing_rule
from distseq.scheduling.round_scheduler import RoundScheduler
from distseq.scheduling.scheduler import Decision, Scheduler
from distseq.simulation.simulate import Setting, simulate
from tests.coding.patterns import random_pattern
from tests.coding.strategies import BUILDERS, PROPERTY, generators
from tests.distseq.engine.closed_form import Played, check_on_time, check_sums, checked, failing, play
from tests.examples import examples

UNFINISHED = ("lost", "overlap", "serial")
ROWS = 300  # more than the invocations of a worker in any run here
LOST = 3  # invocations of one worker that never answer: one less than the pool's attempts
kinds = pytest.mark.parametrize("kind", sorted(BUILDERS))
EXACT = tuple(kind for kind in sorted(BUILDERS) if parse(SCHEMES[kind].example, 256).exact)
closings = st.one_of(st.sampled_from((0.0, 0.7, 3.0)).map(Safe), st.sampled_from((0.0, 0.5, 1.0)).map(Mu))


@dataclass(frozen=True)
class Case:
    """A run to play: everything but the closing rule."""

    scheme: Scheme
    times: np.ndarray
    steps: tuple[int, ...]
    slope: float
    unfinished: str
    arrival: str
    costs: tuple[float, ...]

    def play(
        self,
        closing: Closing | None = None,
        wrap: Callable[[Scheduler], Scheduler] = lambda s: s,
        fails: Mapping[int, tuple[int, str]] | None = None,
    ) -> Played:
        options: dict[str, Any] = {
            "unfinished": self.unfinished,
            "arrival": self.arrival,
            "costs": self.costs,
            "fails": fails,
        }
        return play(self.scheme, self.times, self.steps, closing, slope=self.slope, wrap=wrap, **options)


def delays(n: int, draws: np.random.Generator, lost: bool) -> np.ndarray:
    """(ROWS, n) start-up seconds with a heavy tail, often with ties, a few of them infinite."""
    base = draws.choice((0.0, 1.0))
    times = base + 0.3 * draws.random((ROWS, n)) + (draws.random((ROWS, n)) < 0.3) * draws.pareto(0.9, (ROWS, n))
    times = np.round(times, draws.choice((0, 1, 6)))
    for worker in range(n) if lost else ():
        times[draws.choice(25, draws.integers(LOST + 1), replace=False), worker] = np.inf
    return times


@st.composite
def schemes_of(draw: st.DrawFn, kind: str, codes: Sequence[str] = tuple(sorted(CODES))) -> Scheme:
    """A scheme of a kind on four to nine workers."""
    return BUILDERS[kind](draw, draw(st.integers(4, 9)), draw(st.sampled_from(codes)))


@st.composite
def cases(draw: st.DrawFn, kinds: Sequence[str] = tuple(sorted(BUILDERS)), lost: bool = True) -> Case:
    scheme = draw(schemes_of(draw(st.sampled_from(kinds))))
    models = scheme.delay + draw(st.integers(1, 3))
    draws = draw(generators())
    return Case(
        scheme,
        delays(scheme.n, draws, lost),
        tuple(draws.integers(1, 5, models).tolist()) if draw(st.booleans()) else (3,) * models,
        draw(st.sampled_from((0.0, 1.0, 5.0))),
        draw(st.sampled_from(UNFINISHED)),
        draw(st.sampled_from(("row", "message"))),
        tuple(draws.choice((1.0, 0.2, 4.0), models).tolist()),
    )


@kinds
@examples(40)
@given(data=st.data(), closing=closings)
def test_any_delays_give_every_learner_its_exact_sums_in_order_and_on_time(
    kind: str, data: st.DataObject, closing: Closing
) -> None:
    case = data.draw(cases((kind,)))
    checked(case.play(closing), case.scheme, closing)


@pytest.mark.long
@settings(PROPERTY, max_examples=2000)
@given(case=cases(), closing=closings)
def test_any_delays_give_exact_sums_on_time_in_many_more_runs(case: Case, closing: Closing) -> None:
    checked(case.play(closing), case.scheme, closing)


def test_a_worker_that_loses_four_in_a_row_fails_the_run() -> None:
    with pytest.raises(PoolError, match=r"worker 2 lost .* in each of 4 attempts"):
        play(GC(4, 0), [[1.0, 1.0, np.inf, 1.0]], [2])


def test_a_worker_that_loses_everything_is_not_missed_where_its_rows_are_spare() -> None:
    scheme = GC(4, 1)
    played = checked(play(scheme, [[1.0, 1.0, np.inf, 1.0]], [3]), scheme)
    assert played.seconds == 3.0


@kinds
@pytest.mark.parametrize("code", sorted(CODES))
@examples(25)
@given(data=st.data(), draws=generators())
def test_a_conforming_pattern_never_waits(
    kind: str, code: str, data: st.DataObject, draws: np.random.Generator
) -> None:
    scheme = data.draw(schemes_of(kind, (code,)))
    jobs = 4 * (scheme.delay + 1)  # one of each learner: all are ready, and none has a successor
    pattern = random_pattern(
        data.draw(st.sampled_from(scheme.models)), scheme.n, jobs, draws.choice((0.2, 0.5, 1)), draws
    )
    times = np.ones((ROWS, scheme.n))  # in the rounds after the last opening nobody straggles: fewer have work then
    times[:jobs] = np.where(pattern, 10.0, 1.0)
    played = checked(play(scheme, times, (1,) * jobs, Mu(), unfinished="lost", arrival="message"), scheme, Mu())
    assert played.moves == [scheme.spec]
    for t, record in enumerate(played.rounds):
        late = pattern[t] if t < jobs else np.zeros(scheme.n, dtype=bool)
        fastest = 10.0 if late.all() else 1.0
        assert not record["waited"]
        assert list(record["stragglers"]) == ([] if late.all() else np.flatnonzero(late).tolist())
        assert record["ended"] - record["begun"] == pytest.approx(2 * fastest if record["stragglers"] else fastest)


@examples(100)
@given(case=cases(), cutoff=st.sampled_from((0.0, 0.4, 2.0)))
def test_safe_ends_no_round_before_its_first_arrival_nor_before_the_cutoff(case: Case, cutoff: float) -> None:
    begun = 0.0
    for record in case.play(Safe(cutoff)).rounds:
        arrived = [at for _, _, _, at, *_, stale in record["arrivals"] if not stale]
        assert record["begun"] == begun, "rounds follow each other without a gap"
        assert begun - 1e-6 <= min(arrived) <= record["ended"] + 1e-6
        assert record["ended"] >= begun + cutoff or not record["stragglers"]
        begun = record["ended"]


def test_safe_ends_a_round_at_the_first_arrival_that_makes_it_safe() -> None:
    lengths = {
        cutoff: play(GC(4, 1), [[1.0, 2.0, 3.0, 4.0]], [1], Safe(cutoff)).seconds for cutoff in (0.0, 2.5, 3.5, 9.0)
    }
    assert lengths == {0.0: 3.0, 2.5: 3.0, 3.5: 3.0, 9.0: 3.0}
    begins = [record["begun"] for record in play(MSGC(4, 1, 2, 1), [[1.0, 2.0, 3.0, 4.0]], [2, 2], Safe(3.5)).rounds]
    assert begins == [0.0, 3.5, 7.0, 10.5, 14.0]


def test_a_job_of_higher_cost_computes_longer() -> None:
    # half a batch in 1 + 2 x 1/2 x cost seconds
    played = play(GC(2, 0), np.ones((1, 2)), [1, 2], slope=2.0, costs=[4.0, 0.5])
    assert [record["ended"] - record["begun"] for record in played.rounds] == [5.0, 1.5, 1.5]


# Jobs 0 and 1 of two learners under SR-SGC(4, 1, 2, 2), s = 1: three rows of a job are needed. Round 0 is safe with the
# row of worker 0 at 1.0, and ends. In round 1 workers 1 and 2 repeat job 0, workers 0 and 3 do job 1.
#   lost     the repeats come at 6.0: job 0; in round 2 worker 1 repeats job 1: 7.0
#   overlap  the late rows of workers 1 and 2 come at 2.5 and 3.0: job 0; in round 2, 0, 1 and 2 repeat job 1: 4.0
#   serial   as before 3.0: job 0; worker 0's row of job 1 comes at 1 + 5, worker 3's at 3 + 5; workers 1 and 2 pass over
#            the repeats that they have just done, and repeat job 1 in round 2, at 3 + 5: 8.0
@pytest.mark.parametrize(
    ("unfinished", "decoded"), [("lost", [6.0, 7.0]), ("overlap", [3.0, 4.0]), ("serial", [3.0, 8.0])]
)
def test_a_late_row_still_counts_unless_it_is_lost(unfinished: str, decoded: list[float]) -> None:
    times = [[1.0, 2.5, 3.0, 3.0], [5.0] * 4, *[[1.0] * 4] * 8]
    scheme = SRSGC(4, 1, 2, 2, "cyclic")
    played = checked(play(scheme, times, [1, 1], unfinished=unfinished, arrival="message"), scheme)
    assert [record["decoded"] for record in played.jobs] == decoded


def test_a_late_row_that_nobody_repeats_counts() -> None:
    """As above; worker 3's row of job 0 comes at 2.0, after its round, and one repeat, at 1 + 5, makes three."""
    times = [[1.0, 9.0, 9.0, 2.0], [5.0, 5.0, 7.0, 5.0], *[[1.0] * 4] * 8]
    scheme = SRSGC(4, 1, 2, 2, "cyclic")
    assert play(scheme, times, [1, 1], unfinished="overlap", arrival="message").jobs[0]["decoded"] == 6.0


class Through:
    """A scheduler that passes everything on; others override what they look at."""

    def __init__(self, inner: Scheduler) -> None:
        self.inner = inner

    def opened(self, job: int, learner: int, cost: float, left: int, now: float) -> None:
        self.inner.opened(job, learner, cost, left, now)

    def delivered(self, arrivals: Sequence[Delivery], now: float) -> None:
        self.inner.delivered(arrivals, now)

    def members(self, workers: Mapping[int, str], now: float) -> None:
        self.inner.members(workers, now)

    def withdrawn(self, job: int, learner: int) -> None:
        self.inner.withdrawn(job, learner)

    def step(self, now: float) -> Decision:
        return self.inner.step(now)

    def missing(self) -> Mapping[int, int]:
        return self.inner.missing()


class Withdrawn(Through):
    """Sees that nothing of a withdrawn job is decided any more."""

    def __init__(self, inner: Scheduler) -> None:
        super().__init__(inner)
        self.jobs: set[int] = set()

    def withdrawn(self, job: int, learner: int) -> None:
        super().withdrawn(job, learner)
        self.jobs.add(job)

    def step(self, now: float) -> Decision:
        decision = super().step(now)
        named = (
            {task.job for task in (*decision.send, *decision.cancel)} | decision.decode.keys() | decision.start.keys()
        )
        assert not named & self.jobs
        return decision


@kinds
@examples(60)
@given(data=st.data(), closing=closings)
def test_whoever_fails_whenever_the_others_get_their_exact_sums_on_time(
    kind: str, data: st.DataObject, closing: Closing
) -> None:
    case = data.draw(cases((kind,)))
    # Where rows are dropped, the one that fails may be among them, and nobody has failed.
    fails = data.draw(failing(case.steps, ("row", "step") if case.scheme.exact else ("step",)))
    played = case.play(closing, Withdrawn, fails)
    check_sums(played, case.scheme, fails)
    check_on_time(played, case.scheme.n, closing.early)


def test_a_round_does_not_wait_for_rows_of_a_job_that_is_withdrawn() -> None:
    for fault_first in (True, False):
        scheduler = RoundScheduler(SRSGC(4, 1, 2, 2, "cyclic"))
        for learner in range(2):
            scheduler.opened(learner, learner, 1.0, 3, 0.0)
        scheduler.delivered(deliveries(scheduler.step(0.0).send[:2], 1.0), 1.0)
        second = scheduler.step(1.0).send
        assert {task.job for task in second} == {0, 1}
        others = [task for task in second if task.job == 1]
        if fault_first:
            scheduler.withdrawn(0, 0)
        scheduler.delivered(deliveries(others, 2.0), 2.0)
        if not fault_first:
            scheduler.withdrawn(0, 0)
        assert list(scheduler.step(2.0).decode) == [1]
        assert scheduler.missing() == {}
        scheduler.delivered(deliveries([task for task in second if task.job == 0], 2.5), 2.5)
        assert scheduler.step(2.5).decode == {}


def test_a_job_that_is_ready_or_decodable_can_be_withdrawn() -> None:
    scheduler = RoundScheduler(GC(2, 0))
    for learner in range(3):
        scheduler.opened(learner, learner, 1.0, 0, 0.0)
    scheduler.withdrawn(1, 1)
    scheduler.delivered(deliveries(scheduler.step(0.0).send, 1.0), 1.0)
    scheduler.withdrawn(0, 0)
    decision = scheduler.step(1.0)
    assert (decision.decode, list(decision.start)) == ({}, [2])


def test_a_failure_that_leaves_too_few_learners_moves_to_a_scheme_of_smaller_delay() -> None:
    scheme = MSGC(4, 1, 2, 1)  # T = 1
    played = play(scheme, np.ones((1, 4)), [6, 6], fails={0: (2, "row")})
    assert played.moves == [scheme.spec, scheme.within(0).spec]


def left_behind(played: Played) -> list[tuple[int, bool, str]]:
    """Of each job, in the order of their starts: learners that start one after it, whether its own does, its scheme."""
    jobs = {record["job"]: record for record in played.jobs}
    order = [jobs[record["opened"]] for record in played.rounds if record["opened"] in jobs]
    names = [record["learner"] for record in order]
    later = [names[k + 1 :] for k in range(len(names))]
    return [(len(set(after)), own["learner"] in after, own["scheme"]) for own, after in zip(order, later, strict=True)]


@pytest.mark.parametrize(
    "scheme", [MSGC(4, 1, 3, 1), MSGC(4, 2, 3, 2, "cyclic"), SRSGC(5, 2, 3, 2)], ids=lambda s: s.spec
)
def test_unequal_learners_move_to_schemes_of_smaller_delay_and_lose_no_job(scheme: Scheme) -> None:
    models = scheme.delay + 1
    steps = [40, *range(3, 3 + 2 * scheme.delay, 2)]
    played = checked(play(scheme, np.ones((1, scheme.n)), steps), scheme)
    expected = [scheme]
    for delay in reversed(range(scheme.delay)):
        expected.append(expected[-1].within(delay))
    assert len(played.learners) == models
    assert played.moves == [one.spec for one in expected]
    assert [one.delay for one in expected] == list(reversed(range(models)))


@pytest.mark.parametrize("seed", range(12))
def test_jobs_that_are_open_at_a_move_finish_under_their_own_scheme(seed: int) -> None:
    scheme = MSGC(4, 1, 3, 1)
    times = np.random.default_rng(seed).exponential(1.0, (50, 4))
    played = checked(play(scheme, times, [9, 3, 5]), scheme)
    both = [record for record in played.rounds if len(record["schemes"]) == 2]
    assert both
    for record in both:
        names = set(record["schemes"])
        assert {one["scheme"] for one in played.jobs if record["begun"] < one["decoded"] <= record["ended"]} <= names


@examples(100)
@given(case=cases(("msgc", "srsgc"), lost=False))
def test_a_job_with_a_successor_has_as_many_learners_behind_it_as_its_delay_needs(case: Case) -> None:
    delay = case.scheme.delay
    for behind, again, spec in left_behind(case.play()):
        own = parse(spec, case.scheme.n).delay
        if again:
            assert own <= behind - 1
            assert own == delay or behind - 1 < delay, "a move that was not needed"
        delay = own


@kinds
@examples(25)
@given(data=st.data(), more=st.integers(0, 3), steps=st.integers(1, 6), closing=closings)
def test_equal_learners_in_step_never_cause_a_move(
    kind: str, data: st.DataObject, more: int, steps: int, closing: Closing
) -> None:
    scheme = data.draw(schemes_of(kind))
    played = play(scheme, np.ones((1, scheme.n)), (steps,) * (scheme.delay + 1 + more), closing)
    assert played.moves == [scheme.spec]


class Twice(Through):
    """Asks again after each decision that leaves nothing to be told."""

    def step(self, now: float) -> Decision:
        decision = self.inner.step(now)
        if not decision.decode:
            assert self.inner.step(now) == Decision(wake=decision.wake)
        return decision


class Twin(Through):
    """From step `at` on, a deep copy is told the same and must decide the same."""

    def __init__(self, inner: Scheduler, at: int) -> None:
        super().__init__(inner)
        self.at, self.twin = at, inner

    def opened(self, job: int, learner: int, cost: float, left: int, now: float) -> None:
        self.inner.opened(job, learner, cost, left, now)
        if self.twin is not self.inner:
            self.twin.opened(job, learner, cost, left, now)

    def delivered(self, arrivals: Sequence[Delivery], now: float) -> None:
        self.inner.delivered(arrivals, now)
        if self.twin is not self.inner:
            self.twin.delivered(arrivals, now)

    def step(self, now: float) -> Decision:
        self.at -= 1
        if not self.at:
            self.twin = copy.deepcopy(self.inner)
        decision = self.inner.step(now)
        if self.twin is not self.inner:
            assert self.twin.step(now) == decision
            assert self.twin.missing() == self.inner.missing()
        return decision


class Changing(Through):
    """The number of workers changes now and then: what is open goes on, on workers that stay within reach."""

    def __init__(self, inner: Scheduler, n: int, draws: np.random.Generator) -> None:
        super().__init__(inner)
        self.n, self.draws = n, draws

    def step(self, now: float) -> Decision:
        if self.draws.random() < 0.2:
            self.members(dict.fromkeys(range(self.draws.integers(1, self.n + 1)), "host"), now)
        return self.inner.step(now)


@examples(100)
@given(case=cases(EXACT), closing=closings, draws=generators())
def test_whatever_number_of_workers_there_is_every_sum_is_exact(
    case: Case, closing: Closing, draws: np.random.Generator
) -> None:
    checked(case.play(closing, lambda inner: Changing(inner, case.scheme.n, draws)), case.scheme, closing)


def test_a_changed_number_of_workers_counts_for_jobs_opened_from_then_on() -> None:
    scheduler = RoundScheduler(parse("gc:3", 8))
    for job in range(4):
        scheduler.opened(job, job, 1.0, 5, 0.0)
    for job, (n, spec) in enumerate([(8, "gc:3"), (3, "gc:2"), (1, "uncoded"), (8, "gc:3")]):
        scheduler.members(dict.fromkeys(range(n), "host"), float(job))
        decision = scheduler.step(float(job))
        assert {j: (s.n, s.spec) for j, s in decision.start.items()} == {job: (n, spec)}
        scheduler.delivered(deliveries(decision.send, job + 0.5), job + 0.5)
        assert list(scheduler.step(job + 0.5).decode) == [job]


@examples(60)
@given(case=cases(), closing=closings)
def test_a_second_step_with_nothing_new_decides_nothing_new(case: Case, closing: Closing) -> None:
    assert case.play(closing, Twice).records == case.play(closing).records


@examples(60)
@given(case=cases(), closing=closings, at=st.integers(1, 40))
def test_a_copy_made_in_the_middle_of_a_run_decides_the_same(case: Case, closing: Closing, at: int) -> None:
    made: list[Twin] = []

    def wrap(scheduler: Scheduler) -> Scheduler:
        made.append(Twin(scheduler, at))
        return made[-1]

    with_twin, alone = case.play(closing, wrap), case.play(closing)
    assert with_twin.records == alone.records
    assert made[0].at > 0 or made[0].twin is not made[0].inner


@examples(40)
@given(case=cases(), closing=closings)
def test_two_runs_of_one_seed_have_one_journal(case: Case, closing: Closing) -> None:
    first, second = case.play(closing), case.play(closing)
    assert first.records == second.records
    assert first.seconds == second.seconds
    for one, other in zip(first.learners, second.learners, strict=True):
        assert [total.tobytes() for total in one.totals] == [total.tobytes() for total in other.totals]


def deliveries(tasks: Sequence[MiniTask], at: float) -> list[Delivery]:
    return [Delivery(task, at, 0.0, 0.0, "host", 1, 0) for task in tasks]


def test_the_ready_learner_that_has_waited_longest_goes_first() -> None:
    scheduler = RoundScheduler(GC(2, 0))
    for job, learner in ((0, 2), (1, 0), (2, 1)):
        scheduler.opened(job, learner, 1.0, 5, 0.0)
    order, job = [], 3
    for t in range(7):
        decision = scheduler.step(float(t))
        (started,) = decision.start
        order.append(started)
        scheduler.delivered(deliveries(decision.send, t + 1.0), t + 1.0)
        assert list(scheduler.step(t + 1.0).decode) == [started]
        if started != 1:  # the learner of job 1 takes its time
            scheduler.opened(job, 9, 1.0, 5, t + 1.0)
            job += 1
    assert order == [0, 1, 2, 3, 4, 5, 6]


@examples(60)
@given(case=cases(), closing=closings)
def test_jobs_start_in_the_order_in_which_their_learners_became_ready(case: Case, closing: Closing) -> None:
    opened = [record["opened"] for record in case.play(closing).rounds if record["opened"] >= 0]
    assert opened == sorted(opened), "the master numbers jobs as their learners become ready"


def test_what_is_waited_for_is_counted_by_worker() -> None:
    scheduler = RoundScheduler(MSGC(3, 1, 2, 1), Mu(1.0))
    for learner in range(2):
        scheduler.opened(learner, learner, 1.0, 1, 0.0)
    assert scheduler.missing() == {}
    sent = scheduler.step(0.0).send
    assert scheduler.missing() == {0: 1, 1: 1, 2: 1}
    scheduler.delivered(deliveries(sent[:2], 1.0), 1.0)
    assert scheduler.missing() == {2: 1}
    assert scheduler.step(1.0) == Decision(wake=2.0)
    scheduler.delivered(deliveries(sent[:2], 1.5), 1.5)  # once more: nothing new
    assert scheduler.step(1.5) == Decision(wake=2.0)


def test_word_of_a_stale_invocation_is_no_row() -> None:
    scheduler = RoundScheduler(GC(2, 0))
    scheduler.opened(0, 0, 1.0, 0, 0.0)
    sent = scheduler.step(0.0).send
    scheduler.delivered([delivery._replace(stale=True) for delivery in deliveries(sent, 1.0)], 1.0)
    assert scheduler.step(1.0) == Decision()
    assert scheduler.missing() == {0: 1, 1: 1}


def test_a_switch_counts_for_jobs_opened_from_then_on() -> None:
    scheduler = RoundScheduler(SRSGC(4, 1, 2, 1))
    for learner in range(2):
        scheduler.opened(learner, learner, 1.0, 3, 0.0)
    first = scheduler.step(0.0)
    scheduler.switch(SRSGC(6, 1, 2, 1))
    scheduler.delivered(deliveries(first.send[:1], 1.0), 1.0)  # workers 2 and 3 of job 0 have sent nothing
    second = scheduler.step(1.0)
    assert [first.start[0].n, second.start[1].n] == [4, 6]
    assert [task.worker for task in second.send if task.job == 1] == list(range(6))
    assert [task.worker for task in second.send if task.job == 0], "the open job is repeated by its own four workers"
    assert {task.worker for task in second.send if task.job == 0} <= set(range(4))
    scheduler.delivered(deliveries(second.send, 2.0), 2.0)
    assert sorted(scheduler.step(2.0).decode) == [0, 1]


def test_a_late_row_says_nothing_of_how_fast_a_round_is() -> None:
    scheduler = RoundScheduler(SRSGC(4, 1, 2, 2, "cyclic"), Mu(1.0))
    for learner in range(2):
        scheduler.opened(learner, learner, 1.0, 1, 0.0)
    scheduler.delivered(deliveries(scheduler.step(0.0).send[:2], 1.0), 1.0)
    second = scheduler.step(2.0).send
    (repeated,) = (task for task in second if task.job == 0)
    scheduler.delivered([delivery._replace(startup=2.1) for delivery in deliveries([repeated], 2.1)], 2.1)
    assert scheduler.step(2.1) == Decision(), "the row is of the invocation of round 0"
    own = next(task for task in second if task.job == 1)
    scheduler.delivered([delivery._replace(startup=1.0) for delivery in deliveries([own], 3.0)], 3.0)
    assert scheduler.step(3.0) == Decision(wake=4.0)


def test_a_round_that_would_leave_a_job_overdue_does_not_end() -> None:
    scheduler = RoundScheduler(SRSGC(3, 1, 2, 1, "cyclic"))
    for learner in range(2):
        scheduler.opened(learner, learner, 1.0, 3, 0.0)
    scheduler.delivered(deliveries(scheduler.step(0.0).send[:1], 1.0), 1.0)
    second = scheduler.step(1.0).send
    due = [task for task in second if task.job == 0]
    scheduler.delivered(deliveries([task for task in second if task.job == 1], 2.0), 2.0)
    assert list(scheduler.step(2.0).decode) == [1]
    assert scheduler.step(2.0) == Decision()
    scheduler.delivered(deliveries(due, 3.0), 3.0)
    assert list(scheduler.step(3.0).decode) == [0]


@pytest.mark.parametrize(
    ("spec", "models", "message"),
    [
        ("srsgc:2,3,2", 2, r"srsgc:2,3,2 has delay T=2 and needs at least T \+ 1 learners: got 2"),
        ("msgc:1,2,1", 1, r"msgc:1,2,1 has delay T=1 and needs at least T \+ 1 learners: got 1"),
        (
            "msgc:2,3,3,code=cyclic",
            3,
            r"msgc:2,3,3,code=cyclic has delay T=3 and needs at least T \+ 1 learners: got 3",
        ),
    ],
)
def test_a_delay_that_interleaving_does_not_allow_is_refused(spec: str, models: int, message: str) -> None:
    trace = Trace(np.ones((1, 4)), 0.0, 0.0)
    with pytest.raises(ValueError, match=message):
        simulate(Setting(trace, models, 8), spec)
    assert simulate(Setting(trace, models + 1, 8), spec)["jobs"] == 8


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("eager", {}, "closing must be safe or mu: got 'eager'"),
        ("safe", {"cutoff": -1.0}, "cutoff >= 0 seconds: got -1.0"),
        ("safe", {"cutoff": float("nan")}, "cutoff >= 0 seconds: got nan"),
        ("mu", {"mu": -0.5}, "mu >= 0: got -0.5"),
    ],
)
def test_a_closing_rule_that_makes_no_sense_is_refused(name: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        closing_rule(name, **options)
    assert (closing_rule("safe", cutoff=2.0), closing_rule("mu", mu=0.5)) == (Safe(2.0), Mu(0.5))
