"""Layouts: every sample lies in one part, and decoded rows weigh every sample by one."""

from fractions import Fraction
from itertools import pairwise
from math import floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distseq.coding.codes.fractional_repetition import FractionalRepetition
from distseq.coding.layout import Layout, layout
from distseq.coding.plan import MiniTask
from distseq.coding.schemes.gradient_coding import GC
from distseq.coding.schemes.m_sgc import MSGC
from distseq.coding.schemes.scheme import Scheme
from tests.coding.play import Play, random_play
from tests.coding.strategies import PROPERTY, exact_schemes, generators, schemes

samples_of_a_batch = st.integers(0, 200)


def edges(scheme: Scheme) -> list[Fraction]:
    """Cumulative shares of the parts, group after group."""
    edge, result = Fraction(0), [Fraction(0)]
    for share, code in zip(scheme.shares, scheme.codes, strict=True):
        for _ in range(code.parts):
            edge += share / code.parts
            result.append(edge)
    return result


@PROPERTY
@given(scheme=schemes(), samples=samples_of_a_batch)
def test_cuts_are_rounded_cumulative_shares(scheme: Scheme, samples: int) -> None:
    cuts = Layout(scheme).cuts(samples)
    assert list(cuts) == [floor(edge * samples + Fraction(1, 2)) for edge in edges(scheme)]
    assert (cuts[0], cuts[-1]) == (0, samples)
    assert (np.diff(cuts) >= 0).all()


@PROPERTY
@given(scheme=schemes(), samples=samples_of_a_batch)
def test_every_sample_is_in_one_part_of_one_group(scheme: Scheme, samples: int) -> None:
    ids, cut = np.arange(samples) * 3 + 1, Layout(scheme)
    groups = []
    for g, code in enumerate(scheme.codes):
        rows = [cut.row(MiniTask(0, g, i), ids)[0] for i in range(scheme.n)]
        copies = [len([1 for i in range(scheme.n) for part, _ in code.row(i) if part == k]) for k in range(code.parts)]
        held, times = np.unique(np.concatenate(rows), return_counts=True)
        assert set(times) <= set(copies)
        assert all(len(set(row)) == len(row) for row in rows)
        groups.append(held)
    assert np.array_equal(np.concatenate(groups), ids)


@PROPERTY
@given(scheme=schemes(), samples=samples_of_a_batch)
def test_a_group_has_its_share_of_the_samples_up_to_rounding(scheme: Scheme, samples: int) -> None:
    cuts, first = Layout(scheme).cuts(samples), np.cumsum([0, *(code.parts for code in scheme.codes)])
    for share, (begin, end) in zip(scheme.shares, pairwise(first), strict=True):
        assert abs(int(cuts[end] - cuts[begin]) - share * samples) <= 1


@PROPERTY
@given(scheme=schemes(), samples=samples_of_a_batch)
def test_members_of_a_replica_set_have_the_same_rows(scheme: Scheme, samples: int) -> None:
    ids, cut = np.random.default_rng(samples).permutation(samples), Layout(scheme)
    for g, code in enumerate(scheme.codes):
        if isinstance(code, FractionalRepetition):
            for i in range(scheme.n):
                first = int(code.starts[code.replica_set[i]])
                mine, theirs = cut.row(MiniTask(0, g, i), ids), cut.row(MiniTask(0, g, first), ids)
                assert np.array_equal(mine[0], theirs[0])
                assert np.array_equal(mine[1], theirs[1])
                assert (mine[1] == 1).all()


def complete_jobs(scheme: Scheme, draws: np.random.Generator) -> list[dict[MiniTask, float]]:
    """Decode weights of jobs as they become complete in a random play."""
    found: dict[int, dict[MiniTask, float]] = {}
    for play in random_play(scheme, 3, draws):
        found |= {job: play.ledger.weights(job) for job in play.ledger.open if play.ledger.complete(job)}
    return list(found.values())


