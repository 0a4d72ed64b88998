"""An event stream with what a data set brings beside it: its split and its published negatives."""

from dataclasses import dataclass

import numpy as np

from distseq.models.data.events.split import Split
from distseq.models.data.events.stream import EventStream


@dataclass(frozen=True, eq=False)
class EventData:
    """What a reader returns.

    split: the data set's own, None if it has none (`chronological` makes one). negatives: (test events, K) int64, the
    destinations that each test event is ranked against; None if none are published. ValueError if they do not fit the stream.

    >>> stream = EventStream(src=np.array([0, 1, 0]), dst=np.array([2, 3, 2]), t=np.array([5, 5, 9]))
    >>> EventData(stream, Split(1, 2, 3), negatives=np.array([[3]])).split.test
    slice(2, 3, None)
    """

    stream: EventStream
    split: Split | None = None
    negatives: np.ndarray | None = None  # (test events, K) int64

    def __post_init__(self) -> None:
        if self.split is not None and self.split.events != len(self.stream):
            raise ValueError(f"the split is one of {self.split.events} events, and there are {len(self.stream)}")
        if self.negatives is not None:
            self.__dict__["negatives"] = self._checked(np.asarray(self.negatives))

    def _checked(self, negatives: np.ndarray) -> np.ndarray:
        if self.split is None:
            raise ValueError("negatives of test events need a split")
        test = self.split.events - self.split.test.start
        if negatives.ndim != 2 or negatives.dtype.kind not in "iu" or len(negatives) != test:
            raise ValueError(
                f"negatives must be whole numbers of shape ({test} test events, K): got {negatives.dtype} {negatives.shape}"
            )
        outside = (negatives < 0) | (negatives >= self.stream.nodes)
        if outside.any():
            row = int(np.argmax(outside.any(1)))
            raise ValueError(
                f"negatives of test event {row} hold {negatives[row][outside[row]][0]}, "
                f"which is no node: they are 0 .. {self.stream.nodes - 1}"
            )
        return negatives.astype(np.int64, copy=False)
