"""Prediction: what a host took lately says what it will take; silence is evidence, and rare long start-ups are not forgotten."""

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distseq.cluster.pool import Delivery
from distseq.cluster.trace import load_trace
from distseq.coding.plan import MiniTask
from distseq.scheduling.adaptive.rare_events import EVENT, RATE, SECONDS, RareEvents
from distseq.scheduling.latency import HALF_LIFE, Prediction
from tests.coding.strategies import PROPERTY, generators

positive = st.floats(1e-3, 1e3)


def answer(
    worker: int,
    at: float,
    startup: float,
    compute: float = 0.0,
    *,
    invocation: int = 0,
    host: str = "",
    stale: bool = False,
) -> Delivery:
    return Delivery(MiniTask(0, 0, worker), at, startup, compute, host or f"host-{worker}", 1, invocation, stale)


def play(prediction: Prediction, startups: Sequence[Sequence[float]], units: Sequence[float], load: float) -> float:
    """Rounds in which each worker is sent one load and answers; the time at the end."""
    now = 0.0
    for t, row in enumerate(startups):
        prediction.record_sent(range(len(row)), now)
        seconds = [startup + unit * load for startup, unit in zip(row, units, strict=True)]
        for worker in np.argsort(seconds):
            i = int(worker)
            prediction.record_delivery(answer(i, now + seconds[i], row[i], units[i] * load, invocation=t), load)
        now += max(seconds)
    return now


@PROPERTY
@given(
    workers=st.lists(st.tuples(positive, positive), min_size=1, max_size=6),
    rounds=st.integers(1, 4),
    load=positive,
    other=positive,
)
def test_steady_workers_are_predicted_as_they_are_for_any_load(
    workers: list[tuple[float, float]], rounds: int, load: float, other: float
) -> None:
    startups, units = zip(*workers, strict=True)
    prediction = Prediction()
    now = play(prediction, [startups] * rounds, units, load)
    expected = np.array(startups) + other * np.array(units)
    np.testing.assert_allclose(prediction.seconds(len(workers), other, now), expected, rtol=1e-9, atol=5e-7)


def test_after_a_half_life_the_past_has_half_the_weight() -> None:
    prediction = Prediction()
    now = play(prediction, [[1.0]] * 300 + [[4.0]] * int(HALF_LIFE), [0.0], 1.0)
    assert prediction.seconds(1, 1.0, now) == pytest.approx([2.0])  # the mean of logarithms


def test_word_of_stale_work_is_evidence_and_rows_of_one_message_count_once() -> None:
    prediction = Prediction()
    for worker, startup in enumerate((1.0, 9.0)):
        prediction.record_delivery(answer(worker, 9.0, startup, stale=worker == 1), 0.0)
    np.testing.assert_allclose(prediction.seconds(2, 0.0, 9.0), [1.0, 9.0])
    for _ in range(50):
        prediction.record_delivery(answer(0, 20.0, 4.0, invocation=1), 0.0)
    assert 1.0 < prediction.seconds(1, 0.0, 20.0)[0] < 2.5
    decay = 0.5 ** (1 / HALF_LIFE)
    assert prediction.seconds(1, 0.0, 20.0)[0] == pytest.approx(4.0 ** (1 / (1 + decay)), abs=1e-6), (
        "once, after the first"
    )


def test_who_has_not_answered_takes_at_least_as_long_as_it_has_been_silent() -> None:
    prediction = Prediction()
    now = play(prediction, [[1.0, 1.0]] * 5, [0.0, 0.0], 1.0)
    prediction.record_sent([0, 1], now)
    prediction.record_delivery(answer(0, now + 1, 1.0, invocation=5), 0.0)
    np.testing.assert_allclose(prediction.seconds(2, 0.0, now + 7), [1.0, 7.0])
    assert list(prediction.order(2, 0.0, now + 7)) == [0, 1]
    prediction.record_sent([0, 1], now + 7)
    assert prediction.seconds(2, 0.0, now + 7)[1] > 1.2, "that it was silent is remembered"
    late = answer(1, now + 7.5, 7.5, invocation=5)
    prediction.record_delivery(late, 0.0)
    assert prediction.seconds(2, 0.0, now + 60)[1] == pytest.approx(53.0), "the late answer is of the work before"
    prediction.record_delivery(answer(1, now + 61, 54.0, invocation=6), 0.0)
    assert prediction.seconds(2, 0.0, now + 200)[1] < 53.0


def test_an_unknown_worker_is_taken_for_a_usual_one() -> None:
    prediction = Prediction()
    assert list(prediction.seconds(2, 1.0, 0.0)) == [0.0, 0.0]
    assert list(prediction.order(3, 1.0, 0.0)) == [0, 1, 2]
    play(prediction, [[1.0, 4.0]], [1.0, 9.0], 1.0)
    assert prediction.seconds(3, 2.0, 14.0)[2] == pytest.approx(2.0 + 2 * 3.0)
    assert list(prediction.order(3, 2.0, 14.0)) == [0, 2, 1]


