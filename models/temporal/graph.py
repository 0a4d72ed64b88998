"""An event stream as a temporal model reads it: times from the stream's beginning, features on demand, neighbors."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from distseq.models.temporal.neighbors import Neighbors


class Graph:
    """A stream with its static index of neighbors.

    stream: a distseq.models.data.events.EventStream, or what has its attributes. `training`: the number of its first events, by
    default all, over which the mean time between two events is taken, by which models divide all time differences: raw seconds
    would spread the gradients of time encodings over six decades, and a mean over later events would let them change
    earlier scores. ValueError unless 1 <= training <= E.
    """

    def __init__(self, stream: Any, training: int | None = None) -> None:
        used = len(stream) if training is None else training
        if not 1 <= used <= len(stream):
            raise ValueError(f"training must be 1 .. {len(stream)} events of the stream: got {used}")
        self.src, self.dst, self.label, self._message = stream.src, stream.dst, stream.label, stream.message
        self.nodes, self.destinations, self.events = stream.nodes, stream.destinations, len(stream)
        self.time = stream.t - stream.t[0]  # (E,) int64
        # 1 where all events are simultaneous: every difference is 0 then.
        self.interval = float(self.time[used - 1]) / max(1, used - 1) or 1.0
        self.neighbors = Neighbors(self.src, self.dst, self.time, self.nodes)
        self.width = 0 if self._message is None else self._message.shape[1]

    def features(self, events: np.ndarray, dtype: torch.dtype) -> Tensor:
        """Message features (..., F) of events (...)."""
        if self._message is None:
            return torch.zeros(*events.shape, 0, dtype=dtype)
        return torch.from_numpy(np.take(self._message, events, axis=0)).to(dtype)

    def scaled(self, seconds: Tensor, dtype: torch.dtype) -> Tensor:
        """Time differences (...) int64 in units of the mean time between two events."""
        return (seconds.to(torch.float64) / self.interval).to(dtype)

    def first_simultaneous(self, events: np.ndarray) -> np.ndarray:
        """The first event with the time of each event: exactly those before it have t' < t."""
        found: np.ndarray = np.searchsorted(self.time, self.time[events])
        return found

    def ends(self, batch: slice) -> np.ndarray:
        """(2 b,) the endpoints of a batch's events in order: src of the first, dst of the first, src of the second."""
        return np.stack([self.src[batch], self.dst[batch]], 1).reshape(-1)

    def last_events(self, batch: slice) -> tuple[np.ndarray, np.ndarray]:
        """The nodes (V,) of a batch, sorted, and the last event (V,) of each."""
        ends = self.ends(batch)
        nodes, back = np.unique(ends[::-1], return_index=True)
        return nodes, batch.start + (len(ends) - 1 - back) // 2
