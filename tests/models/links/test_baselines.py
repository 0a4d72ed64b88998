"""Baselines score each event from what came before it, as a loop over events does."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from distseq.models.links.baselines import Scorer, edgebank, edgebank_within, popularity, recency
from distseq.models.links.history import History
from distseq.models.links.metrics import pooled
from distseq.models.links.new_nodes import held_out, new_node_events
from distseq.models.links.probe import RIDGE, Probe, features, fitted_probe, logistic
from distseq.models.links.ranking import hits, mrr, ranks
from distseq.models.links.streaming import Scores, streamed
from distseq.models.links.uniform import uniform_negatives
from tests.models.links.streams import NODES, Stream, streams

# Every destination, and an id that never occurs.
EVERY = np.arange(NODES + 1)
WINDOW = 5
PROBE = Probe(np.linspace(-1, 1, 7), 0.25)
SCORERS: dict[str, Scorer] = {
    "edgebank": edgebank,
    "window": edgebank_within(WINDOW),
    "popularity": popularity,
    "recency": recency,
    "probe": PROBE,
}


def expected(name: str, stream: Stream, seen: int, event: int, candidate: int) -> float:
    """The score of a candidate of an event, after the first `seen` events of the stream."""
    s, t = stream.src[event], stream.t[event]
    past = range(seen)
    pair = [k for k in past if stream.src[k] == s and stream.dst[k] == candidate]
    to = [k for k in past if stream.dst[k] == candidate]
    own = [k for k in past if stream.src[k] == s]
    if name == "edgebank":
        return float(bool(pair))
    if name == "window":
        return float(any(stream.t[k] >= t - WINDOW for k in pair))
    if name == "popularity":
        return float(len(to))
    if name == "recency":
        return float(max(pair, default=-1))
    found = [
        np.log1p(len(pair)),
        len(pair) / max(len(own), 1),
        float(bool(pair) and pair[-1] == own[-1]),
        np.log1p(t - stream.t[pair[-1]]) if pair else 0.0,
        float(bool(pair)),
        np.log1p(len(to)),
        np.log1p(t - stream.t[to[-1]]) if to else 0.0,
    ]
    return float(PROBE.weights @ found + PROBE.bias)


def scored(scorer: Scorer, stream: Stream, begin: int, batch: int) -> Scores:
    everyone = partial(_every, len(EVERY))
    return streamed(scorer, History(*stream), everyone, begin, len(stream.src), batch=batch)


def _every(count: int, begin: int, end: int) -> np.ndarray:
    return np.tile(np.arange(count), (end - begin, 1))


@pytest.mark.parametrize("name", SCORERS)
@given(stream=streams(least=2), begin=st.integers(0, 39), batch=st.integers(1, 9))
def test_scores_are_those_of_a_loop_over_events(name: str, stream: Stream, begin: int, batch: int) -> None:
    begin = min(begin, len(stream.src) - 1)
    found = scored(SCORERS[name], stream, begin, batch)
    for row, event in enumerate(range(begin, len(stream.src))):
        # Of its own batch it sees nothing.
        seen = begin + row // batch * batch
        wanted = [expected(name, stream, seen, event, int(each)) for each in EVERY]
        np.testing.assert_allclose(found.negative[row], wanted, atol=1e-12)
        assert found.positive[row] == found.negative[row, stream.dst[event]]


@pytest.mark.parametrize("name", SCORERS)
@given(stream=streams(least=3), cut=st.integers(1, 39), other=streams(least=40))
def test_a_later_event_changes_no_earlier_score(name: str, stream: Stream, cut: int, other: Stream) -> None:
    cut = min(cut, len(stream.src) - 1)
    left = len(stream.src) - cut
    changed = Stream(
        np.r_[stream.src[:cut], other.src[:left]],
        np.r_[stream.dst[:cut], other.dst[:left]],
        np.r_[stream.t[:cut], stream.t[cut - 1] + other.t[:left]],
    )
    before, after = (scored(SCORERS[name], one, 0, 2) for one in (stream, changed))
    np.testing.assert_array_equal(before.negative[:cut], after.negative[:cut])


def test_what_has_been_seen_cannot_be_scored_again() -> None:
    history = History(np.zeros(4, int), np.ones(4, int), np.arange(4))
    history.see(3)
    with pytest.raises(ValueError, match="events are seen in order: 3 of 4 are, got end=1"):
        streamed(edgebank, history, partial(_every, 2), 1, 4)
    with pytest.raises(ValueError, match=r"1 events need negatives \(1, K\): got shape \(4, 2\)"):
        streamed(edgebank, history, lambda begin, end: _every(2, 0, 4), 3, 4)


def test_the_logistic_regression_is_that_of_a_general_optimizer() -> None:
    draws = np.random.default_rng(0)
    x = draws.normal(size=(300, 3)) * (1.0, 10.0, 0.1) + (0.0, 5.0, 0.0)
    happened = draws.random(300) < 1 / (1 + np.exp(-(x @ (1.0, -0.2, 3.0) + 0.5)))
    scale = x.std(0)

    def loss(weights: np.ndarray) -> float:
        margin = (x @ weights[:-1] + weights[-1]) * np.where(happened, 1, -1)
        # The ridge is on weights of standardized features.
        return float(np.logaddexp(0, -margin).sum() + 0.5 * RIDGE * 300 * ((weights[:-1] * scale) ** 2).sum())

    found = logistic(x, happened)
    best = minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-7})
    np.testing.assert_allclose(np.r_[found.weights, found.bias], best.x, rtol=1e-4, atol=1e-5)


def test_a_feature_that_separates_or_never_varies_leaves_weights_finite() -> None:
    x = np.c_[np.repeat([0.0, 1.0], 20), np.ones(40)]
    found = logistic(x, x[:, 0] > 0)
    assert np.isfinite(found.weights).all()
    assert found.weights[0] > 1
    assert found.weights[1] == 0


def test_a_probe_that_was_fitted_on_events_finds_what_they_follow() -> None:
    """Sources alternate between two destinations: neither counts nor the last destination alone tell which comes next."""
    events, draws = 1200, np.random.default_rng(1)
    src = draws.integers(0, 20, events)
    turn = np.array([np.count_nonzero(src[:k] == src[k]) for k in range(events)])
    stream = Stream(src, 20 + 2 * src + turn % 2, np.arange(events))

    def negatives(first: int, begin: int, end: int) -> np.ndarray:
        return uniform_negatives(np.arange(first + begin, first + end), (20, 60), 9, seed=0)

    history = History(*stream)
    probe = fitted_probe(history, partial(negatives, 100), 100, 900, batch=1)
    found = streamed(probe, history, partial(negatives, 900), 900, events, batch=1)
    quality = mrr(ranks(found.positive, found.negative, found.valid))
    again = streamed(recency, History(*stream), partial(negatives, 900), 900, events, batch=1)
    assert quality > mrr(ranks(again.positive, again.negative, again.valid))
    assert quality > 0.9
    with pytest.raises(ValueError, match=r"the probe needs training events: got 5 \.\. 4"):
        fitted_probe(History(*stream), partial(negatives, 0), 5, 5)


def test_features_are_finite_where_nothing_has_happened() -> None:
    history = History(*(np.zeros(1, int),) * 3)
    assert np.isfinite(features(history, np.array([0]), np.array([[0, 9]]), np.array([0]))).all()


@given(streams(least=4), st.integers(1, 39), st.floats(0, 1))
def test_held_out_nodes_are_new_in_later_events_and_absent_from_training(
    stream: Stream, cut: int, share: float
) -> None:
    train = np.arange(len(stream.src)) < min(cut, len(stream.src) - 1)
    found = held_out(stream.src, stream.dst, train, seed=3, share=share)
    assert not (found.train & ~train).any()
    known = {*stream.src[found.train].tolist(), *stream.dst[found.train].tolist()}
    touched = [not {int(s), int(d)} <= known for s, d in zip(stream.src, stream.dst, strict=True)]
    np.testing.assert_array_equal(found.new, ~train & touched)
    np.testing.assert_array_equal(
        held_out(stream.src, stream.dst, train, seed=0, share=0.0).new, new_node_events(stream.src, stream.dst, train)
    )
    whole = held_out(stream.src, stream.dst, train, seed=3, share=1.0)
    assert whole.new.sum() == (~train).sum(), "all nodes of later events are held out"


def test_flights_have_the_figures_of_their_description(shared: Path) -> None:
    """40,000 departures: EdgeBank's AP .775, the last destination right in .264 of cases, .287 of test pairs unseen."""
    file = np.load(shared / "data" / "flights_40k.npz")
    t, src = np.cumsum(file["t"].astype(np.int64)), file["plane"].astype(np.int64)
    # Negatives are of the airports that occur: 94 of the 104 that have names.
    names, dst = np.unique(file["dest"], return_inverse=True)
    begin, count = int(np.searchsorted(t, np.quantile(t, 0.85), side="right")), len(names)

    def one(draw: int, first: int, past: int) -> np.ndarray:
        return uniform_negatives(np.arange(begin + first, begin + past), (0, count), seed=0, epoch=draw)

    found = [
        streamed(edgebank, History(src, dst, t), partial(one, draw), begin, len(t), batch=200) for draw in range(8)
    ]
    assert 1 - found[0].positive.mean() == pytest.approx(0.287, abs=0.0005)
    # Of one draw, whose deviation is .0025.
    ap = [pooled(each.positive, each.negative).ap for each in found]
    assert np.mean(ap) == pytest.approx(0.775, abs=0.005)
    last = streamed(recency, History(src, dst, t), partial(_every, count), begin, len(t), batch=1)
    others = np.arange(count) != dst[begin:, None]
    assert hits(ranks(last.positive, last.negative, others), 1) == pytest.approx(0.264, abs=0.0005)
