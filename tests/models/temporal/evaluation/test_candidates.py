"""Candidates by each protocol, and baselines against the same ones."""

from typing import Any

import numpy as np
import pytest

from distseq.models.data.events import EventStream
from distseq.models.links.historical import HistoricalNegatives
from distseq.models.links.history import History
from distseq.models.links.past import Past
from distseq.models.links.probe import fitted_probe
from distseq.models.links.uniform import uniform_negatives
from distseq.models.temporal import Graph, advance
from distseq.models.temporal.evaluation import Candidates, Evaluation, Protocol, baseline_figures, figures
from distseq.models.temporal.evaluation.baselines import AGAINST, _fitted
from tests.models.temporal.streams import model_of, stream_of

EVENTS, FIRST = 120, 70
SCORED = range(FIRST, EVENTS)
ALL = np.arange(FIRST, EVENTS)


def of_kind(kind: str, stream: EventStream, **given: Any) -> Candidates:
    published = np.random.default_rng(0).integers(*stream.destinations, (len(SCORED), 6))
    return Candidates(stream, SCORED, Protocol(kind=kind, negatives=5, **given), training=50, published=published)


@pytest.mark.parametrize("kind", ["uniform", "historical", "published"])
def test_candidates_are_keyed_by_event(kind: str) -> None:
    candidates = of_kind(kind, stream_of(events=EVENTS))
    whole, paired = candidates.against(ALL), candidates.paired(ALL)
    assert whole.shape == (len(ALL), candidates.width)
    for some in (ALL[3:4], ALL[10:30:3], ALL[:0]):
        np.testing.assert_array_equal(candidates.against(some), whole[some - FIRST])
        np.testing.assert_array_equal(candidates.paired(some), paired[some - FIRST])


def test_uniform_candidates_are_destinations_but_never_the_events_own() -> None:
    stream = stream_of("bipartite", EVENTS)
    candidates = Candidates(stream, SCORED, Protocol(negatives=200, seed=1))
    found, own = candidates.against(ALL), stream.dst[ALL]
    assert not (found == own[:, None]).any()
    assert set(found.ravel().tolist()) == set(range(*stream.destinations))
    # TGN's one negative may be the event's own, and is drawn apart from the others.
    assert (candidates.paired(ALL) == own).any()
    assert np.mean(candidates.paired(ALL) == found[:, 0]) < 0.5
    other = Candidates(stream, SCORED, Protocol(negatives=200, seed=2))
    assert not np.array_equal(other.against(ALL), found)
    assert not np.array_equal(other.paired(ALL), candidates.paired(ALL))


def test_historical_candidates_are_those_of_the_training_events() -> None:
    stream = stream_of(events=EVENTS)
    split = tuple(each[FIRST:] for each in (stream.src, stream.dst, stream.t))
    expected = HistoricalNegatives((stream.src[:50], stream.dst[:50]), split, stream.destinations, 5, seed=0)
    np.testing.assert_array_equal(of_kind("historical", stream).against(ALL), expected(0, len(ALL)))


def test_a_model_is_ranked_against_the_published_negatives() -> None:
    stream = stream_of(events=EVENTS)
    graph, model = Graph(stream), model_of()
    # Its own destination ties with it, but for the rounding of the last rows of a product; another one does not.
    own, other = stream.dst[ALL], (stream.dst[ALL] + 1) % stream.nodes
    ranks = {}
    for name, column in (("own", own), ("other", other)):
        protocol = Protocol(kind="published")
        candidates = Candidates(stream, SCORED, protocol, published=column[:, None])
        state = advance(model, graph, model.state(graph), slice(0, FIRST))
        ranks[name] = Evaluation(model, graph, state, SCORED, protocol, candidates).rows(ALL)[:, 2]
    assert np.mean(ranks["own"] == 1.5) > 0.9
    assert set(ranks["other"].tolist()) == {1.0, 2.0}


def test_every_so_many_events_are_ranked_from_the_first() -> None:
    candidates = of_kind("uniform", stream_of(events=EVENTS), every=7)
    assert np.flatnonzero(candidates.ranked(ALL)).tolist() == list(range(0, len(ALL), 7))


