"""Recent neighbors are those that a walk over all events finds, and depend on nothing but node and time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distseq.models.temporal.neighbors import Neighbors

EVENTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 9)), max_size=25)


@given(events=EVENTS, k=st.integers(1, 4), node=st.integers(0, 4), time=st.integers(-1, 11))
def test_recent_neighbors_are_those_of_a_walk_backwards(
    events: list[tuple[int, int, int]], k: int, node: int, time: int
) -> None:
    events = sorted(events, key=lambda event: event[2])
    src, dst, t = (np.array(column, np.int64) for column in (zip(*events, strict=True) if events else ([], [], [])))
    found = Neighbors(src, dst, t, 5).recent(np.array([node]), np.array([time]), k)
    expected = [
        (dst[e] if src[e] == node else src[e], e, t[e])
        for e in reversed(range(len(events)))
        if t[e] < time and node in (src[e], dst[e])
    ][:k]
    padding = [(0, 0, 0)] * (k - len(expected))
    assert list(zip(found.nodes[0], found.events[0], found.times[0], strict=True)) == [*expected, *padding]
    assert found.valid[0].tolist() == [True] * len(expected) + [False] * len(padding)


def test_keys_that_int64_does_not_hold_are_refused() -> None:
    one = np.zeros(4, np.int64)
    with pytest.raises(ValueError, match="exceeds the keys of int64"):
        Neighbors(one, one, one, 2**62)
