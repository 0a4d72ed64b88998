"""What a stream does to a temporal batch of b events: how much of it is stale, lost or must be done in order.

An event is *pending* on an earlier one of its batch if they share a node (PRES, definitions 1 and 2).
"""

from dataclasses import dataclass

import numpy as np

from distseq.models.data.events.stream import EventStream


@dataclass(frozen=True)
class BatchStatistics:
    """Of one batch size. pending, dropped: shares from 0 to 1. depth: the levels of a batch, over those that are full. width: the
    events of a level, on average."""

    batch: int
    pending: float
    dropped: float
    depth_mean: float
    depth_p95: float
    depth_max: int
    width: float


@dataclass(frozen=True)
class Recurrence:
    """Shares of events. repeats: src had the same dst in its last event as src. seen: the edge (src, dst) has occurred before.
    ties: the event has the time of the one before it."""

    repeats: float
    seen: float
    ties: float


def of_batch(stream: EventStream, batch: int) -> BatchStatistics:
    """All statistics of a batch size. ValueError for a batch below 1 or a stream without events."""
    levels = full(depths(stream, batch), len(stream), batch)
    pending, dropped = pending_share(stream, batch), dropped_share(stream, batch)
    mean, p95 = float(levels.mean()), float(np.percentile(levels, 95))
    return BatchStatistics(batch, pending, dropped, mean, p95, int(levels.max()), min(batch, len(stream)) / mean)


def pending_share(stream: EventStream, batch: int) -> float:
    """The share of events with an earlier time than theirs among the events of their batch that share a node with them.

    >>> stream = EventStream(src=np.array([0, 0, 1]), dst=np.array([2, 3, 4]), t=np.array([1, 2, 3]))
    >>> pending_share(stream, 3), pending_share(stream, 2), pending_share(stream, 1)
    (0.3333333333333333, 0.3333333333333333, 0.0)
    """
    ends = _ends(stream, batch)
    # Times ascend, so a node's first event of a batch has its earliest time.
    earliest = stream.t[_first(ends)]
    return float((earliest[ends].min(1) < stream.t).mean())


def dropped_share(stream: EventStream, batch: int) -> float:
    """The share of messages, two for each event, that aggregation `last` drops: all but one of each node in a batch.

    >>> stream = EventStream(src=np.array([0, 0, 1]), dst=np.array([2, 3, 4]), t=np.array([1, 2, 3]))
    >>> dropped_share(stream, 3)
    0.16666666666666663
    """
    ends = _ends(stream, batch)
    return 1 - (int(ends.max()) + 1) / ends.size


def depths(stream: EventStream, batch: int) -> np.ndarray:
    """(batches,) the number of levels of each batch; the events of a level share no node, and none depends on a later level.

    The level of an event is one more than the highest of the earlier events of its batch that share a node with it. The last
    batch may be a short one.

    >>> stream = EventStream(src=np.array([0, 0, 1]), dst=np.array([2, 3, 4]), t=np.array([1, 2, 3]))
    >>> depths(stream, 3).tolist(), depths(stream, 2).tolist()
    ([2], [2, 1])
    """
    ends = _ends(stream, batch)
    # Levels of a batch are found one event after the other, so all batches go through their events side by side.
    free = np.zeros(int(ends.max()) + 1, np.int64)
    batches = -(-len(stream) // batch)
    deepest = np.zeros(batches, np.int64)
    for place in range(min(batch, len(stream))):
        here = ends[place::batch]
        level = free[here].max(1) + 1
        free[here[:, 0]] = level
        free[here[:, 1]] = level
        # The last batch may have ended.
        deepest[: len(here)] = np.maximum(deepest[: len(here)], level)
    return deepest


def full(values: np.ndarray, events: int, batch: int) -> np.ndarray:
    """The values of the batches that are full; the only one if none is."""
    return values[: max(1, events // batch)]


def recurrence(stream: EventStream) -> Recurrence:
    """How far the past of a stream repeats itself. ValueError for a stream without events.

    >>> stream = EventStream(src=np.array([0, 0, 1, 0]), dst=np.array([2, 2, 3, 3]), t=np.array([1, 1, 3, 4]))
    >>> recurrence(stream)
    Recurrence(repeats=0.25, seen=0.25, ties=0.25)
    """
    _check(stream, 1)
    order = np.argsort(stream.src, kind="stable")
    src, dst = stream.src[order], stream.dst[order]
    repeats = int(((src[1:] == src[:-1]) & (dst[1:] == dst[:-1])).sum())
    by_edge = np.lexsort((stream.dst, stream.src))
    src, dst = stream.src[by_edge], stream.dst[by_edge]
    seen = int(((src[1:] == src[:-1]) & (dst[1:] == dst[:-1])).sum())
    ties = int((stream.t[1:] == stream.t[:-1]).sum())
    return Recurrence(repeats / len(stream), seen / len(stream), ties / len(stream))


def _check(stream: EventStream, batch: int) -> None:
    if batch < 1:
        raise ValueError(f"a temporal batch must hold at least 1 event: got {batch}")
    if not len(stream):
        raise ValueError("a stream without events has no statistics")


def _ends(stream: EventStream, batch: int) -> np.ndarray:
    """(E, 2) the two nodes of each event, numbered from 0 over the pairs (batch, node) that occur."""
    _check(stream, batch)
    number = np.arange(len(stream)) // batch
    nodes, ends = stream.nodes, np.stack([stream.src, stream.dst], 1)
    if nodes > ends.size:
        # Far apart: the products below could overflow.
        nodes, ends = ends.size, np.unique(ends, return_inverse=True)[1].reshape(-1, 2)
    keys = number[:, None] * nodes + ends
    return np.unique(keys, return_inverse=True)[1].reshape(-1, 2)


def _first(ends: np.ndarray) -> np.ndarray:
    """(nodes,) the index of the first event of each node of `ends` (E, 2)."""
    first = np.empty(int(ends.max()) + 1, np.int64)
    # Backwards, because the last of several assignments to one place holds.
    first[ends[::-1].reshape(-1)] = np.arange(len(ends))[::-1].repeat(2)
    return first
