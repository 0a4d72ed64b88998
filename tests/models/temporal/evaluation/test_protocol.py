"""Protocols that do not fit are refused in one line; parts cover the events and begin with batches."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distseq.models.temporal.evaluation import Protocol, described, parts
from tests.models.temporal.streams import model_of, stream_of


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"batch": 0}, "batch must be a whole number of at least 1: got 0"),
        ({"batch": True}, "batch must be a whole number of at least 1: got True"),
        ({"negatives": 2.5}, "negatives must be a whole number of at least 1: got 2.5"),
        ({"every": -1}, "every must be a whole number of at least 1: got -1"),
        ({"micro": -1}, "micro must be a whole number of at least 0: got -1"),
        ({"micro": 5}, "micro belongs to mode 'replay': got mode=None, micro=5"),
        ({"seed": "a"}, "seed must be a whole number of 64 bits: got 'a'"),
        ({"seed": 2**63}, "seed must be a whole number of 64 bits: got 9223372036854775808"),
        ({"kind": "random"}, "kind must be one of uniform, historical, published: got 'random'"),
        ({"mode": "serial"}, "mode must be one of parallel, pres, replay, exact: got 'serial'"),
    ],
)
def test_a_protocol_that_does_not_fit_is_refused(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=rf"^evaluation: {reason}$"):
        Protocol(**given)


@given(st.integers(0, 20), st.integers(1, 60), st.integers(1, 20), st.integers(1, 9), st.integers(0, 20))
def test_parts_cover_all_events_and_begin_with_batches(
    first: int, size: int, count: int, batch: int, skip: int
) -> None:
    scored = range(first + skip, first + skip + size)
    found = parts(scored, count, batch=batch, first=first)
    assert np.concatenate(found).tolist() == list(scored)
    assert len(found) <= count
    assert all(len(part) for part in found)
    assert all((part[0] - first) % batch == 0 for part in found[1:])
    # As many as there are batches, if enough are asked for; of equal size but for one batch and the ends.
    batches = (scored.stop - 1 - first) // batch - (scored.start - first) // batch + 1
    assert len(found) == min(count, batches)
    assert max(map(len, found)) <= (batches // len(found) + 1) * batch


def test_no_parts_are_refused() -> None:
    with pytest.raises(ValueError, match="cut into at least 1 part: got 0"):
        parts(range(5), 0)


def test_the_rules_are_one_line() -> None:
    stream = stream_of()
    line = described(model_of(mode="exact"), stream, Protocol(negatives=20, every=5))
    assert line == (
        "mode exact; memory carried on from training; neighbors with t' < t; batches of 200; 20 uniform negatives, never the "
        "event's own, one event in 5 ranked; AP against one random destination; ties count by half; "
        "3% of events repeat the last destination of their source"
    )
    other = Protocol(kind="published", mode="replay", micro=50)
    line = described(model_of("jodie", mode="pres"), stream, other, carried=False, width=100)
    assert line.startswith(
        "mode replay of 50 (trained in pres); memory replayed from the first event; batches of 200; 100 published negatives; AP"
    )
    line = described(model_of("apan", visible="batch", head="class"), stream, Protocol(batch=7))
    assert "; neighbors before the batch; batches of 7; 3% of events" in line
