"""Statistics of streams equal an event-by-event count, and the figures published for wikipedia and flights."""

import functools
import os
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distseq.models.data.events import EventStream, open_events
from distseq.models.data.events.advice import advice
from distseq.models.data.events.statistics import (
    BatchStatistics,
    depths,
    dropped_share,
    of_batch,
    pending_share,
    recurrence,
)

WIKIPEDIA = Path(__file__).resolve().parents[5] / "shared" / "data" / "wikipedia.npz"
# Unipartite, with self-loops and ties; few nodes, so that hubs and repeats are common.
STREAMS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=40).map(
    lambda events: EventStream(
        np.array([e[0] for e in events]),
        np.array([e[1] for e in events]),
        np.cumsum([e[2] // 2 for e in events]),
    )
)


def plainly(stream: EventStream, batch: int) -> tuple[float, float, list[int]]:
    """Pending and dropped share, and depths, counted event by event."""
    pending, kept, levels = 0, 0, []
    for start in range(0, len(stream), batch):
        part = stream[start : start + batch]
        events = list(zip(part.src.tolist(), part.dst.tolist(), part.t.tolist(), strict=True))
        last: dict[int, int] = {}
        level: dict[int, int] = defaultdict(int)
        for k, (u, v, t) in enumerate(events):
            pending += any({u, v} & {a, b} and earlier < t for a, b, earlier in events[:k])
            level[u] = level[v] = max(level[u], level[v]) + 1
            last[u] = last[v] = k
        kept += len(last)
        levels.append(max(level.values()))
    return pending / len(stream), 1 - kept / (2 * len(stream)), levels


@given(STREAMS, st.integers(1, 45))
def test_batches_are_counted_as_a_loop_over_events_counts_them(stream: EventStream, batch: int) -> None:
    pending, dropped, levels = plainly(stream, batch)
    assert pending_share(stream, batch) == pytest.approx(pending, abs=1e-12)
    assert dropped_share(stream, batch) == pytest.approx(dropped, abs=1e-12)
    assert depths(stream, batch).tolist() == levels


@given(STREAMS, st.integers(1, 45))
def test_numbers_of_nodes_that_are_far_apart_change_nothing(stream: EventStream, batch: int) -> None:
    far = EventStream(stream.src * 2**59, stream.dst * 2**59, stream.t, nodes=2**62)
    assert of_batch(far, batch) == of_batch(stream, batch)


@given(STREAMS)
def test_recurrence_is_counted_as_a_loop_over_events_counts_it(stream: EventStream) -> None:
    last: dict[int, int] = {}
    seen: set[tuple[int, int]] = set()
    repeats = known = ties = 0
    before = None
    for u, v, t in zip(stream.src.tolist(), stream.dst.tolist(), stream.t.tolist(), strict=True):
        repeats += last.get(u) == v
        known += (u, v) in seen
        ties += t == before
        last[u], before = v, t
        seen.add((u, v))
    found = recurrence(stream)
    assert (found.repeats, found.seen, found.ties) == tuple(each / len(stream) for each in (repeats, known, ties))


@given(STREAMS, st.integers(1, 45))
def test_a_larger_batch_is_staler_and_deeper(stream: EventStream, batch: int) -> None:
    """If it holds the smaller ones whole."""
    assert pending_share(stream, 2 * batch) >= pending_share(stream, batch)
    assert dropped_share(stream, 2 * batch) >= dropped_share(stream, batch)
    assert depths(stream, 2 * batch).max() >= depths(stream, batch).max()


@functools.cache
def wikipedia() -> EventStream:
    if not WIKIPEDIA.exists():
        stop = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        stop("wikipedia.npz is not there")
    return open_events(f"npz:{WIKIPEDIA}").stream


@pytest.mark.parametrize(
    ("batch", "pending", "dropped"), [(50, 0.49, 0.46), (200, 0.68, 0.63), (800, 0.81, 0.75), (3200, 0.90, 0.83)]
)
def test_wikipedia_is_as_stale_as_measured_before(batch: int, pending: float, dropped: float) -> None:
    assert pending_share(wikipedia(), batch) == pytest.approx(pending, abs=0.005)
    assert dropped_share(wikipedia(), batch) == pytest.approx(dropped, abs=0.005)


@pytest.mark.parametrize(
    ("name", "batch", "depth"),
    [
        ("wikipedia", 200, (21, 38, 98)),
        ("wikipedia", 800, (56, 91, 150)),
        ("wikipedia", 3200, (136, 237, 284)),
        ("flights", 200, (12, 14, 16)),
        ("flights", 800, (43, 47, 48)),
        ("flights", 3200, (167, 171, 172)),
    ],
)
def test_batches_are_as_deep_as_measured_before(name: str, batch: int, depth: tuple[int, int, int]) -> None:
    stream = wikipedia() if name == "wikipedia" else open_events("flights").stream
    found = of_batch(stream, batch)
    assert (round(found.depth_mean), round(found.depth_p95), found.depth_max) == depth
    assert found.width == pytest.approx(batch / found.depth_mean)


def test_wikipedia_and_flights_repeat_and_tie_as_measured_before() -> None:
    assert recurrence(open_events("flights").stream).ties == pytest.approx(0.345, abs=0.0005)
    assert recurrence(wikipedia()).repeats == pytest.approx(0.79, abs=0.005)


@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_holds_events(batch: int) -> None:
    stream = open_events("flights").stream
    for count in (pending_share, dropped_share, depths, of_batch):
        with pytest.raises(ValueError, match=f"must hold at least 1 event: got {batch}"):
            count(stream, batch)


def test_a_stream_without_events_has_no_statistics() -> None:
    nothing = open_events("flights").stream[:0]
    for count in (pending_share, dropped_share, depths, of_batch):
        with pytest.raises(ValueError, match="a stream without events has no statistics"):
            count(nothing, 5)
    with pytest.raises(ValueError, match="a stream without events has no statistics"):
        recurrence(nothing)


def batch_of(batch: int, pending: float, width: float) -> BatchStatistics:
    return BatchStatistics(batch, pending, 0.5, batch / width, batch / width, int(batch / width), width)


@pytest.mark.parametrize(
    ("found", "line"),
    [
        ([(50, 0.2, 9), (200, 0.5, 9)], "parallel will do up to batch 200"),
        (
            [(200, 0.7, 9), (800, 0.8, 14.4), (3200, 0.9, 23.5)],
            "parallel up to batch 200, exact above it (24 events a level at batch 3200); "
            "replay = 200 for models that do not fit exact",
        ),
        (
            [(50, 0.9, 6), (200, 0.95, 5), (800, 0.97, 2)],
            "exact at every batch (5 events a level at batch 200); "
            "replay with fewer than 50 events for models that do not fit exact",
        ),
        (
            [(50, 0.5, 6), (200, 0.95, 1.5)],
            "parallel up to batch 50, replay = 50 above it; "
            "exact has 1.5 events a level at batch 200, nearly one after the other",
        ),
        (
            [(50, 0.9, 1.3)],
            "replay with fewer than 50 events at every batch; "
            "exact has 1.3 events a level at batch 50, nearly one after the other",
        ),
    ],
)
def test_advice_names_the_mode_by_staleness_and_width(found: list[tuple[int, float, float]], line: str) -> None:
    assert advice([batch_of(*one) for one in found]) == line
