"""Schemes: loads, shares and assignments."""

from collections.abc import Callable
from fractions import Fraction as F

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distseq.coding.codes.registry import CODES
from distseq.coding.plan import MiniTask
from distseq.coding.schemes.backup_tasks import Backup
from distseq.coding.schemes.gradient_coding import GC, of_load
from distseq.coding.schemes.m_sgc import MSGC
from distseq.coding.schemes.redispatch import Redispatch
from distseq.coding.schemes.registry import SCHEMES, parse
from distseq.coding.schemes.scheme import Scheme
from distseq.coding.schemes.sr_sgc import SRSGC
from tests.coding.load_bounds import arbitrary_bound, bursty_bound
from tests.coding.patterns import random_pattern
from tests.coding.play import Play, random_play
from tests.coding.strategies import BUILDERS, PROPERTY, generators, schemes

kinds_of_code = st.sampled_from(sorted(CODES))
kinds = pytest.mark.parametrize("code", CODES)
GRID = [(n, B, W, lam) for n in range(2, 7) for W in range(2, 5) for B in range(1, W) for lam in range(n + 1)]


def sizes(scheme: Scheme, worker: int) -> list[F]:
    """Fraction of a batch in this worker's row of each group."""
    return [len(code.row(worker)) * share / code.parts for share, code in zip(scheme.shares, scheme.codes, strict=True)]


def steady_rounds(scheme: Scheme, rate: float, draws: np.random.Generator) -> list[list[MiniTask]]:
    """Mini-tasks of the rounds of a conforming play in which as many jobs are running as ever are."""
    play, tasks = Play(scheme, 3 + 2 * scheme.delay), []
    for stragglers in random_pattern(scheme.models[0], scheme.n, play.jobs, rate, draws):
        tasks.append(play.begin())
        for task in tasks[-1]:
            if not stragglers[task.worker]:
                play.receive(task)
        play.end()
    return tasks[scheme.delay :]


def test_the_strategy_draws_every_scheme() -> None:
    assert set(BUILDERS) == set(SCHEMES)


@pytest.mark.parametrize(
    ("parameters", "load", "bound"),
    [
        ((4, 1, 2, 1), F(1, 3), F(2, 7)),
        ((4, 1, 2, 2), F(3, 8), F(1, 3)),
        ((4, 1, 2, 3), F(2, 5), F(2, 5)),
        ((4, 1, 2, 4), F(1, 2), F(1, 2)),
        ((3, 1, 3, 1), F(2, 5), F(3, 8)),
        ((3, 2, 3, 1), F(4, 9), F(2, 5)),
        ((3, 2, 4, 2), F(5, 11), F(5, 11)),
    ],
)
def test_the_load_of_m_sgc_and_the_bound_are_the_published_fractions(
    parameters: tuple[int, ...], load: F, bound: F
) -> None:
    assert MSGC(*parameters, code="cyclic").load == load
    assert bursty_bound(*parameters) == bound


def test_loads_at_256_workers_are_the_published_ones() -> None:
    assert parse("gc:15,code=cyclic", 256).load == F(1, 16)
    assert SRSGC(256, 2, 3, 23).s == 12
    assert parse("srsgc:2,3,23,code=cyclic", 256).load == F(13, 256)
    assert parse("msgc:1,2,27,code=cyclic", 256).load == F(56, 7424)
    assert bursty_bound(256, 1, 2, 27) == F(2, 485)


@kinds
@pytest.mark.parametrize(("n", "B", "W", "lam"), GRID)
def test_the_load_of_m_sgc_is_at_least_the_bounds(code: str, n: int, B: int, W: int, lam: int) -> None:
    load = MSGC(n, B, W, lam, code).load
    assert load >= bursty_bound(n, B, W, lam)
    assert load >= arbitrary_bound(n, B, W + B - 1, lam)


@pytest.mark.parametrize(("n", "B", "W", "lam"), GRID)
def test_cyclic_m_sgc_meets_the_bursty_bound_at_0_and_n_minus_1_and_n_only(n: int, B: int, W: int, lam: int) -> None:
    assert (MSGC(n, B, W, lam, "cyclic").load == bursty_bound(n, B, W, lam)) == (lam in (0, n - 1, n))


