"""Negatives of TGB's protocol `hist_rnd`: half of what the source has seen in training, half of what it has not.

Shapes: n events, K negatives of each, R candidates of all rows one after the other; D destinations, as offsets from the first.
"""

from collections.abc import Sequence

import numpy as np

from distseq.models.links.keyed import bits, whole_numbers

# Keys of the two halves, in the place of an epoch: evaluation has none.
SEEN, UNSEEN = 1, 2
# A set of at least this share of the others is drawn by sorting them all; a smaller one by drawing until there are enough.
DENSE = 0.25


class HistoricalNegatives:
    """TGB's negatives of the events of a split (Huang et al. 2023), keyed by event: the same however batches are cut.

    Of an event (s, d, t), up to count * share are drawn from the distinct destinations of s in training, without those of events
    of the split with the same s and t; the rest from the destinations that s has neither in training nor in such events. Both
    without replacement. Where count exceeds all that there are, they are all taken.

    train: (src, dst) of the training events. split: (src, dst, t) of all events of the split, in order. destinations: (first,
    one past the last). ValueError for a count below 1, or a destination outside.

    >>> train, split = (np.array([0, 0]), np.array([2, 3])), (np.array([0]), np.array([3]), np.array([9]))
    >>> HistoricalNegatives(train, split, (2, 6), count=2, seed=0)(0, 1).tolist()[0][0]  # seen, and not its own
    2
    """

    def __init__(
        self,
        train: tuple[np.ndarray, np.ndarray],
        split: tuple[np.ndarray, np.ndarray, np.ndarray],
        destinations: tuple[int, int],
        count: int,
        *,
        seed: int,
        share: float = 0.5,
    ) -> None:
        first, past = destinations
        if count < 1 or not 0 <= share <= 1:
            raise ValueError(f"hist_rnd needs count >= 1 and a share from 0 to 1: got count={count}, share={share}")
        for dst in (train[1], split[1]):
            outside = (dst < first) | (dst >= past)
            if outside.any():
                raise ValueError(f"destination {dst[np.argmax(outside)]} is not in {first} .. {past - 1}")
        self.first, self.size, self.count, self.seed = first, past - first, count, seed
        self.most_seen = int(count * share)
        self.src = np.asarray(split[0], np.int64)
        # Sorted (source, destination) and (moment, destination) pairs as single numbers, to be looked up by bisection.
        self._seen = np.unique(self._key(train[0], train[1] - first))
        self._moment = _moments(self.src, split[2])
        self._own = np.unique(self._key(self._moment, split[1] - first))

    @property
    def width(self) -> int:
        """Columns of the negatives: the number of negatives of an event, or of all destinations if these are fewer."""
        return min(self.count, self.size)

    def __call__(self, begin: int, end: int) -> np.ndarray:
        """(end - begin, width) int64 destinations of the events begin .. end - 1 of the split; -1 fills rows that have fewer."""
        events = np.arange(begin, min(end, len(self.src)))
        src, moment, n = self.src[events], self._moment[events], len(events)
        rows, candidates = self._pairs(self._seen, src)
        allowed = ~_in(self._own, self._key(moment[rows], candidates))
        seen = np.bincount(rows[allowed], minlength=n)
        own_rows, own = self._pairs(self._own, moment)
        unseen = self.size - np.bincount(own_rows, minlength=n) - seen
        whole = self.count >= seen + unseen
        from_seen = np.where(whole, 0, np.minimum(self.most_seen, seen))
        allowed &= from_seen[rows] > 0
        keys = bits(self.seed, SEEN, events[rows[allowed]], candidates[allowed])
        drawn = [_smallest(rows[allowed], candidates[allowed], keys, from_seen)]
        drawn += self._unseen(events, np.where(whole, 0, np.minimum(self.count - from_seen, unseen)), unseen)
        # All but its own: nothing is drawn.
        others = np.repeat(whole[:, None], self.size, 1)
        others[own_rows, own] = False
        return self._filled(n, [*drawn, np.nonzero(others)])

    def _unseen(self, events: np.ndarray, wanted: np.ndarray, there: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """(rows, candidates) of destinations that are neither seen in training nor the events' own, `wanted` of each row."""
        # The choice depends on the event alone, so neighbours in a batch change nothing.
        dense = wanted > DENSE * there
        rows = np.repeat(np.flatnonzero(dense), self.size)
        candidates = np.tile(np.arange(self.size), int(dense.sum()))
        allowed = self._fresh(events, rows, candidates)
        rows, candidates = rows[allowed], candidates[allowed]
        drawn = [_smallest(rows, candidates, bits(self.seed, UNSEEN, events[rows], candidates), wanted)]
        left = np.flatnonzero(~dense & (wanted > 0))
        if len(left):
            rows, candidates = self._drawn(events[left], wanted[left])
            drawn.append((left[rows], candidates))
        return drawn

    def _drawn(self, events: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The first `wanted` distinct destinations of each event's sequence of draws that are allowed."""
        slots = 2 * int(wanted.max()) + 8
        while True:
            draws = whole_numbers(bits(self.seed, UNSEEN, events[:, None], np.arange(slots)), self.size)
            rows, turn = np.repeat(np.arange(len(events)), slots), np.tile(np.arange(slots), len(events))
            candidates = draws.ravel()
            allowed = self._fresh(events, rows, candidates)
            # np.unique keeps the first of equal ones: the turn in which a destination is drawn first.
            _, at = np.unique(rows[allowed] * self.size + candidates[allowed], return_index=True)
            rows, candidates, turn = (each[allowed][at] for each in (rows, candidates, turn))
            if (np.bincount(rows, minlength=len(events)) >= wanted).all():
                return _smallest(rows, candidates, turn, wanted)
            # A longer sequence begins with the same draws, so its first distinct ones stay.
            slots *= 2

    def _fresh(self, events: np.ndarray, rows: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """(R,) bool: neither seen by the event's source in training nor its own."""
        seen = _in(self._seen, self._key(self.src[events][rows], candidates))
        fresh: np.ndarray = ~seen & ~_in(self._own, self._key(self._moment[events][rows], candidates))
        return fresh

    def _key(self, of: np.ndarray, destination: np.ndarray | int) -> np.ndarray:
        key: np.ndarray = np.asarray(of, np.int64) * self.size + destination
        return key

    def _pairs(self, keys: np.ndarray, of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(rows, destinations) of all pairs in sorted keys whose first is `of` (n,)."""
        begin, end = (np.searchsorted(keys, self._key(of + more, 0)) for more in (0, 1))
        rows = np.repeat(np.arange(len(of)), end - begin)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(end - begin) - (end - begin), end - begin)
        return rows, keys[begin[rows] + within] - self._key(of[rows], 0)

    def _filled(self, n: int, drawn: Sequence[tuple[np.ndarray, ...]]) -> np.ndarray:
        """(n, width): each row its candidates, in any order; -1 where it has no more."""
        rows, candidates = (np.concatenate(each) for each in zip(*drawn, strict=True))
        order = np.argsort(rows, kind="stable")
        found = np.full((n, self.width), -1, np.int64)
        found[rows[order], _places(rows[order])] = self.first + candidates[order]
        return found


def _moments(src: np.ndarray, t: np.ndarray) -> np.ndarray:
    """(n,) numbers that are equal for events of equal source and time."""
    times, when = np.unique(t, return_inverse=True)
    moment: np.ndarray = np.unique(src * len(times) + when, return_inverse=True)[1]
    return moment.astype(np.int64)


def _in(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Whether each is among the sorted keys."""
    if not len(keys):
        return np.zeros(len(wanted), bool)
    found: np.ndarray = keys[np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)] == wanted
    return found


def _smallest(
    rows: np.ndarray, candidates: np.ndarray, keys: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(rows, candidates) of the `counts` smallest keys of each row: with random keys, a sample without replacement."""
    order = np.lexsort((keys, rows))
    rows, candidates = rows[order], candidates[order]
    kept = _places(rows) < counts[rows]
    return rows[kept], candidates[kept]


def _places(rows: np.ndarray) -> np.ndarray:
    """The place of each among those of its row; rows are sorted."""
    first = np.searchsorted(rows, np.arange(rows[-1] + 1 if len(rows) else 0))
    places: np.ndarray = np.arange(len(rows)) - first[rows]
    return places
