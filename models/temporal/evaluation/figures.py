"""Figures of an evaluation, from the rows of all its events. Shapes: N events, C columns."""

import numpy as np

from distseq.models.links.metrics import mean_over_batches, pooled
from distseq.models.links.ranking import hits, mrr
from distseq.models.temporal.evaluation.evaluate import OTHER, RANK, TRUE


def figures(rows: np.ndarray, *, labels: np.ndarray | None = None, new: np.ndarray | None = None) -> dict[str, float]:
    """The figures of rows (N, C) of `Evaluation`, put together in the order of events.

    Links: "loss" (as in training: the mean of -log p(event) - log(1 - p(random destination)), in nats), "ap" and "auc" of all
    events, "ap_by_batch" and "auc_by_batch" (means over 200 consecutive events each, as TGN reports), and "mrr" and "hits@10" of
    the events that are ranked.
    Classes, with labels (N,): "loss" (cross-entropy, in nats), "accuracy", and of two classes that both occur "ap" and "auc" of
    class 1.
    new: (N,) bool, the events of nodes that training has not seen; the same figures of these alone are added as "new_ap" and so
    on, if there are any. ValueError without rows, or for arrays that differ in length.

    >>> found = figures(np.array([[2.0, -1.0, 1.0], [0.5, 1.0, 4.0]]))
    >>> found["auc"], found["mrr"], found["hits@10"]
    (0.75, 0.625, 1.0)
    """
    for name, each in (("labels", labels), ("new", new)):
        if each is not None and len(each) != len(rows):
            raise ValueError(f"figures: {name} must have one number for each of {len(rows)} rows: got {len(each)}")
    if not len(rows):
        raise ValueError("figures: an evaluation needs at least one event")
    found = _links(rows) if labels is None else _classes(rows, labels)
    if new is not None and new.any():
        of_new = figures(rows[new], labels=None if labels is None else labels[new])
        found |= {f"new_{name}": value for name, value in of_new.items()}
    return found


def _links(rows: np.ndarray) -> dict[str, float]:
    true, other, rank = rows[:, TRUE], rows[:, OTHER], rows[:, RANK]
    found = {"loss": float((np.logaddexp(0, -true) + np.logaddexp(0, other)).mean())}
    found["ap"], found["auc"] = pooled(true, other)
    found["ap_by_batch"], found["auc_by_batch"] = mean_over_batches(true, other)
    ranked = rank[rank > 0]
    return found | ({"mrr": mrr(ranked), "hits@10": hits(ranked, 10)} if len(ranked) else {})


def _classes(rows: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    highest = rows.max(1)
    own = rows[np.arange(len(rows)), labels]
    loss = highest + np.log(np.exp(rows - highest[:, None]).sum(1)) - own
    found = {"loss": float(loss.mean()), "accuracy": float((rows.argmax(1) == labels).mean())}
    if rows.shape[1] == 2 and 0 < labels.sum() < len(labels):
        odds = rows[:, 1] - rows[:, 0]
        found["ap"], found["auc"] = pooled(odds[labels == 1], odds[labels == 0])
    return found
