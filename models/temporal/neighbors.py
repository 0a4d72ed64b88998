"""The most recent neighbors of a node before a time: a pure function of a static index over the whole stream.

Shapes: E events, N nodes, Q queries, k neighbors.
"""

from typing import NamedTuple

import numpy as np


class Recent(NamedTuple):
    """Neighbors of Q nodes, the most recent first. Where `valid` is False there is none, and the other arrays hold 0."""

    nodes: np.ndarray  # (Q, k) int64
    events: np.ndarray  # (Q, k) int64
    times: np.ndarray  # (Q, k) int64
    valid: np.ndarray  # (Q, k) bool


class Neighbors:
    """Temporal adjacency in compressed rows (T-CSR): for each node its events in order of their index, which is that of time.

    src, dst, t: (E,) int64, t not decreasing. An event is in the row of both its endpoints; a self-loop is there once.
    ValueError if N times E exceeds int64.

    >>> import numpy as np
    >>> index = Neighbors(np.array([0, 0, 1]), np.array([2, 1, 2]), np.array([5, 7, 7]), 3)
    >>> found = index.recent(np.array([2, 2]), np.array([7, 8]), 2)
    >>> found.nodes.tolist(), found.valid.tolist()
    ([[0, 0], [1, 0]], [[True, False], [True, True]])
    """

    def __init__(self, src: np.ndarray, dst: np.ndarray, t: np.ndarray, nodes: int) -> None:
        self._stride, self._t = max(1, len(src)), t
        if nodes * self._stride >= 2**63 - 1:
            raise ValueError(f"{nodes} nodes times {len(src)} events exceeds the keys of int64")
        event, proper = np.arange(len(src)), src != dst
        key = np.concatenate([src * self._stride + event, (dst * self._stride + event)[proper]])
        order = np.argsort(key)
        self._key = key[order]
        self._event = np.concatenate([event, event[proper]])[order]
        self._other = np.concatenate([dst, src[proper]])[order]
        self._first = np.searchsorted(self._key, np.arange(nodes) * self._stride)

    def recent(self, nodes: np.ndarray, times: np.ndarray, k: int) -> Recent:
        """The k last events of each node with t' < t strictly; among simultaneous ones those with larger index come first."""
        return self.before(nodes, np.searchsorted(self._t, times), k)

    def before(self, nodes: np.ndarray, event: np.ndarray, k: int) -> Recent:
        """The k last events of each node (Q,) whose index is below `event` (Q,)."""
        end = np.searchsorted(self._key, nodes * self._stride + event)
        at = end[:, None] - np.arange(1, k + 1)
        valid = at >= self._first[nodes][:, None]
        at[~valid] = 0
        if not len(self._key):
            nothing = np.zeros(at.shape, np.int64)
            return Recent(nothing, nothing, nothing, valid)
        found = (np.where(valid, column[at], 0) for column in (self._other, self._event))
        other, events = found
        return Recent(other, events, np.where(valid, self._t[events], 0), valid)
