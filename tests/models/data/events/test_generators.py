"""Generated streams are decided by their seed and have the properties that their docstrings promise."""

from typing import Any

import numpy as np
import pytest

from distseq.models.data.events import EventStream, open_events
from distseq.models.data.events.split import chronological
from distseq.models.data.events.statistics import recurrence

CATEGORIES = 23


@pytest.mark.parametrize(("name", "args"), [("sequence", {"features": 3}), ("hubs", {"loops": 0.1})])
def test_a_seed_decides_a_stream(name: str, args: dict[str, Any]) -> None:
    one, same, other = (open_events(name, **args, seed=seed).stream for seed in (0, 0, 1))
    assert one.fingerprint == same.fingerprint
    assert one.fingerprint != other.fingerprint


@pytest.fixture(scope="module")
def walks() -> EventStream:
    return open_events("sequence").stream


def test_no_edge_of_a_sequence_repeats(walks: EventStream) -> None:
    assert recurrence(walks).seen == 0
    assert (walks.nodes, walks.destinations) == (1550, (400, 1550))
    assert len(np.unique(walks.src)) == 400
    assert walks.dst.min() >= 400


def categories(walks: EventStream) -> np.ndarray:
    """(E,) the category of each event's item, which the generator draws first from the same seed."""
    return np.asarray(np.random.default_rng(0).permutation(np.arange(1150) % CATEGORIES)[walks.dst - 400])


def ranks(scores: np.ndarray, own: np.ndarray) -> float:
    """Mean reciprocal rank of the own column's score among 100 others of random items; ties count half."""
    rng = np.random.default_rng(1)
    against = scores[np.arange(len(scores))[:, None], rng.integers(CATEGORIES, size=(len(scores), 100))]
    mine = scores[np.arange(len(scores)), own][:, None]
    return float((1 / (1 + 0.5 * ((against > mine).sum(1) + (against >= mine).sum(1)))).mean())


def test_the_order_of_a_users_items_tells_the_next_and_their_set_does_not(walks: EventStream) -> None:
    category = categories(walks)
    last: dict[int, list[int]] = {}
    ordered, unordered, chance = [], [], []
    for user, found in zip(walks.src.tolist(), category.tolist(), strict=True):
        had = last.setdefault(user, [])
        by_order, by_set = np.zeros(CATEGORIES), np.zeros(CATEGORIES)
        if len(had) >= 2:
            by_order[(2 * had[-1] - had[-2]) % CATEGORIES] = 1
        # The best that is known without order: categories of which the user has had few.
        np.subtract.at(by_set, had, 1)
        ordered.append(by_order)
        unordered.append(by_set)
        chance.append(np.zeros(CATEGORIES))
        had.append(found)
    test = chronological(walks).test
    by_order, by_set, by_chance = (ranks(np.array(each)[test], category[test]) for each in (ordered, unordered, chance))
    # All tied: what EdgeBank scores, for no edge was seen before.
    assert by_chance == pytest.approx(1 / 51)
    assert by_order > 0.25
    assert by_set < 0.4 * by_order


def test_features_of_a_sequence_tell_the_category() -> None:
    made = open_events("sequence", features=32).stream
    assert made.message is not None
    category = categories(made)
    means = np.stack([made.message[category == c].mean(0) for c in range(CATEGORIES)])
    nearest = ((made.message[:2000, None] - means) ** 2).sum(2).argmin(1)
    assert (nearest == category[:2000]).mean() > 0.95


def test_hubs_have_few_nodes_with_most_events_in_bursts_and_ties() -> None:
    stream = open_events("hubs", events=20_000, nodes=1000, ties=0.3).stream
    degrees = np.sort(np.bincount(np.r_[stream.src, stream.dst], minlength=1000))[::-1]
    assert degrees[:10].sum() > 0.4 * degrees.sum()
    assert degrees[100:].sum() > 0.05 * degrees.sum()
    assert recurrence(stream).ties == pytest.approx(0.3, abs=0.02)
    assert not (stream.src == stream.dst).any()
    assert stream.destinations == (0, 1000)
    # An event shares a node with the one before it far more often than with one of another moment.
    shares = [
        np.mean(
            (stream.src[lag:] == stream.src[:-lag])
            | (stream.dst[lag:] == stream.dst[:-lag])
            | (stream.src[lag:] == stream.dst[:-lag])
            | (stream.dst[lag:] == stream.src[:-lag])
        )
        for lag in (1, 1000)
    ]
    assert shares[0] > shares[1] + 0.2


@pytest.mark.parametrize("loops", [0.2, 1.0])
def test_hubs_have_as_many_loops_as_asked_for(loops: float) -> None:
    stream = open_events("hubs", loops=loops).stream
    assert np.mean(stream.src == stream.dst) == pytest.approx(loops, abs=0.02)


def test_one_hub_may_have_every_event() -> None:
    stream = open_events("hubs", events=200, exponent=200.0, nodes=50).stream
    hub = np.bincount(np.r_[stream.src, stream.dst]).argmax()
    assert ((stream.src == hub) | (stream.dst == hub)).all()


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("sequence", {"events": 0}, "sequence needs events >= 1: got 0"),
        ("sequence", {"items": 100}, "sequence needs a multiple of categories=23 as items: got 100"),
        ("sequence", {"strides": 30}, "sequence has 22 strides for categories=23: got strides=30"),
        ("sequence", {"jump": 1.5}, r"sequence needs a jump in 0 \.\. 1: got 1.5"),
        ("sequence", {"features": -1}, "sequence needs features >= 0: got -1"),
        (
            "sequence",
            {"users": 2},
            r"sequence needs more items: a user takes \d+ of the 50 of one category, .*users=2,",
        ),
        ("sequence", {"events": 4.5}, "data 'sequence': events must be int: got 4.5"),
        ("sequence", {"seed": True}, "data 'sequence': seed must be int: got True"),
        ("hubs", {"nodes": 1}, "hubs needs events >= 1 and nodes >= 2: got events=20000, nodes=1"),
        ("hubs", {"burst": 0.5}, "hubs needs exponent >= 0 and burst >= 1"),
        ("hubs", {"exponent": float("nan")}, "hubs needs exponent >= 0 and burst >= 1"),
        ("hubs", {"ties": 2}, r"hubs needs ties and loops in 0 \.\. 1: got ties=2"),
        ("hubs", {"ties": "many"}, "data 'hubs': ties must be float: got 'many'"),
        ("hubs", {"knots": 2}, "data set 'hubs' can't be opened with"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(name: str, args: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_events(name, **args)
