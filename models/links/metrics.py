"""Average precision and the area under the ROC curve of links, pooled over events or as a mean over batches.

Shapes: n positives, m negatives.
"""

from typing import NamedTuple

import numpy as np


class Curve(NamedTuple):
    """Average precision and the area under the ROC curve."""

    ap: float
    auc: float


def pooled(positive: np.ndarray, negative: np.ndarray) -> Curve:
    """AP and AUC of the scores of n positives against those of m negatives, arrays of any shape.

    AP is the sum over distinct scores, in falling order, of the growth of recall times the precision there; AUC is the share of
    pairs that are ranked rightly, ties counted by half. Both are as scikit-learn defines them. ValueError without a positive or a
    negative, or for a score that is NaN.

    >>> pooled(np.array([0.9, 0.4]), np.array([0.4, 0.1]))
    Curve(ap=0.8333333333333333, auc=0.875)
    """
    sizes = np.size(positive), np.size(negative)
    if not all(sizes):
        raise ValueError(f"AP and AUC need positives and negatives: got {sizes[0]} and {sizes[1]}")
    scores = np.concatenate([np.ravel(positive), np.ravel(negative)])
    if np.isnan(scores).any():
        raise ValueError(f"score {int(np.argmax(np.isnan(scores)))} of {len(scores)} is NaN: scores must have an order")
    # Equal scores have one place in the order: there is no threshold between them.
    distinct, place = np.unique(scores, return_inverse=True)
    hits = np.bincount(place[: sizes[0]], minlength=len(distinct))[::-1]
    misses = np.bincount(place[sizes[0] :], minlength=len(distinct))[::-1]
    above, below = np.cumsum(hits), np.cumsum(misses)
    ap = float((hits * (above / (above + below))).sum() / sizes[0])
    # A positive beats the negatives that come after its place, and half of those in it.
    beaten = sizes[1] - below + 0.5 * misses
    return Curve(ap, float((hits * beaten).sum() / (sizes[0] * sizes[1])))


def mean_over_batches(positive: np.ndarray, negative: np.ndarray, batch: int = 200) -> Curve:
    """Means of AP and AUC over consecutive batches of events, as TGN reports them; the last, smaller batch counts as much.

    positive: (n,); negative: (n,) or (n, m), rows of the same events. Not what `pooled` gives: scores of different batches are
    never compared. ValueError as of `pooled`, or if the numbers of rows differ.
    """
    if len(positive) != len(negative):
        raise ValueError(f"each positive needs a row of negatives: got {len(positive)} and {len(negative)}")
    if batch < 1:
        raise ValueError(f"a batch needs at least one event: got {batch}")
    cuts = range(0, max(1, len(positive)), batch)
    found = [pooled(positive[cut : cut + batch], negative[cut : cut + batch]) for cut in cuts]
    return Curve(*(float(np.mean(values)) for values in zip(*found, strict=True)))