def test_prediction_is_per_host_and_a_host_that_is_gone_is_forgotten() -> None:
    prediction = Prediction()
    prediction.members({0: "a", 1: "a", 2: "b"})
    prediction.record_sent([0, 1, 2], 0.0)
    prediction.record_delivery(answer(0, 5.0, 5.0, host="a"), 0.0)
    prediction.record_delivery(answer(2, 1.0, 1.0, host="b"), 0.0)
    np.testing.assert_allclose(prediction.seconds(3, 0.0, 0.0), [5.0, 5.0, 1.0])
    prediction.members({0: "c", 1: "b", 2: "b"})
    np.testing.assert_allclose(
        prediction.seconds(3, 0.0, 99.0), [1.0, 1.0, 1.0], err_msg="worker 1 moved: nothing is owed"
    )
    prediction.members({0: "a", 1: "b", 2: "b"})
    np.testing.assert_allclose(prediction.seconds(3, 0.0, 99.0), [1.0, 1.0, 1.0])


@PROPERTY
@given(n=st.integers(1, 9), draws=generators())
def test_a_copy_is_independent_and_predicts_the_same(n: int, draws: np.random.Generator) -> None:
    prediction = Prediction()
    now = play(prediction, draws.pareto(1.0, (4, n)).tolist(), draws.random(n).tolist(), 0.5)
    prediction.record_sent(range(n), now)
    twin = copy.deepcopy(prediction)
    before = prediction.seconds(n, 0.3, now + 1)
    for worker in range(n):
        twin.record_delivery(answer(worker, now + 50, 50.0, invocation=9), 0.0)
    np.testing.assert_array_equal(prediction.seconds(n, 0.3, now + 1), before)
    for worker in range(n):
        prediction.record_delivery(answer(worker, now + 50, 50.0, invocation=9), 0.0)
    np.testing.assert_array_equal(prediction.seconds(n, 0.3, now + 60), twin.seconds(n, 0.3, now + 60))
    order = prediction.order(n, 0.3, now + 60)
    assert sorted(order) == list(range(n))
    assert (np.diff(prediction.seconds(n, 0.3, now + 60)[order]) >= 0).all()


def area(scores: np.ndarray, slow: np.ndarray) -> float:
    """Area under the ROC curve: how often a slow one has a higher score than another; ties count half."""
    values, ranks = np.unique(scores, return_inverse=True)
    counts = np.bincount(ranks, minlength=len(values))
    middle = np.cumsum(counts) - (counts - 1) / 2
    positives, negatives = int(slow.sum()), int((~slow).sum())
    return float((middle[ranks][slow].sum() - positives * (positives + 1) / 2) / (positives * negatives))


# Slow: more than 1.3 times the round's median. Of 10 traces these are the best and one of the worst.
@pytest.mark.parametrize(("name", "expected"), [("canada_l000", 0.820), ("canada_500", 0.755)])
def test_the_slow_workers_of_a_measured_round_are_predicted(shared: Path, name: str, expected: float) -> None:
    trace = load_trace(shared / "traces" / f"{name}.npz")
    startups = trace.times - trace.slope * trace.load
    prediction, scores, slow, now = Prediction(), [], [], 0.0
    for t, row in enumerate(startups):
        if t >= HALF_LIFE:
            scores.append(prediction.seconds(trace.workers, 0.0, now))
            slow.append(row > 1.3 * np.median(row))
        prediction.record_sent(range(trace.workers), now)
        for worker, startup in enumerate(row.tolist()):
            prediction.record_delivery(answer(worker, now + startup, startup, invocation=t), 0.0)
        now += float(row.max())
    assert area(np.concatenate(scores), np.concatenate(slow)) == pytest.approx(expected, abs=0.003)


def test_the_area_of_a_perfect_an_inverse_and_a_blind_score_is_one_none_and_a_half() -> None:
    slow = np.array([False, True, False, True])
    assert [area(np.array(s, dtype=float), slow) for s in ([0, 1, 0, 2], [1, 0, 1, 0], [3, 3, 3, 3])] == [1.0, 0.0, 0.5]


def tail_of(startups: Sequence[float]) -> RareEvents:
    tail = RareEvents()
    for startup in startups:
        tail.add(startup)
    return tail


def test_long_start_ups_are_expected_before_any_was_seen() -> None:
    table = np.full((50, 40), 0.5)
    for tail in (RareEvents(), tail_of([0.5] * 1000)):
        assert tail.rate == RATE == 3e-4
        expected = tail.expected_in(table)
        assert (expected - table).sum() == pytest.approx(RATE * table.size * SECONDS)
        assert np.count_nonzero(expected != table) == 1, "all in one place, as few as they are"


def test_an_event_is_never_forgotten() -> None:
    tail = tail_of([35.0] * 30 + [1.0] * 12000)
    assert tail.rate == 30 / 12030
    table = np.ones((100, 40))
    mean = (SECONDS + 30 * 35.0) / 31
    assert (tail.expected_in(table) - table).sum() == pytest.approx(tail.rate * table.size * mean)


def test_a_table_with_its_share_of_events_is_left_as_it_is() -> None:
    table = np.ones((10, 10))
    table[3, 4] = 30.0
    assert tail_of(table.ravel()).expected_in(table) is table


@PROPERTY
@given(startups=st.lists(st.floats(0, 60), min_size=1, max_size=40), rows=st.integers(1, 60))
def test_what_is_expected_is_what_is_lacking_to_the_rate_of_events(startups: list[float], rows: int) -> None:
    tail = tail_of(startups)
    seen = [startup for startup in startups if startup >= EVENT]
    assert tail.rate == max(RATE, len(seen) / len(startups))
    table = np.resize(np.array(startups), (rows, 5))
    lacking = max(0.0, tail.rate * table.size - np.count_nonzero(table >= EVENT))
    added = tail.expected_in(table) - table
    assert (added >= 0).all()
    assert added.sum() == pytest.approx(lacking * np.mean([SECONDS, *seen]))
