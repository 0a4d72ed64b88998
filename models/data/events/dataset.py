"""`events:NAME`: the events of one part of a stream as a data set, for learners that are temporal models."""

import hashlib
import os
from collections.abc import Mapping
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch

from distseq.models.data.dataset import check_ids
from distseq.models.data.events.data import EventData
from distseq.models.data.events.readers.registry import open_events
from distseq.models.data.events.split import TEST, VAL, Split, chronological
from distseq.models.data.events.stream import EventStream

PARTS = ("training", "validation", "test")
# Data that some learner of this process uses: a stream and its index of neighbors are held once.
_OPEN: WeakValueDictionary[tuple[Any, ...], EventData] = WeakValueDictionary()


class Events:
    """The training, validation or test events of a stream: sample i is the part's i-th event.

    data: the events, with their own split or a chronological one at the shares `val` and `test` (models.data.events.split).
    options: how they are evaluated (distseq.models.temporal.Protocol), for a validation or test part. ValueError for a part that
    is none.

    >>> events = Events(open_events("flights"))
    >>> len(events), events.range
    (28001, slice(0, 28001, None))
    """

    def __init__(
        self,
        data: EventData | EventStream,
        part: str = "training",
        *,
        val: float = VAL,
        test: float = TEST,
        **options: Any,
    ) -> None:
        if part not in PARTS:
            raise ValueError(f"part must be one of {', '.join(PARTS)}: got {part!r}")
        self.source = data if isinstance(data, EventData) else EventData(data)
        self.stream: EventStream = self.source.stream
        self.split: Split = self.source.split or chronological(self.stream, val, test)
        self.part, self.options = part, options
        self.range: slice = {"training": self.split.train, "validation": self.split.val, "test": self.split.test}[part]
        own = (self.stream.fingerprint, self.split, part, sorted(options.items()))
        self.fingerprint = hashlib.sha256(repr(own).encode()).hexdigest()

    def __len__(self) -> int:
        return len(range(len(self.stream))[self.range])

    def other(self, part: str, **options: Any) -> "Events":
        """Another part of the same stream, with the same split."""
        return Events(EventData(self.stream, self.split, self.source.negatives), part, **options)

    def batch(self, indices: np.ndarray) -> dict[str, torch.Tensor]:
        """src, dst and t (B,) int64, and message (B, F) and label (B,) where there are such."""
        check_ids(indices, len(self))
        at = indices + self.range.start
        return {name: torch.from_numpy(np.take(array, at, axis=0)) for name, array in self.stream.arrays().items()}


def open_events_data(
    name: str, part: str = "training", reader: Mapping[str, Any] | None = None, **options: Any
) -> Events:
    """The data set `events:NAME`; `reader` has the arguments of what opens it. ValueError for whatever is wrong.

    >>> len(open_events_data("flights", "test"))
    6000
    """
    reader = dict(reader or {})
    path = name.partition(":")[2]
    status = os.stat(path) if path and os.path.exists(path) else None
    key = (name, repr(sorted(reader.items())), status and (status.st_mtime_ns, status.st_size))
    data = _OPEN.get(key)
    if data is None:
        _OPEN[key] = data = open_events(name, **reader)
    return Events(data, part, **options)
