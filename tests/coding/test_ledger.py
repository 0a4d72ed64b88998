"""The ledger: each job decodes by its deadline, whatever arrives when, as long as rounds end safely."""

import heapq
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distseq.coding.codes.registry import CODES
from distseq.coding.ledger import Ledger
from distseq.coding.plan import MiniTask
from distseq.coding.schemes.gradient_coding import GC
from distseq.coding.schemes.m_sgc import MSGC
from distseq.coding.schemes.redispatch import Redispatch
from distseq.coding.schemes.scheme import Scheme, missing
from distseq.coding.schemes.sr_sgc import SRSGC
from tests.coding.conforming import CASES, Case
from tests.coding.patterns import patterns, random_pattern
from tests.coding.play import Play, decoded_on_time, random_play, with_rows
from tests.coding.roll_forward import safe_by_roll_forward
from tests.coding.strategies import PROPERTY, THOROUGH, generators, schemes

kinds = pytest.mark.parametrize("code", CODES)
FEW = [case for case in CASES if max(case.counts) <= 1200]
MANY = [case for case in CASES if max(case.counts) > 1200]


def check_conforming(scheme: Scheme, pattern: np.ndarray) -> None:
    """No round of the pattern has to wait, and each job decodes by its deadline from the rows of those who do not straggle."""
    play = Play(scheme, len(pattern) - scheme.delay)
    for stragglers in pattern:
        for task in play.begin():
            if not stragglers[task.worker]:
                play.receive(task)
        assert play.ledger.due_complete(), pattern
        assert play.ledger.safe(), pattern
        play.end()
    assert not play.ledger.open


@kinds
@pytest.mark.parametrize("case", FEW, ids=str)
def test_every_conforming_pattern_decodes_each_job_on_time_without_waiting(case: Case, code: str) -> None:
    for model in case.scheme.models:
        for pattern in patterns(model, case.scheme.n, case.rounds):
            check_conforming(replace(case.scheme, code=code), pattern)


@pytest.mark.long
@kinds
@pytest.mark.parametrize("case", MANY, ids=str)
def test_every_conforming_pattern_decodes_each_job_on_time_where_there_are_many(case: Case, code: str) -> None:
    for model in case.scheme.models:
        for pattern in patterns(model, case.scheme.n, case.rounds):
            check_conforming(replace(case.scheme, code=code), pattern)


@kinds
@pytest.mark.parametrize("case", MANY, ids=str)
def test_random_conforming_patterns_decode_each_job_on_time_without_waiting(case: Case, code: str) -> None:
    draws = np.random.default_rng(1)
    for model in case.scheme.models:
        for rate in np.repeat((0.3, 0.6, 1.0), 40):
            check_conforming(
                replace(case.scheme, code=code), random_pattern(model, case.scheme.n, case.rounds, rate, draws)
            )


@PROPERTY
@given(scheme=schemes(max_n=9), rate=st.sampled_from((0.3, 0.8)), draws=generators())
def test_random_patterns_of_each_model_of_any_scheme_need_no_waiting(
    scheme: Scheme, rate: float, draws: np.random.Generator
) -> None:
    for model in scheme.models:
        check_conforming(scheme, random_pattern(model, scheme.n, 6 + scheme.delay, rate, draws))


@THOROUGH
@given(scheme=schemes(), draws=generators())
def test_a_round_is_safe_exactly_when_complete_later_rounds_would_meet_every_deadline(
    scheme: Scheme, draws: np.random.Generator
) -> None:
    for play in random_play(scheme, 4, draws):
        assert play.ledger.safe() == safe_by_roll_forward(scheme, play.ledger.round, play.unfinished())


@THOROUGH
@given(scheme=schemes(), draws=generators())
def test_complete_jobs_are_those_whose_rows_decode(scheme: Scheme, draws: np.random.Generator) -> None:
    for play in random_play(scheme, 4, draws):
        due = play.ledger.round - scheme.delay
        assert play.ledger.open == tuple(play.rows)
        assert {job for job in play.ledger.open if not play.ledger.complete(job)} == set(play.unfinished())
        assert play.ledger.due_complete() == (due not in play.unfinished())