@pytest.mark.parametrize(
    ("kind", "given", "reason"),
    [
        ("historical", {}, r"kind 'historical' needs training, the first 1 .. 120 events: got None"),
        ("historical", {"training": 121}, r"kind 'historical' needs training, the first 1 .. 120 events: got 121"),
        ("published", {}, r"kind 'published' needs negatives \(50 evaluated events, K\): got None"),
        ("published", {"published": np.zeros((49, 3))}, r"needs negatives \(50 evaluated events, K\): got \(49, 3\)"),
    ],
)
def test_what_a_kind_needs_is_said(kind: str, given: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Candidates(stream_of(events=EVENTS), SCORED, Protocol(kind=kind), **given)


@pytest.mark.parametrize("scored", [range(5, 5), range(5, 121), range(-1, 4), range(0, 10, 2)])
def test_a_range_outside_the_stream_is_refused(scored: range) -> None:
    with pytest.raises(ValueError, match=r"events must be a range of the stream's 120 events: got range"):
        Candidates(stream_of(events=EVENTS), scored, Protocol())


def test_one_destination_leaves_nothing_to_draw() -> None:
    stream = EventStream(np.arange(4), np.full(4, 5), np.arange(4))
    with pytest.raises(ValueError, match=r"kind 'uniform' needs two destinations to choose from: got 5 \.\. 5"):
        Candidates(stream, range(2, 4), Protocol())


def slow_edgebank(stream: EventStream, candidates: Candidates, batch: int) -> np.ndarray:
    """Rows of EdgeBank, event by event."""
    rows = []
    for e in ALL.tolist():
        seen = FIRST + (e - FIRST) // batch * batch
        pairs = set(zip(stream.src[:seen].tolist(), stream.dst[:seen].tolist(), strict=True))
        one = np.array([e])
        asked = [int(stream.dst[e]), int(candidates.paired(one)[0]), *candidates.against(one)[0].tolist()]
        scores = [float((int(stream.src[e]), d) in pairs) for d in asked]
        there = [score for score, d in zip(scores[2:], asked[2:], strict=True) if d >= 0]
        rank = 1 + (sum(s > scores[0] for s in there) + sum(s >= scores[0] for s in there)) / 2
        rows.append((scores[0], scores[1], rank if candidates.ranked(one)[0] else 0))
    return np.array(rows)


@pytest.mark.parametrize("batch", [None, 1, 13])
@pytest.mark.parametrize("kind", ["uniform", "historical", "published"])
def test_baselines_are_scored_against_the_same_negatives(kind: str, batch: int | None) -> None:
    stream, new = stream_of(events=EVENTS), ALL % 4 == 0
    candidates = of_kind(kind, stream, every=2, batch=20)
    found = baseline_figures(stream, candidates, 50, batch=batch, new=new)
    assert list(found) == ["edgebank", "popularity", "counts"]
    expected = figures(slow_edgebank(stream, candidates, batch or 20), new=new)
    assert found["edgebank"] == {name: value for name, value in expected.items() if not name.endswith("loss")}
    assert found["counts"].keys() == found["popularity"].keys() == found["edgebank"].keys()


def test_baselines_know_a_stream_that_repeats() -> None:
    draws = np.random.default_rng(0)
    src = draws.integers(0, 20, 1500)
    # Each source has two destinations of its own.
    dst = 20 + (5 * src + draws.integers(0, 2, 1500)) % 60
    stream = EventStream(src, dst, np.arange(1500))
    candidates = Candidates(stream, range(1200, 1500), Protocol(negatives=20))
    found = baseline_figures(stream, candidates, 1000)
    assert found["edgebank"]["mrr"] > 0.85
    assert found["counts"]["mrr"] > 0.9
    assert found["popularity"]["mrr"] < 0.5


def test_training_events_cannot_be_evaluated_by_baselines() -> None:
    stream = stream_of(events=EVENTS)
    with pytest.raises(ValueError, match=r"baselines need 1 \.\. 70 training events before those evaluated: got 71"):
        baseline_figures(stream, of_kind("uniform", stream), 71)


@pytest.mark.parametrize("batch", [1, 13])
def test_the_probe_is_the_one_that_is_fitted_by_streaming(batch: int) -> None:
    stream = stream_of(events=EVENTS)

    def drawn(begin: int, end: int) -> np.ndarray:
        events = np.arange(begin, end)
        return uniform_negatives(events, stream.destinations, AGAINST, seed=3, avoid=stream.dst[events])

    expected = fitted_probe(History(stream.src, stream.dst, stream.t), drawn, 0, 70, batch=batch)
    found = _fitted(Past(stream.src, stream.dst, stream.t), 70, stream.destinations, 3, batch)
    np.testing.assert_allclose(found.weights, expected.weights, rtol=1e-9, atol=1e-12)
    assert found.bias == pytest.approx(expected.bias)
