"""AP, AUC and ranks are what their definitions say, ties included."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distseq.models.links.metrics import mean_over_batches, pooled
from distseq.models.links.ranking import hits, mrr, ranks

# Few values, so that many are equal; exact in float32, so that a cast changes no order.
SCORES = st.integers(-3, 3).map(lambda value: value / 4)


def some(least: int = 1, most: int = 12) -> st.SearchStrategy[list[float]]:
    return st.lists(SCORES, min_size=least, max_size=most)


def average_precision(positive: list[float], negative: list[float]) -> float:
    """The sum over thresholds, from the highest score to the lowest, of the growth of recall times the precision."""
    total = before = 0.0
    for threshold in sorted({*positive, *negative}, reverse=True):
        found = sum(score >= threshold for score in positive)
        wrong = sum(score >= threshold for score in negative)
        recall = found / len(positive)
        total += (recall - before) * found / (found + wrong)
        before = recall
    return total


def area(positive: list[float], negative: list[float]) -> float:
    """The share of pairs in which the positive has the higher score; equal scores count by half."""
    pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    return sum(pairs) / len(pairs)


@given(some(), some())
def test_ap_and_auc_are_those_of_their_definitions(positive: list[float], negative: list[float]) -> None:
    found = pooled(np.array(positive), np.array(negative))
    assert found.ap == pytest.approx(average_precision(positive, negative), abs=1e-12)
    assert found.auc == pytest.approx(area(positive, negative), abs=1e-12)


def test_figures_worked_by_hand() -> None:
    """scikit-learn's documentation: labels 0, 0, 1, 1 with scores .1, .4, .35, .8 have AP .83 and AUC .75."""
    found = pooled(np.array([0.35, 0.8]), np.array([0.1, 0.4]))
    assert found == (pytest.approx(0.5 + 0.5 * 2 / 3), 0.75)
    assert pooled(np.ones(3), np.ones((3, 1))) == (0.5, 0.5), "a constant score knows nothing"


@given(st.lists(st.tuples(SCORES, SCORES), min_size=1, max_size=12), st.integers(1, 13))
def test_the_mean_over_batches_compares_within_batches_only(pairs: list[tuple[float, float]], batch: int) -> None:
    positive, negative = (list(each) for each in zip(*pairs, strict=True))
    cuts = range(0, len(pairs), batch)
    expected = [average_precision(positive[k : k + batch], negative[k : k + batch]) for k in cuts]
    found = mean_over_batches(np.array(positive), np.array(negative), batch)
    assert found.ap == pytest.approx(np.mean(expected), abs=1e-12)


def test_scores_without_an_order_and_missing_sides_are_refused() -> None:
    with pytest.raises(ValueError, match="AP and AUC need positives and negatives: got 0 and 2"):
        pooled(np.zeros(0), np.zeros(2))
    with pytest.raises(ValueError, match="score 1 of 3 is NaN"):
        pooled(np.array([0.0, np.nan]), np.zeros(1))
    with pytest.raises(ValueError, match="each positive needs a row of negatives: got 2 and 3"):
        mean_over_batches(np.zeros(2), np.zeros(3))
    with pytest.raises(ValueError, match="ranks need scores that have an order"):
        ranks(np.array([np.nan]), np.zeros((1, 2)))
    with pytest.raises(ValueError, match=r"ranks need scores \(n,\) and \(n, K\): got \(2,\) and \(3, 1\)"):
        ranks(np.zeros(2), np.zeros((3, 1)))
    with pytest.raises(ValueError, match="a mean over ranks needs at least one event"):
        mrr(np.zeros(0))


def rank(positive: float, negative: list[float]) -> float:
    """Between the optimistic rank, behind the better ones, and the pessimistic one, behind the equal ones too."""
    optimistic = sum(score > positive for score in negative)
    pessimistic = sum(score >= positive for score in negative)
    return 0.5 * (optimistic + pessimistic) + 1


@given(st.integers(1, 9).flatmap(lambda K: st.lists(st.tuples(SCORES, some(K, K)), min_size=1, max_size=9)))
def test_ranks_are_those_of_a_loop_over_positives(rows: list[tuple[float, list[float]]]) -> None:
    found = ranks(np.array([one for one, _ in rows]), np.array([many for _, many in rows]))
    expected = [rank(*row) for row in rows]
    np.testing.assert_array_equal(found, expected)
    assert mrr(found) == pytest.approx(sum(1 / each for each in expected) / len(rows), abs=1e-12)
    assert hits(found, 2) == pytest.approx(sum(each <= 2 for each in expected) / len(rows), abs=1e-12)


def test_a_negative_that_is_not_there_does_not_count() -> None:
    positive, negative = np.array([0.5, 0.5]), np.array([[0.9, 0.7], [0.9, 0.7]])
    valid = np.array([[True, False], [False, False]])
    assert ranks(positive, negative, valid).tolist() == [2.0, 1.0]
