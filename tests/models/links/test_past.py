"""The past of many events at once is that of a history which goes through the events."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distseq.models.links import past as module
from distseq.models.links.baselines import Scorer, edgebank, edgebank_within, popularity, recency
from distseq.models.links.history import History
from distseq.models.links.past import Past, scored
from distseq.models.links.probe import Probe
from distseq.models.links.streaming import streamed
from tests.models.links.streams import NODES, Stream, streams

SCORERS: dict[str, Scorer] = {
    "edgebank": edgebank,
    "window": edgebank_within(5),
    "popularity": popularity,
    "recency": recency,
    "probe": Probe(np.linspace(-1, 1, 7), 0.25),
}
NAMES = ("pair_count", "pair_time", "pair_event", "dst_count", "dst_time", "src_count", "src_event")


@given(streams(), st.integers(0, 40))
def test_numbers_are_those_of_a_history(stream: Stream, limit: int) -> None:
    limit, history = min(limit, len(stream.src)), History(*stream)
    history.see(limit)
    # Ids that never occur, too.
    src = np.arange(NODES + 1)
    candidates = np.tile(np.arange(-1, NODES + 1), (len(src), 1))
    past = Past(*stream).before(np.full(len(src), limit))
    for name in NAMES:
        given = {"pair": (src, candidates), "dst": (candidates,), "src": (src,)}[name.partition("_")[0]]
        np.testing.assert_array_equal(getattr(past, name)(*given), getattr(history, name)(*given), err_msg=name)


@pytest.mark.parametrize("name", SCORERS)
@given(stream=streams(least=2), begin=st.integers(0, 39), batch=st.integers(1, 9), chunk=st.integers(1, 50))
def test_scores_are_those_of_streaming(name: str, stream: Stream, begin: int, batch: int, chunk: int) -> None:
    begin, end = min(begin, len(stream.src) - 1), len(stream.src)

    def negatives(first: int, last: int) -> np.ndarray:
        drawn = np.random.default_rng(0).integers(-1, NODES + 1, (end - begin, 4))
        return drawn[first:last]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", chunk)
        found = scored(SCORERS[name], Past(*stream), negatives, begin, end, batch=batch)
    expected = streamed(SCORERS[name], History(*stream), partial(negatives), begin, end, batch=batch)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-14)