@THOROUGH
@given(scheme=schemes(), draws=generators())
def test_a_round_stays_unsafe_without_need_rows_of_the_workers_of_its_shortage(
    scheme: Scheme, draws: np.random.Generator
) -> None:
    for play in random_play(scheme, 4, draws):
        t, table = play.ledger.round, play.unfinished()
        shortage = scheme.shortage(t, table)
        if shortage is None:
            continue
        assert shortage.need >= 1
        named = [task for task in play.pending if shortage.workers[task.worker]]
        others = [task for task in play.pending if not shortage.workers[task.worker]]
        few = [named[k] for k in draws.permutation(len(named))[: shortage.need - 1]]
        assert not safe_by_roll_forward(scheme, t, with_rows(table, others + few))


@PROPERTY
@given(scheme=schemes(), draws=generators())
def test_more_rows_never_make_a_round_unsafe_or_a_job_incomplete(scheme: Scheme, draws: np.random.Generator) -> None:
    for play in random_play(scheme, 4, draws):
        t, table = play.ledger.round, play.unfinished()
        if scheme.shortage(t, table) is None:
            more = with_rows(table, [task for task in play.pending if draws.random() < 0.5])
            assert (
                scheme.shortage(t, {job: has for job, has in more.items() if missing(scheme.codes, has) is not None})
                is None
            )
            assert safe_by_roll_forward(scheme, t, more)


@PROPERTY
@given(scheme=schemes(), draws=generators())
def test_a_round_that_was_safe_stays_safe_as_rows_arrive(scheme: Scheme, draws: np.random.Generator) -> None:
    was = (-1, False, frozenset())
    for play in random_play(scheme, 4, draws):
        now = (
            play.ledger.round,
            play.ledger.safe(),
            frozenset(job for job in play.ledger.open if play.ledger.complete(job)),
        )
        if now[0] == was[0]:
            assert now[1] >= was[1]
            assert now[2] >= was[2]
        was = now


@PROPERTY
@given(scheme=schemes(), draws=generators())
def test_waiting_for_everybody_keeps_a_safe_ledger_safe(scheme: Scheme, draws: np.random.Generator) -> None:
    play = Play(scheme, 5)
    for _ in play.rounds:
        tasks, wait_for_all = play.begin(), draws.random() < 0.5
        for k in draws.permutation(len(tasks)):
            if wait_for_all or not play.ledger.safe():
                play.receive(tasks[k])
        assert play.ledger.safe()
        play.end()
        play.pending = []


@THOROUGH
@given(scheme=schemes(), lost=st.booleans(), at_least=st.integers(1, 9), draws=generators())
def test_any_delays_complete_each_job_by_its_deadline_when_rounds_close_safely(
    scheme: Scheme, lost: bool, at_least: int, draws: np.random.Generator
) -> None:
    play, now = Play(scheme, 6), 0.0
    delays = draws.pareto(0.7, (len(play.rounds), scheme.n))
    arrivals: list[tuple[float, MiniTask]] = []
    for t in play.rounds:
        for slot, task in enumerate(play.begin()):
            heapq.heappush(arrivals, (now + delays[t, task.worker] + 0.01 * slot, task))
        taken = 0
        while arrivals and not (taken >= at_least and play.ledger.safe()):
            now, task = heapq.heappop(arrivals)
            taken += play.ledger.receive(task)
        assert play.ledger.safe()
        assert play.ledger.due_complete()
        play.end()
        arrivals = [] if lost else arrivals
    assert not play.ledger.open


# Re-dispatch is left out: where one part more is in hand, the others that are missing go to other workers, who may straggle.
@THOROUGH
@given(
    scheme=schemes().filter(lambda one: not isinstance(one, Redispatch)),
    rate=st.sampled_from((0.1, 0.3, 0.5)),
    draws=generators(),
)
def test_a_straggler_less_never_makes_a_job_late(scheme: Scheme, rate: float, draws: np.random.Generator) -> None:
    pattern = draws.random((6 + scheme.delay, scheme.n)) < rate
    fewer = pattern & (draws.random(pattern.shape) < 0.8)
    assert decoded_on_time(scheme, fewer) >= decoded_on_time(scheme, pattern)