@kinds
@pytest.mark.parametrize("n", range(2, 9))
def test_the_load_of_sr_sgc_and_gc_is_at_least_the_bound(code: str, n: int) -> None:
    for B, W in ((1, 2), (1, 3), (2, 3), (2, 5)):
        for lam in range(1, n + 1):
            assert SRSGC(n, B, W, lam, code).load >= bursty_bound(n, B, W, lam)
    for s in range(n):
        assert GC(n, s, code=code).load >= bursty_bound(n, 1, 1, s)


@PROPERTY
@given(scheme=schemes())
def test_shares_of_groups_add_up_to_one(scheme: Scheme) -> None:
    assert sum(scheme.shares) == 1
    assert len(scheme.shares) == len(scheme.codes) == len(scheme.tolerance)
    assert tuple(code.s for code in scheme.codes) == scheme.tolerance
    assert all(code.n == scheme.n for code in scheme.codes)


@PROPERTY
@given(scheme=schemes())
def test_a_worker_holds_as_much_of_a_batch_as_it_processes_per_round(scheme: Scheme) -> None:
    only_retries = isinstance(scheme, MSGC) and not scheme.coded  # holds 1/n, and may process each of its parts again
    for worker in range(scheme.n):
        held = F(1, scheme.n) if only_retries else F(1) if isinstance(scheme, Redispatch | Backup) else scheme.load
        assert sum(sizes(scheme, worker)) == held


@kinds
@pytest.mark.parametrize(
    ("n", "B", "W", "lam"), [(7, 1, 2, 1), (7, 2, 3, 2), (8, 2, 4, 2), (5, 1, 3, 1), (4, 1, 2, 4), (7, 3, 4, 0)]
)
def test_mini_tasks_of_m_sgc_are_of_equal_size_also_with_uneven_replica_sets(
    code: str, n: int, B: int, W: int, lam: int
) -> None:
    scheme = MSGC(n, B, W, lam, code)
    assert {size for i in range(n) for size in sizes(scheme, i)} == {scheme.share}
    assert scheme.load == scheme.slots * scheme.share


@kinds
@pytest.mark.parametrize(
    ("n", "B", "W", "lam"), [(4, 1, 2, 1), (7, 1, 2, 3), (5, 2, 3, 2), (6, 1, 3, 5), (6, 3, 4, 2), (5, 1, 2, 0)]
)
@PROPERTY
@given(rate=st.sampled_from((0.0, 0.3, 1.0)), draws=generators())
def test_a_worker_of_m_sgc_does_one_mini_task_for_each_running_job(
    code: str, n: int, B: int, W: int, lam: int, rate: float, draws: np.random.Generator
) -> None:
    scheme = MSGC(n, B, W, lam, code)
    for tasks in steady_rounds(scheme, rate, draws):
        for worker in range(n):
            assert len([task for task in tasks if task.worker == worker]) == W - 1 + B
            assert len({task.job for task in tasks if task.worker == worker}) == W - 1 + B


@PROPERTY
@given(rate=st.sampled_from((0.0, 0.3, 1.0)), draws=generators())
def test_m_sgc_without_coded_groups_redoes_only_what_is_missing(rate: float, draws: np.random.Generator) -> None:
    scheme = MSGC(4, 1, 2, 4)
    for tasks in steady_rounds(scheme, rate, draws):
        for worker in range(4):
            jobs = [task.job for task in tasks if task.worker == worker]
            assert 1 <= len(jobs) <= 2
            assert len(set(jobs)) == len(jobs)


