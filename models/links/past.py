"""What has happened before each of many events, all at once: the numbers of History without going through the events.

Shapes: E events, n of them, K candidates.
"""

from copy import copy
from typing import NamedTuple

import numpy as np

from distseq.models.links.baselines import Scorer
from distseq.models.links.history import NEVER
from distseq.models.links.streaming import Negatives, Scores

# Events that are scored at once: their features of 50 candidates take some 10 MB.
CHUNK = 4096


class _Occurrences(NamedTuple):
    """The events of each of some numbers (of nodes, or of pairs), in order."""

    key: np.ndarray  # (E,) number * E + event, sorted
    first: np.ndarray  # (numbers + 1,) where the events of each number begin

    @classmethod
    def of(cls, numbers: np.ndarray, size: int) -> "_Occurrences":
        E = max(1, len(numbers))
        key = np.sort(numbers * E + np.arange(len(numbers)))
        return cls(key, np.searchsorted(key, np.arange(size + 1) * E))

    def before(self, numbers: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(...) the number of events of each before `seen`, and the index of the last one, -1 if there is none."""
        E = max(1, len(self.key))
        at = np.searchsorted(self.key, numbers * E + seen)
        count = at - self.first[numbers]
        latest = self.key[np.maximum(at - 1, 0)] % E if len(self.key) else at
        return count, np.where(count > 0, latest, -1)


class Past:
    """The events of a stream up to a limit of each row's own, for scorers: its methods are those of History, but `see`.

    >>> past = Past(np.array([0, 0, 1]), np.array([2, 3, 2]), np.array([5, 6, 8]))
    >>> past.before(np.array([1, 2])).pair_count(np.array([0, 0]), np.array([[2, 3], [2, 3]])).tolist()
    [[1, 0], [1, 1]]
    """

    def __init__(self, src: np.ndarray, dst: np.ndarray, t: np.ndarray) -> None:
        self.src, self.dst, self.t = (np.asarray(each, np.int64) for each in (src, dst, t))
        self._nodes = int(max(self.src.max(initial=-1), self.dst.max(initial=-1))) + 1
        self._keys, pair = np.unique(self.src * self._nodes + self.dst, return_inverse=True)
        # The last number, of no event, stands for all pairs and nodes that never occur.
        self._of_pair = _Occurrences.of(pair.reshape(-1), len(self._keys) + 1)
        self._of_src, self._of_dst = (_Occurrences.of(each, self._nodes + 1) for each in (self.src, self.dst))
        self._seen = np.zeros(0, np.int64)

    def before(self, events: np.ndarray) -> "Past":
        """The same with all events below those of each row (n,)."""
        made = copy(self)
        made._seen = np.asarray(events, np.int64)
        return made

    def pair_count(self, src: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        return self._pair(src, candidates)[0]

    def pair_event(self, src: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        return self._pair(src, candidates)[1]

    def pair_time(self, src: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        return self._time(self.pair_event(src, candidates))

    def dst_count(self, candidates: np.ndarray) -> np.ndarray:
        return self._of_dst.before(self._known(candidates), self._seen[:, None])[0]

    def dst_time(self, candidates: np.ndarray) -> np.ndarray:
        return self._time(self._of_dst.before(self._known(candidates), self._seen[:, None])[1])

    def src_count(self, src: np.ndarray) -> np.ndarray:
        return self._of_src.before(self._known(src), self._seen)[0]

    def src_event(self, src: np.ndarray) -> np.ndarray:
        return self._of_src.before(self._known(src), self._seen)[1]

    def _pair(self, src: np.ndarray, candidates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        known = self._known(candidates) < self._nodes
        key = src[:, None] * self._nodes + np.where(known, candidates, 0)
        at = np.searchsorted(self._keys, key)
        found = known & (self._keys[np.minimum(at, len(self._keys) - 1)] == key) if len(self._keys) else known & False
        return self._of_pair.before(np.where(found, at, len(self._keys)), self._seen[:, None])

    def _known(self, ids: np.ndarray) -> np.ndarray:
        return np.where((ids >= 0) & (ids < self._nodes), ids, self._nodes)

    def _time(self, event: np.ndarray) -> np.ndarray:
        return np.where(event >= 0, self.t[np.maximum(event, 0)], NEVER)


def scored(scorer: Scorer, past: Past, negatives: Negatives, begin: int, end: int, *, batch: int = 200) -> Scores:
    """The scores of `streamed` (distseq.models.links.streaming), for any batch in the same time."""
    found = []
    for cut in range(begin, end, CHUNK):
        events = np.arange(cut, min(cut + CHUNK, end))
        drawn = negatives(cut - begin, cut - begin + len(events))
        candidates = np.concatenate([past.dst[events][:, None], drawn], 1)
        seen = past.before(begin + (events - begin) // batch * batch)
        scores = scorer(seen, past.src[events], candidates, past.t[events])
        found.append((scores[:, 0], scores[:, 1:], drawn >= 0))
    return Scores(*(np.concatenate(each) for each in zip(*found, strict=True)))
