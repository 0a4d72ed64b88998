"""Baselines without parameters: EdgeBank, popularity and recency. Shapes: n events, K candidates of each."""

from collections.abc import Callable
from functools import partial

import numpy as np

from distseq.models.links.history import NEVER, Seen

# (history, src (n,), candidates (n, K), t (n,)) -> (n, K) float64, higher for what is more likely to happen.
Scorer = Callable[[Seen, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def edgebank(
    history: Seen, src: np.ndarray, candidates: np.ndarray, t: np.ndarray, *, window: int | None = None
) -> np.ndarray:
    """(n, K): 1 for a pair that has occurred, 0 for another (Poursafaei et al. 2022).

    window: only if it has occurred since t - window; None remembers without limit.
    """
    latest = history.pair_time(src, candidates)
    since = NEVER + 1 if window is None else np.asarray(t)[:, None] - window
    return (latest >= since).astype(np.float64)


def popularity(history: Seen, src: np.ndarray, candidates: np.ndarray, t: np.ndarray) -> np.ndarray:
    """(n, K): how many events had the candidate as their destination, whatever their source."""
    return history.dst_count(candidates).astype(np.float64)


def recency(history: Seen, src: np.ndarray, candidates: np.ndarray, t: np.ndarray) -> np.ndarray:
    """(n, K): the index of the source's latest event with the candidate, or -1: its last destination comes first."""
    return history.pair_event(src, candidates).astype(np.float64)


def edgebank_within(window: int) -> Scorer:
    """EdgeBank with a time window; Poursafaei et al. (2022) take the time that the test events span.

    >>> history = History(np.array([0, 0]), np.array([1, 2]), np.array([0, 50]))
    >>> history.see(2)
    >>> edgebank_within(10)(history, np.array([0]), np.array([[1, 2]]), np.array([55])).tolist()
    [[0.0, 1.0]]
    """
    return partial(edgebank, window=window)
