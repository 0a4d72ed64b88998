"""Inductive evaluation: events that touch nodes which training has not seen. Shapes: E events."""

from typing import NamedTuple

import numpy as np

from distseq.models.links.keyed import bits


class Inductive(NamedTuple):
    """Of the events of a stream."""

    train: np.ndarray  # (E,) bool: training events that touch no held-out node
    new: np.ndarray  # (E,) bool: later events that touch a node which these do not


def new_node_events(src: np.ndarray, dst: np.ndarray, train: np.ndarray) -> np.ndarray:
    """(E,) bool: events outside training with a source or destination that no training event touches. train: (E,) bool.

    >>> src, dst = np.array([0, 1, 0, 2]), np.array([3, 3, 4, 3])
    >>> new_node_events(src, dst, np.array([True, True, False, False])).tolist()
    [False, False, True, True]
    """
    known = np.zeros(int(max(np.max(src, initial=-1), np.max(dst, initial=-1))) + 1, bool)
    known[src[train]] = known[dst[train]] = True
    fresh: np.ndarray = ~train & ~(known[src] & known[dst])
    return fresh


def held_out(src: np.ndarray, dst: np.ndarray, train: np.ndarray, *, seed: int, share: float = 0.1) -> Inductive:
    """TGN's new-node variant: a share of the nodes is held out of training, drawn from those of later events.

    train: (E,) bool, the training events of the transductive split. The number of held-out nodes is that share of all nodes of
    the stream, rounded down, at most as many as later events have. ValueError for a share outside 0 .. 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share of held-out nodes must be from 0 to 1: got {share}")
    later = np.unique(np.r_[src[~train], dst[~train]])
    count = int(share * len(np.unique(np.r_[src, dst])))
    chosen = later[np.argsort(bits(seed, 0, later, np.zeros(1, np.int64)))[:count]]
    kept = train & ~(np.isin(src, chosen) | np.isin(dst, chosen))
    return Inductive(kept, ~train & new_node_events(src, dst, kept))
