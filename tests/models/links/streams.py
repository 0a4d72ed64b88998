"""Small streams with ties in time, repeated pairs and self-loops, drawn by Hypothesis."""

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

NODES = 6


class Stream(NamedTuple):
    src: np.ndarray
    dst: np.ndarray
    t: np.ndarray


@st.composite
def streams(draw: DrawFn, least: int = 1, most: int = 40) -> Stream:
    events = draw(st.integers(least, most))
    ids = st.lists(st.integers(0, NODES - 1), min_size=events, max_size=events)
    gaps = draw(st.lists(st.integers(0, 3), min_size=events, max_size=events))
    return Stream(np.array(draw(ids)), np.array(draw(ids)), np.cumsum(gaps))
