"""Negatives are functions of the event, whatever batch it lies in, and drawn from where their protocol says."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distseq.models.links.historical import HistoricalNegatives
from distseq.models.links.keyed import bits, whole_numbers
from distseq.models.links.uniform import published_negatives, uniform_negatives
from tests.models.links.streams import NODES, Stream, streams

EVENTS = np.arange(20_000)


def assert_uniform(drawn: np.ndarray, values: range) -> None:
    """By a chi-square statistic, which is within six deviations of its mean but once in 1e8 times."""
    assert drawn.min() >= values.start
    assert drawn.max() < values.stop
    counts = np.bincount(drawn.ravel() - values.start, minlength=len(values))
    expected = drawn.size / len(values)
    freedom = len(values) - 1
    assert ((counts - expected) ** 2 / expected).sum() < freedom + 6 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("key", ["seed", "epoch", "event", "slot"])
def test_each_key_gives_other_numbers_that_are_uniform(key: str) -> None:
    keys: dict[str, Any] = {"seed": 3, "epoch": 1, "event": np.array([5]), "slot": np.array([2])}
    if key in ("event", "slot"):
        drawn = bits(*(keys | {key: EVENTS}).values())
    else:
        drawn = np.concatenate([bits(*(keys | {key: value}).values()) for value in range(2000)])
    assert len(np.unique(drawn)) == len(drawn)
    assert_uniform(whole_numbers(drawn, 7), range(7))
    # Half of the bits differ from those of the neighbouring key.
    differ = np.unpackbits((drawn[1:] ^ drawn[:-1]).view(np.uint8)).mean()
    assert differ == pytest.approx(0.5, abs=0.01)


def test_keys_do_not_stand_for_each_other() -> None:
    found = [bits(*keys)[0] for keys in np.ndindex(3, 3, 3, 3)]  # type: ignore[call-overload]
    assert len(set(found)) == 81
    assert 0 not in found, "a finalizer leaves 0 as it is"


@given(st.integers(1, 50), st.integers(1, 7), st.integers(0, 3))
def test_uniform_negatives_are_the_same_however_batches_are_cut(events: int, cut: int, epoch: int) -> None:
    ids = np.arange(events)
    whole = uniform_negatives(ids, (3, 11), 4, seed=9, epoch=epoch)
    parts = [uniform_negatives(ids[k : k + cut], (3, 11), 4, seed=9, epoch=epoch) for k in range(0, events, cut)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_uniform_negatives_are_uniform_and_may_hit_the_event_s_own() -> None:
    drawn = uniform_negatives(EVENTS, (4, 9), 2, seed=1)
    assert_uniform(drawn, range(4, 9))
    # Slots are independent: all pairs occur alike.
    assert_uniform((drawn[:, 0] - 4) * 5 + drawn[:, 1] - 4, range(25))


@pytest.mark.parametrize("without_last", [False, True])
@pytest.mark.parametrize("own", [4, 6, 8])
def test_an_avoided_destination_is_never_drawn_and_the_others_alike(own: int, without_last: bool) -> None:
    drawn = uniform_negatives(EVENTS, (4, 9), 2, seed=1, avoid=np.full(len(EVENTS), own), without_last=without_last)
    others = [each for each in range(4, 8 if without_last else 9) if each != own]
    assert sorted(set(drawn.ravel().tolist())) == others
    assert_uniform(np.searchsorted(others, drawn), range(len(others)))


def test_where_nothing_is_left_to_draw_it_is_said() -> None:
    with pytest.raises(
        ValueError, match=r"no negative can be drawn: count=1, destinations 4 \.\. 4, one of them taken"
    ):
        uniform_negatives(np.arange(1), (4, 5), seed=0, avoid=np.array([4]))


def test_published_negatives_are_mapped_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "x_test_ns.npy"
    np.save(path, np.array([[3, 4], [5, 3]]))
    assert published_negatives(path, 2, 6).tolist() == [[3, 4], [5, 3]]
    for rows, nodes, message in (
        (3, 6, r"x_test_ns.npy' must hold whole numbers \(3, K\), a row for each test event: got int64 \(2, 2\)"),
        (2, 5, r"x_test_ns.npy': row 1 holds an id that is not in 0 \.\. 4"),
    ):
        with pytest.raises(ValueError, match=message):
            published_negatives(path, rows, nodes)
    path.write_bytes(b"no array")
    with pytest.raises(ValueError, match=r"can't read negatives '.*x_test_ns.npy': "):
        published_negatives(path, 2, 6)
    with pytest.raises(ValueError, match=r"can't read negatives '.*gone.npy': No such file"):
        published_negatives(tmp_path / "gone.npy", 2, 6)


def sets(train: Stream, split: Stream, event: int) -> tuple[set[int], set[int]]:
    """Destinations seen by the event's source in training, and all others; both without those it has at that moment."""
    s, t = split.src[event], split.t[event]
    own = {int(d) for a, d, when in zip(*split, strict=True) if (a, when) == (s, t)}
    seen = {int(d) for a, d, _ in zip(*train, strict=True) if a == s} - own
    return seen, set(range(NODES)) - own - seen


