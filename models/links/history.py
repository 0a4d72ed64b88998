"""What has happened before an event, as counts and times of nodes and of pairs. Shapes: E events, n of them, K candidates."""

from typing import Protocol

import numpy as np

NEVER = np.iinfo(np.int64).min  # the time of what has not happened


class Seen(Protocol):
    """What scorers read of some earlier events of a stream: src are (n,), candidates (n, K), and so are the numbers of each."""

    def pair_count(self, src: np.ndarray, candidates: np.ndarray) -> np.ndarray: ...

    def pair_time(self, src: np.ndarray, candidates: np.ndarray) -> np.ndarray: ...

    def pair_event(self, src: np.ndarray, candidates: np.ndarray) -> np.ndarray: ...

    def dst_count(self, candidates: np.ndarray) -> np.ndarray: ...

    def dst_time(self, candidates: np.ndarray) -> np.ndarray: ...

    def src_count(self, src: np.ndarray) -> np.ndarray: ...

    def src_event(self, src: np.ndarray) -> np.ndarray: ...


class History:
    """Counts and latest times over the events of a stream that have been seen so far; at first none.

    Pairs of the whole stream are numbered at the start, so that their counts are an array; nothing else is read ahead. Events are
    seen in order, once each.

    >>> history = History(np.array([0, 0, 1]), np.array([2, 3, 2]), np.array([5, 6, 8]))
    >>> history.see(2)
    >>> history.pair_count(np.array([0, 1]), np.array([[2, 4], [2, 3]])).tolist()
    [[1, 0], [0, 0]]
    """

    def __init__(self, src: np.ndarray, dst: np.ndarray, t: np.ndarray) -> None:
        if not len(src) == len(dst) == len(t):
            raise ValueError(
                f"src, dst and t must have one number for each event: got {len(src)}, {len(dst)}, {len(t)}"
            )
        self.src, self.dst, self.t = (np.asarray(each, np.int64) for each in (src, dst, t))
        nodes = int(max(self.src.max(initial=-1), self.dst.max(initial=-1))) + 1
        self.nodes, self.seen = nodes, 0
        self._keys, self._pair = np.unique(self.src * nodes + self.dst, return_inverse=True)
        # The last pair stands for all that never occur in the stream.
        self._pair_count, self._pair_time = _blank(len(self._keys) + 1)
        self._pair_event = np.full(len(self._keys) + 1, -1)
        self._dst_count, self._dst_time = _blank(nodes + 1)
        self._src_count, _ = _blank(nodes + 1)
        self._src_event = np.full(nodes + 1, -1)

    def see(self, end: int) -> None:
        """Adds the events up to `end`. ValueError for one that was seen already."""
        if not self.seen <= end <= len(self.src):
            raise ValueError(f"events are seen in order: {self.seen} of {len(self.src)} are, got end={end}")
        new = slice(self.seen, end)
        self.seen = end
        for count, time, at in (
            (self._pair_count, self._pair_time, self._pair[new]),
            (self._dst_count, self._dst_time, self.dst[new]),
        ):
            np.add.at(count, at, 1)
            # Times are in order: of several events of one pair the last assignment, the latest, stays.
            time[at] = self.t[new]
        np.add.at(self._src_count, self.src[new], 1)
        self._pair_event[self._pair[new]] = self._src_event[self.src[new]] = np.arange(new.start, end)

    def pair_count(self, src: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """(n, K) int64: events of src (n,) with each candidate (n, K)."""
        return _at(self._pair_count, self._pairs(src, candidates))

    def pair_time(self, src: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """(n, K) int64: the time of the latest event of src with each candidate, or NEVER."""
        return _at(self._pair_time, self._pairs(src, candidates))

    def pair_event(self, src: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """(n, K) int64: the index of the latest event of src with each candidate, or -1."""
        return _at(self._pair_event, self._pairs(src, candidates))

    def dst_count(self, candidates: np.ndarray) -> np.ndarray:
        """(n, K) int64: events that had each candidate as their destination."""
        return _at(self._dst_count, self._known(candidates))

    def dst_time(self, candidates: np.ndarray) -> np.ndarray:
        """(n, K) int64: the time of the latest event that had each candidate as its destination, or NEVER."""
        return _at(self._dst_time, self._known(candidates))

    def src_count(self, src: np.ndarray) -> np.ndarray:
        """(n,) int64: events that had src as their source."""
        return _at(self._src_count, self._known(src))

    def src_event(self, src: np.ndarray) -> np.ndarray:
        """(n,) int64: the index of the latest event that had src as its source, or -1."""
        return _at(self._src_event, self._known(src))

    def _known(self, ids: np.ndarray) -> np.ndarray:
        # Ids of no event share the last, blank place.
        return np.where((ids >= 0) & (ids < self.nodes), ids, self.nodes)

    def _pairs(self, src: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """(n, K): numbers of pairs."""
        known = (candidates >= 0) & (candidates < self.nodes)
        key = src[:, None] * self.nodes + np.where(known, candidates, 0)
        at = np.searchsorted(self._keys, key)
        there = known & (self._keys[np.minimum(at, len(self._keys) - 1)] == key) if len(self._keys) else known & False
        return np.where(there, at, len(self._keys))


def _blank(size: int) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(size, np.int64), np.full(size, NEVER)


def _at(table: np.ndarray, places: np.ndarray) -> np.ndarray:
    found: np.ndarray = table[places]
    return found
