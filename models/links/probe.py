"""The count-feature probe: logistic regression on a few counts, which any model of memory should beat.

Shapes: n events, K candidates of each, F features.
"""

from typing import NamedTuple

import numpy as np

from distseq.models.links.history import NEVER, History, Seen
from distseq.models.links.streaming import Negatives

FEATURES = (
    "log of 1 + events of the pair",
    "share of the source's events that the pair has",
    "destination is the source's latest",
    "log of 1 + time since the pair's latest event, if any",
    "pair has occurred",
    "log of 1 + events of the destination",
    "log of 1 + time since the destination's latest event, if any",
)
# Of the sum of squared weights of standardized features, for each example: keeps weights finite where a feature separates.
RIDGE = 1e-4
NEWTON = 30  # steps at most; some 8 are taken
CONVERGED = 1e-8


def features(history: Seen, src: np.ndarray, candidates: np.ndarray, t: np.ndarray) -> np.ndarray:
    """(n, K, F) float64: what FEATURES names."""
    count = history.pair_count(src, candidates)
    total = history.src_count(src)[:, None]
    event = history.pair_event(src, candidates)
    columns = [
        np.log1p(count),
        count / np.maximum(total, 1),
        (event == history.src_event(src)[:, None]) & (event >= 0),
        _since(t, history.pair_time(src, candidates)),
        count > 0,
        np.log1p(history.dst_count(candidates)),
        _since(t, history.dst_time(candidates)),
    ]
    return np.stack([np.asarray(each, np.float64) for each in columns], -1)


def _since(t: np.ndarray, latest: np.ndarray) -> np.ndarray:
    before = np.where(latest == NEVER, np.asarray(t)[:, None], latest)
    return np.log1p((np.asarray(t)[:, None] - before).astype(np.float64))


class Probe(NamedTuple):
    """A fitted probe; called like the other baselines, it gives log-odds (n, K)."""

    weights: np.ndarray  # (F,), of features as they are
    bias: float

    def __call__(self, history: Seen, src: np.ndarray, candidates: np.ndarray, t: np.ndarray) -> np.ndarray:
        scores: np.ndarray = features(history, src, candidates, t) @ self.weights + self.bias
        return scores


def fitted_probe(history: History, negatives: Negatives, begin: int, end: int, *, batch: int = 200) -> Probe:
    """Fits the probe to the training events begin .. end - 1 and their negatives, streaming as in an evaluation.

    negatives: of the events at these places of the range. The events before `begin` are seen first, and all up to `end`
    afterwards. ValueError without events.
    """
    if not begin < end:
        raise ValueError(f"the probe needs training events: got {begin} .. {end - 1}")
    history.see(begin)
    examples, happened = [], []
    for cut in range(begin, end, batch):
        last = min(cut + batch, end)
        drawn = negatives(cut - begin, last - begin)
        candidates = np.concatenate([history.dst[cut:last, None], drawn], 1)
        shown = candidates >= 0
        first = np.zeros(candidates.shape, bool)
        first[:, 0] = True
        examples.append(features(history, history.src[cut:last], candidates, history.t[cut:last])[shown])
        happened.append(first[shown])
        history.see(last)
    return logistic(np.concatenate(examples), np.concatenate(happened))


def logistic(examples: np.ndarray, happened: np.ndarray) -> Probe:
    """Logistic regression of happened (n,) bool on examples (n, F), by Newton's method with a small ridge."""
    mean, scale = examples.mean(0), examples.std(0)
    # A feature that never varies gets no weight.
    scale = np.where(scale > 0, scale, np.inf)
    x = np.concatenate([(examples - mean) / scale, np.ones((len(examples), 1))], 1)
    # The last weight, the bias, is free.
    ridge = np.r_[np.full(x.shape[1] - 1, RIDGE * len(x)), 0.0]
    weights = np.zeros(x.shape[1])
    for _ in range(NEWTON):
        p = 0.5 * (1 + np.tanh(0.5 * (x @ weights)))
        gradient = x.T @ (p - happened) + ridge * weights
        curvature = (x * (p * (1 - p))[:, None]).T @ x + np.diag(ridge)
        # lstsq: where a class is missing or all features are constant, the curvature has no inverse.
        step = np.linalg.lstsq(curvature, gradient, rcond=None)[0]
        weights = weights - step
        if np.abs(step).max() < CONVERGED:
            break
    own = weights[:-1] / scale
    return Probe(own, float(weights[-1] - own @ mean))