@PROPERTY
@given(scheme=exact_schemes(), samples=samples_of_a_batch, draws=generators())
def test_the_rows_of_a_complete_job_weigh_every_sample_by_one(
    scheme: Scheme, samples: int, draws: np.random.Generator
) -> None:
    for weights in complete_jobs(scheme, draws):
        assert Layout(scheme).combined(weights, samples) == pytest.approx(np.ones(samples), abs=1e-8)


@PROPERTY
@given(scheme=exact_schemes(), samples=samples_of_a_batch, draws=generators())
def test_the_weighted_sum_of_rows_is_the_sum_over_the_batch(
    scheme: Scheme, samples: int, draws: np.random.Generator
) -> None:
    gradients, ids, cut = draws.integers(-99, 99, 1000).astype(float), draws.permutation(1000)[:samples], Layout(scheme)
    for weights in complete_jobs(scheme, draws):
        rows = {task: cut.row(task, ids) for task in weights}
        total = sum(a * (rows[task][1] @ gradients[rows[task][0]]) for task, a in weights.items())
        if scheme.code == "fr":
            assert total == gradients[ids].sum()
        else:
            assert total == pytest.approx(gradients[ids].sum(), abs=1e-6)


@PROPERTY
@given(scheme=schemes(), samples=samples_of_a_batch, draws=generators())
def test_an_incomplete_sum_does_not_weigh_every_sample_by_one(
    scheme: Scheme, samples: int, draws: np.random.Generator
) -> None:
    play = Play(scheme, 1)
    cut, whole = Layout(scheme), samples + sum(code.parts for code in scheme.codes) * 40
    for _ in play.rounds:
        for task in play.begin():
            play.receive(task)
    weights = play.ledger.weights(0)
    dropped = list(weights)[draws.integers(len(weights))]
    assert not np.allclose(
        cut.combined({task: a for task, a in weights.items() if task != dropped}, whole), 1, atol=1e-6
    )


@PROPERTY
@given(scheme=schemes(), samples=st.integers(0, 40))
def test_empty_parts_are_counted(scheme: Scheme, samples: int) -> None:
    rounded = [floor(edge * samples + Fraction(1, 2)) for edge in edges(scheme)]
    assert Layout(scheme).empty_parts(samples) == sum(begin == end for begin, end in pairwise(rounded))


def test_a_batch_smaller_than_the_number_of_parts_leaves_empty_ones() -> None:
    cut = Layout(GC(4, 0))
    assert list(cut.cuts(3)) == [0, 1, 2, 2, 3]
    assert cut.empty_parts(3) == 1
    ids, weights = cut.row(MiniTask(0, 0, 2), np.array([5, 6, 7]))
    assert ids.shape == weights.shape == (0,)


def test_twelve_samples_of_m_sgc_are_cut_as_in_the_paper() -> None:
    cut = Layout(MSGC(4, 1, 2, 1, code="cyclic"))
    assert list(cut.cuts(12)) == [0, 2, 4, 6, 8, 9, 10, 11, 12]
    assert list(cut.row(MiniTask(0, 0, 2), np.arange(12))[0]) == [4, 5]
    assert sorted(cut.row(MiniTask(0, 1, 3), np.arange(12))[0]) == [8, 11]


@PROPERTY
@given(scheme=schemes())
def test_the_load_of_a_mini_task_is_what_its_row_covers_of_a_batch_that_divides_evenly(scheme: Scheme) -> None:
    cut, samples = Layout(scheme), int(np.lcm.reduce([edge.denominator for edge in edges(scheme)]))
    for g in range(len(scheme.codes)):
        for i in range(scheme.n):
            ids, _ = cut.row(MiniTask(0, g, i), np.arange(samples))
            assert cut.loads[g][i] == pytest.approx(len(ids) / samples)


def test_a_layout_is_built_once_for_a_specification() -> None:
    assert layout("msgc:1,2,2", 6) is layout("msgc:1,2,2", 6)
    assert layout("msgc:1,2,2", 6).scheme == MSGC(6, 1, 2, 2)
    assert layout("msgc:1,2,2", 7).scheme.n == 7