@given(streams(), streams(), st.integers(1, NODES + 3), st.integers(1, 5))
def test_hist_rnd_takes_half_of_what_was_seen_and_half_of_what_was_not(
    train: Stream, split: Stream, count: int, cut: int
) -> None:
    negatives = HistoricalNegatives((train.src, train.dst), split, (0, NODES), count, seed=5)
    n = len(split.src)
    found = negatives(0, n)
    assert found.shape == (n, min(count, NODES))
    for event, row in enumerate(found.tolist()):
        seen, unseen = sets(train, split, event)
        drawn = [each for each in row if each >= 0]
        assert len(set(drawn)) == len(drawn), "without replacement"
        if count >= len(seen) + len(unseen):
            assert set(drawn) == seen | unseen
            continue
        from_seen = min(count // 2, len(seen))
        assert len(set(drawn) & seen) == from_seen
        assert len(set(drawn) & unseen) == min(count - from_seen, len(unseen))
        assert set(drawn) <= seen | unseen
    parts = [negatives(k, min(k + cut, n)) for k in range(0, n, cut)]
    np.testing.assert_array_equal(found, np.concatenate(parts))


@pytest.mark.parametrize("size", [10, 200])  # all sorted, and drawn until there are enough
def test_hist_rnd_draws_each_of_its_sets_uniformly(size: int) -> None:
    events = 4000
    train = (np.zeros(4, int), np.arange(4))
    split = (np.zeros(events, int), np.full(events, 5), np.arange(events))
    found = HistoricalNegatives(train, split, (0, size), 5, seed=2)(0, events)
    assert_uniform(found[:, :2], range(4))
    others = [each for each in range(4, size) if each != 5]
    assert_uniform(np.searchsorted(others, found[:, 2:]), range(len(others)))


def test_hist_rnd_draws_the_same_of_many_destinations_however_batches_are_cut() -> None:
    """Sources have seen few and many, so that they need sequences of different lengths."""
    sources = np.repeat(np.arange(12), np.arange(12))
    train = (sources, np.arange(len(sources)))
    split = (np.arange(12), np.full(12, 299), np.zeros(12, int))
    negatives = HistoricalNegatives(train, split, (0, 300), 20, seed=4)
    alone = np.concatenate([negatives(k, k + 1) for k in range(12)])
    np.testing.assert_array_equal(negatives(0, 12), alone)
    assert (alone >= 0).all()
    tight = HistoricalNegatives(train, split, (0, 300), 60, seed=4)
    np.testing.assert_array_equal(tight(0, 12), np.concatenate([tight(k, k + 1) for k in range(12)]))


def test_hist_rnd_refuses_what_it_cannot_draw() -> None:
    one = np.zeros(1, int)
    with pytest.raises(ValueError, match=r"destination 7 is not in 0 \.\. 5"):
        HistoricalNegatives((one, one + 7), (one, one, one), (0, 6), 2, seed=0)
    with pytest.raises(ValueError, match="hist_rnd needs count >= 1"):
        HistoricalNegatives((one, one), (one, one, one), (0, 6), 0, seed=0)
