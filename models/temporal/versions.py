"""Versions of nodes inside a batch: what replay and exact read instead of the state before the batch.

A version is a row of the state's fields (memory, and the message that waits), so that reading it recomputes one update with
the current parameters, whose inputs are constant. The rows of the state itself are versions 0 .. N - 1, those here follow.
"""

import numpy as np
import torch

from distseq.models.temporal.state import Fields, State


class Versions:
    """V versions, sorted by node and then by the order (of the micro-batch or event) after which each holds.

    nodes, order: (V,) int64. fields: rows (V, ...). orders: the largest order + 1.
    """

    def __init__(self, state: State, nodes: np.ndarray, order: np.ndarray, fields: Fields, orders: int) -> None:
        self._state, self.nodes, self.fields, self._orders = state, nodes, fields, orders
        self._key = nodes * orders + order

    @classmethod
    def none(cls, state: State) -> "Versions":
        """No versions: every read is of the state before the batch."""
        return cls(state, np.zeros(0, np.int64), np.zeros(0, np.int64), {}, 1)

    def locate(self, nodes: np.ndarray, order: np.ndarray) -> np.ndarray:
        """Row ids (...): of each node the last version before that order, else its row of the state."""
        if not len(self._key):
            return nodes
        at = np.searchsorted(self._key, nodes * self._orders + order) - 1
        inside = (at >= 0) & (self.nodes[at] == nodes)
        return np.where(inside, len(self._state) + at, nodes)

    def rows(self, ids: np.ndarray) -> Fields:
        """The fields (R, ...) of row ids (R,), sorted."""
        start = int(np.searchsorted(ids, len(self._state)))
        raw = self._state.rows(ids[:start])
        if start == len(ids):
            return raw
        at = torch.from_numpy(ids[start:] - len(self._state))
        inner = {name: field.index_select(0, at) for name, field in self.fields.items()}
        return {name: torch.cat([field, inner[name]]) for name, field in raw.items()}

    def last(self) -> np.ndarray:
        """Indices of the last version of each node."""
        return np.flatnonzero(np.append(self.nodes[1:] != self.nodes[:-1], True)) if len(self.nodes) else self.nodes
