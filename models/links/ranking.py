"""The rank of each positive among its own negatives, and what is averaged over ranks: MRR and hits@k.

Shapes: n events, K negatives of each.
"""

import numpy as np


def ranks(positive: np.ndarray, negative: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """(n,) float64: 1 + (#{negatives > positive} + #{negatives >= positive}) / 2.

    A tie counts by half, as in TGB and TGB-Seq: it is the middle of the best and the worst rank that the order of equal scores
    could give. positive: (n,); negative: (n, K); valid: (n, K) bool, false where a row has no negative. ValueError for other
    shapes, or a score that is NaN.

    >>> ranks(np.array([0.5, 0.5]), np.array([[0.9, 0.5, 0.1], [0.4, 0.3, 0.2]])).tolist()
    [2.5, 1.0]
    """
    positive, negative = np.asarray(positive), np.asarray(negative)
    if positive.ndim != 1 or negative.ndim != 2 or len(positive) != len(negative):
        raise ValueError(f"ranks need scores (n,) and (n, K): got {positive.shape} and {negative.shape}")
    shown = np.ones(negative.shape, bool) if valid is None else np.asarray(valid, bool)
    if shown.shape != negative.shape:
        raise ValueError(f"valid must have the shape of the negatives {negative.shape}: got {shown.shape}")
    # A comparison with NaN is false, which would make it the best of ranks.
    if np.isnan(positive).any() or np.isnan(negative[shown]).any():
        raise ValueError("ranks need scores that have an order: one is NaN")
    own = positive[:, None]
    above = ((negative > own) & shown).sum(1)
    at_least = ((negative >= own) & shown).sum(1)
    rank: np.ndarray = 1 + 0.5 * (above + at_least)
    return rank


def mrr(rank: np.ndarray) -> float:
    """The mean of 1 / rank. ValueError without ranks.

    >>> mrr(np.array([1.0, 2.0]))
    0.75
    """
    return float((1 / _some(rank)).mean())


def hits(rank: np.ndarray, k: int) -> float:
    """The share of ranks that are at most k. ValueError without ranks.

    >>> hits(np.array([1.0, 2.5]), 2)
    0.5
    """
    return float((_some(rank) <= k).mean())


def _some(rank: np.ndarray) -> np.ndarray:
    if not np.size(rank):
        raise ValueError("a mean over ranks needs at least one event")
    return np.asarray(rank)
