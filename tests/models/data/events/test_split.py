"""Splits follow time and never cut a moment; new nodes are those that training has not seen."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from distseq.models.data.events import EventStream, open_events
from distseq.models.data.events.split import Split, chronological, from_column, hold_out


def timed(t: list[int]) -> EventStream:
    return EventStream(np.zeros(len(t), np.int64), np.ones(len(t), np.int64), np.array(t, np.int64))


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=60), st.sampled_from([(0.7, 0.85), (0.1, 0.9)]))
def test_a_chronological_split_is_by_quantiles_of_time(times: list[int], shares: tuple[float, float]) -> None:
    stream = timed(sorted(times))
    val_time, test_time = np.quantile(stream.t, shares)
    parts = [stream.t <= val_time, (stream.t > val_time) & (stream.t <= test_time), stream.t > test_time]
    assume(all(part.any() for part in parts))
    split = chronological(stream, *shares)
    for cut, part in zip((split.train, split.val, split.test), parts, strict=True):
        assert np.arange(len(stream))[cut].tolist() == np.flatnonzero(part).tolist()
    # Never inside a tie.
    for first, second in pairwise((split.train, split.val, split.test)):
        assert stream.t[first][-1] < stream.t[second][0]


def test_the_parts_of_flights_have_their_sizes() -> None:
    split = chronological(open_events("flights").stream)
    assert (split.first_val, split.first_test, split.events) == (28001, 34000, 40000)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([], "a stream without events cannot be split"),
        ([1, 1, 1], "the split leaves no validation events: validation begins at event 3, test at 3 of 3"),
        ([1, 2, 2, 2, 2, 2, 2, 2, 2], "the split leaves no validation events"),
        ([1, 2, 3, 4, 5, 6, 7, 7, 7, 7], "the split leaves no validation events: validation begins at event 10"),
    ],
)
def test_a_split_without_events_in_a_part_is_refused(times: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chronological(timed(times))


@pytest.mark.parametrize("shares", [(0.0, 0.5), (0.5, 0.5), (0.8, 0.7), (0.5, 1.0), (float("nan"), 0.9)])
def test_shares_must_ascend(shares: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="needs 0 < val < test < 1"):
        chronological(timed([1, 2, 3]), *shares)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([0, 0, 1, 0, 2], "event 3 has split=0 after split=1: training, validation and test must follow each other"),
        ([0, 1, -1, 2], "event 2 has split=-1: it must be 0, 1 or 2"),
        ([0, 1, 3], "event 2 has split=3: it must be 0, 1 or 2"),
        ([0, 0, 2], "the split leaves no validation events"),
        ([1, 2], "the split leaves no training events"),
    ],
)
def test_a_wrong_column_is_refused(column: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_column(np.array(column))


def test_a_column_is_a_split() -> None:
    assert from_column(np.array([0, 0, 0, 1, 2, 2])) == Split(3, 4, 6)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_new_nodes_have_no_training_event_and_touch_the_others(share: float) -> None:
    stream = open_events("hubs", events=3000, nodes=300).stream
    split = chronological(stream)
    found = hold_out(stream, split, share, seed=3)
    trained = {int(n) for k in np.flatnonzero(found.train) for n in (stream.src[k], stream.dst[k])}
    assert {int(n) for n in np.flatnonzero(~found.new)} == trained
    for name, cut in (("val", split.val), ("test", split.test)):
        mask = getattr(found, name)
        expected = [k for k in range(len(stream))[cut] if {int(stream.src[k]), int(stream.dst[k])} - trained]
        assert np.flatnonzero(mask).tolist() == expected
    # Held out are so many of all nodes with events, among those that come later; training goes without their events alone.
    occurring = len(np.unique(np.r_[stream.src, stream.dst]))
    late = set(np.r_[stream.src[split.first_val :], stream.dst[split.first_val :]].tolist())
    assert found.held.sum() == int(share * occurring)
    assert set(np.flatnonzero(found.held).tolist()) <= late
    untouched = ~(found.held[stream.src] | found.held[stream.dst])
    assert found.train[split.train].tolist() == untouched[split.train].tolist()
    assert not found.train[split.first_val :].any()


def test_the_seed_decides_which_nodes_are_held_out() -> None:
    stream = open_events("hubs", events=2000, nodes=200).stream
    split = chronological(stream)
    one, same, other = (hold_out(stream, split, seed=seed).new for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()


def test_holding_out_everything_is_refused() -> None:
    stream = timed(list(range(20)))
    with pytest.raises(ValueError, match="no training event is left when 2 of 2 nodes are held out"):
        hold_out(stream, chronological(stream), share=1.0)
    with pytest.raises(ValueError, match=r"must be in 0 \.\. 1: got 2"):
        hold_out(stream, chronological(stream), share=2)
