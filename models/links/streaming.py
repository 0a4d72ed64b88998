"""Scores the events of a stream in order, one against many, from nothing but what came before. Shapes: n events, K negatives."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from distseq.models.links.baselines import Scorer
from distseq.models.links.history import History

# (begin, end) -> (end - begin, K) int64 negatives of the events at these places of the scored range, -1 where there is none.
Negatives = Callable[[int, int], np.ndarray]


class Scores(NamedTuple):
    """Of n events and of their negatives."""

    positive: np.ndarray  # (n,) float64
    negative: np.ndarray  # (n, K) float64
    valid: np.ndarray  # (n, K) bool: false where a row has no negative


def streamed(
    scorer: Scorer, history: History, negatives: Negatives, begin: int, end: int, *, batch: int = 200
) -> Scores:
    """Scores the events begin .. end - 1 of a history's stream, and lets it see them, a batch at a time.

    Events of a batch are scored from the events of strictly earlier batches, all of them, as TGB does; with batch=1 from all
    earlier events. ValueError if the history has seen an event that is to be scored, or negatives are of another shape.

    >>> from distseq.models.links.baselines import edgebank
    >>> history = History(np.array([0, 0, 0]), np.array([1, 1, 2]), np.arange(3))
    >>> streamed(edgebank, history, lambda begin, end: np.full((end - begin, 1), 2), 1, 3, batch=1).positive.tolist()
    [1.0, 0.0]
    """
    if batch < 1 or not begin < end <= len(history.src):
        raise ValueError(f"events {begin} .. {end - 1} of {len(history.src)} cannot be scored in batches of {batch}")
    history.see(begin)
    found = []
    for cut in range(begin, end, batch):
        last = min(cut + batch, end)
        drawn = np.asarray(negatives(cut - begin, last - begin))
        if drawn.ndim != 2 or len(drawn) != last - cut:
            raise ValueError(f"{last - cut} events need negatives ({last - cut}, K): got shape {drawn.shape}")
        src, t = history.src[cut:last], history.t[cut:last]
        scores = scorer(history, src, np.concatenate([history.dst[cut:last, None], drawn], 1), t)
        found.append((scores[:, 0], scores[:, 1:], drawn >= 0))
        history.see(last)
    return Scores(*(np.concatenate(each) for each in zip(*found, strict=True)))
