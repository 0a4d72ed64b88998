"""The destinations that events are compared with, keyed by event: the same on every host, however events are cut into parts.

Shapes: P events, K candidates of each.
"""

from typing import Any

import numpy as np

from distseq.models.links.historical import HistoricalNegatives
from distseq.models.links.uniform import uniform_negatives
from distseq.models.temporal.evaluation.protocol import Protocol

# Keys in the place of an epoch, which an evaluation does not have. 1 and 2 are taken by historical negatives.
RANKED, PAIRED = 0, 3


class Candidates:
    """Negatives of the events of a range, by a protocol.

    stream: a distseq.models.data.events.EventStream. scored: the events that are evaluated; every k-th from the first is ranked.
    training: the number of the stream's first events that are training events, for kind "historical". published: (len(scored),
    K), for kind "published". ValueError for a range that is empty or outside the stream, and for what a kind needs.

    >>> from distseq.models.data.events import EventStream
    >>> stream = EventStream(np.array([0, 1, 0]), np.array([2, 3, 2]), np.arange(3))
    >>> candidates = Candidates(stream, range(1, 3), Protocol(negatives=2, every=2))
    >>> candidates.against(np.array([1])).tolist(), candidates.ranked(np.array([1, 2])).tolist()
    ([[2, 2]], [True, False])
    """

    def __init__(
        self,
        stream: Any,
        scored: range,
        protocol: Protocol,
        *,
        training: int | None = None,
        published: np.ndarray | None = None,
    ) -> None:
        if scored.step != 1 or not 0 <= scored.start < scored.stop <= len(stream):
            raise ValueError(f"evaluation: events must be a range of the stream's {len(stream)} events: got {scored}")
        self.scored, self.protocol = scored, protocol
        self._dst, self._destinations = stream.dst, stream.destinations
        self._published, self._historical = None, None
        first, past = stream.destinations
        if protocol.kind == "historical":
            if training is None or not 0 < training <= len(stream):
                raise ValueError(
                    f"evaluation: kind 'historical' needs training, the first 1 .. {len(stream)} events: got {training}"
                )
            inside = slice(scored.start, scored.stop)
            self._historical = HistoricalNegatives(
                (stream.src[:training], stream.dst[:training]),
                (stream.src[inside], stream.dst[inside], stream.t[inside]),
                stream.destinations,
                protocol.negatives,
                seed=protocol.seed,
            )
        elif protocol.kind == "published":
            found = None if published is None else published.shape
            if published is None or len(published) != len(scored) or published.ndim != 2:
                raise ValueError(
                    f"evaluation: kind 'published' needs negatives ({len(scored)} evaluated events, K): got {found}"
                )
            self._published = published
        elif past - first < 2:
            raise ValueError(
                f"evaluation: kind 'uniform' needs two destinations to choose from: got {first} .. {past - 1}"
            )

    @property
    def width(self) -> int:
        """K, the number of columns of `against`."""
        if self._published is not None:
            return self._published.shape[1]
        return self.protocol.negatives if self._historical is None else self._historical.width

    def ranked(self, events: np.ndarray) -> np.ndarray:
        """(P,) bool: whether the event is ranked."""
        chosen: np.ndarray = (events - self.scored.start) % self.protocol.every == 0
        return chosen

    def paired(self, events: np.ndarray) -> np.ndarray:
        """(P,) one random destination for each event, which may be its own: TGN's, for AP."""
        return uniform_negatives(events, self._destinations, seed=self.protocol.seed, epoch=PAIRED)[:, 0]

    def against(self, events: np.ndarray) -> np.ndarray:
        """(P, K) destinations that each event is ranked against, -1 where there is none. events: of the range, sorted."""
        places = events - self.scored.start
        if self._published is not None:
            return np.asarray(self._published[places], np.int64)
        if self._historical is not None:
            begin, end = (int(places[0]), int(places[-1]) + 1) if len(places) else (0, 0)
            return self._historical(begin, end)[places - begin]
        count, seed = self.protocol.negatives, self.protocol.seed
        return uniform_negatives(
            events, self._destinations, count, seed=seed, epoch=RANKED, avoid=np.asarray(self._dst[events])
        )