@kinds
@pytest.mark.parametrize(("n", "B", "W", "lam"), [(4, 1, 2, 2), (7, 1, 2, 4), (6, 2, 3, 4), (8, 1, 3, 8)])
@PROPERTY
@given(draws=generators())
def test_sr_sgc_repeats_what_is_needed_and_no_more(
    code: str, n: int, B: int, W: int, lam: int, draws: np.random.Generator
) -> None:
    scheme = SRSGC(n, B, W, lam, code)
    for play in random_play(scheme, 5, draws):
        t = play.ledger.round
        tasks = list(scheme.assign(t, play.unfinished()).tasks())
        repeated = [task for task in tasks if task.job != t]
        assert {task.job for task in repeated} <= {t - B}
        assert len(tasks) == (n if t in play.rows and t in play.unfinished() else len(repeated))
        if t - B in play.unfinished():
            has = play.rows[t - B][0]
            assert not any(has[task.worker] for task in repeated)
            if code == "cyclic":
                assert len(repeated) == n - scheme.s - np.count_nonzero(has)
                missing = np.flatnonzero(~has)[: len(repeated)]
                assert [task.worker for task in repeated] == list(missing)
            else:
                replica_set = scheme.codes[0].replica_set
                silent = set(range(scheme.codes[0].parts)) - set(replica_set[has])
                assert sorted(replica_set[task.worker] for task in repeated) == sorted(silent)


@kinds
@pytest.mark.parametrize(("n", "s", "q"), [(6, 2, 3), (6, 1, 2), (7, 3, 4), (5, 4, 5)])
def test_streamed_workers_with_the_same_data_start_at_different_groups(code: str, n: int, s: int, q: int) -> None:
    scheme = GC(n, s, q, code)
    first = scheme.assign(0, {0: np.zeros((q, n), dtype=bool)}).groups[0]
    tasks = list(scheme.assign(0, {0: np.zeros((q, n), dtype=bool)}).tasks())
    assert sorted(tasks) == [(0, g, i) for g in range(q) for i in range(n)]
    sets = scheme.codes[0].replica_set if code == "fr" else np.arange(n) // (s + 1)
    for k in range(sets.max() + 1):
        starts = first[sets == k]
        assert len(set(starts)) == min(q, len(starts))


@PROPERTY
@given(scheme=schemes())
def test_a_scheme_has_nothing_to_do_when_no_job_is_open(scheme: Scheme) -> None:
    assert list(scheme.assign(5, {}).tasks()) == []
    assert scheme.shortage(5, {}) is None


@pytest.mark.parametrize(
    ("bound", "message"),
    [
        (lambda: bursty_bound(4, 3, 2, 1), "0 < B <= W and 0 <= lam <= n: got B=3, W=2, lam=1, n=4"),
        (lambda: bursty_bound(4, 1, 2, 5), "got B=1, W=2, lam=5, n=4"),
        (lambda: bursty_bound(4, 1, 1, 4), "no scheme tolerates lam = n = 4 stragglers in every round"),
        (lambda: arbitrary_bound(4, 2, 2, 1), "0 <= N < W and 0 <= lam <= n: got N=2, W=2, lam=1, n=4"),
    ],
)
def test_a_bound_that_does_not_exist_is_refused(bound: Callable[[], F], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bound()


@PROPERTY
@given(scheme=schemes())
def test_the_scheme_within_a_delay_keeps_to_it_with_the_same_workers(scheme: Scheme) -> None:
    for delay in range(8):
        smaller = scheme.within(delay)
        assert smaller.delay <= delay
        assert smaller.n == scheme.n
        assert getattr(smaller, "code", "fr") == getattr(scheme, "code", "fr")
        if delay >= scheme.delay:
            assert smaller == scheme


@pytest.mark.parametrize(
    "code",
    [
        "cyclic",
        "fr",
    ],
)
def test_gc_of_a_load_has_the_largest_tolerance_within_it(code: str) -> None:
    for n in range(1, 10):
        for load in (F(a, 2 * n) for a in range(2, 2 * n + 1)):
            best = max(s for s in range(n) if GC(n, s, code=code).load <= load)
            assert of_load(n, load, code).s == best


@PROPERTY
@given(st.data(), st.sampled_from(sorted(BUILDERS)), kinds_of_code, st.integers(4, 9), st.integers(1, 12))
def test_a_scheme_moves_to_any_number_of_workers_and_back(
    data: st.DataObject, kind: str, code: str, n: int, other: int
) -> None:
    scheme = BUILDERS[kind](data.draw, n, code)
    moved = scheme.on(other)
    assert moved.n == other
    assert parse(moved.spec, other) == moved
    assert moved.delay <= scheme.delay
    if other >= n:
        assert moved.spec == scheme.spec
        assert moved.on(n) == scheme