@kinds
def test_gradient_coding_with_a_larger_s_tolerates_all_that_a_smaller_one_promises(code: str) -> None:
    for n in range(2, 7):
        for s in range(n):
            for pattern in patterns(GC(n, s).models[0], n, 1):
                assert all(decoded_on_time(GC(n, larger, code=code), pattern) == {0} for larger in range(s, n))


def test_a_late_row_still_counts() -> None:
    ledger = Ledger(SRSGC(4, 1, 2, 2, code="cyclic"))
    for task in ledger.begin(7):
        if task.worker in (0, 3):
            assert ledger.receive(task)
    ledger.begin(8)
    assert not ledger.complete(7)
    assert ledger.receive(MiniTask(7, 0, 2))
    assert ledger.complete(7)
    assert set(ledger.weights(7)) == {(7, 0, 0), (7, 0, 2), (7, 0, 3)}


def test_a_row_in_hand_counts_once() -> None:
    ledger = Ledger(GC(4, 1))
    first, *_ = ledger.begin(0)
    assert ledger.receive(first)
    assert not ledger.receive(first)
    assert not ledger.complete(0)


def test_rows_of_jobs_that_are_not_open_are_not_taken() -> None:
    ledger = Ledger(GC(4, 1))
    tasks = ledger.begin(0)
    assert [ledger.receive(task) for task in tasks[1:3]] == [True, True]
    ledger.retire(0)
    assert not ledger.receive(tasks[0])
    assert not ledger.receive(MiniTask(9, 0, 0))
    assert ledger.open == ()


def test_an_overdue_job_is_a_broken_promise() -> None:
    ledger = Ledger(MSGC(4, 1, 2, 1))
    ledger.begin(5)
    ledger.begin(6)
    with pytest.raises(RuntimeError, match=r"round 1 of msgc:1,2,1 ended with overdue jobs \[5\]"):
        ledger.begin(7)
    assert ledger.round == 1


def test_an_incomplete_job_has_no_weights() -> None:
    ledger = Ledger(GC(4, 1))
    ledger.receive(ledger.begin(0)[0])
    with pytest.raises(ValueError, match="a row from each of 2 replica sets: got 1"):
        ledger.weights(0)


def test_jobs_keep_the_numbers_of_their_caller() -> None:
    ledger = Ledger(SRSGC(4, 1, 2, 2))
    assert {task.job for task in ledger.begin(30)} == {30}
    assert {task.job for task in ledger.begin(12)} == {30, 12}
    assert ledger.open == (30, 12)


@PROPERTY
@given(scheme=schemes(), draws=generators())
def test_a_round_without_a_job_only_finishes_the_open_ones(scheme: Scheme, draws: np.random.Generator) -> None:
    play = Play(scheme, 2)
    for t in play.rounds:
        tasks = play.begin()
        assert {task.job for task in tasks} <= set(play.rows)
        assert t < 2 or not any(task.job == t for task in tasks)
        for task in tasks:
            if not play.ledger.safe():
                play.receive(task)
        play.end()


@pytest.mark.parametrize("scheme", [GC(8, 1, q=300), GC(8, 2, q=300, code="cyclic")], ids=lambda scheme: scheme.spec)
def test_what_a_streamed_job_lacks_is_asked_a_few_times_and_not_after_every_row(
    scheme: GC, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, code = [0], type(scheme.codes[0])
    answer = code.shortage

    def counted(self: object, has: np.ndarray) -> object:
        asked[0] += 1
        return answer(self, has)

    monkeypatch.setattr(code, "shortage", counted)
    ledger = Ledger(scheme)
    # Each worker's rows come in its order, all workers side by side.
    tasks = ledger.begin(0)
    inorder = [tasks[worker * scheme.q + k] for k in range(scheme.q) for worker in range(scheme.n)]
    needed = next(count for count, task in enumerate(inorder, 1) if ledger.receive(task) and ledger.complete(0))
    has = with_rows({0: np.zeros((scheme.q, scheme.n), dtype=bool)}, inorder[:needed])[0]
    assert missing(scheme.codes, has) is None
    assert missing(scheme.codes, with_rows({0: has & False}, inorder[: needed - 1])[0]) is not None
    assert ledger.safe()
    # Per group, for completeness and for the closing of the round.
    assert asked[0] / scheme.q < 2 * 25
