"""An event stream keeps its arrays, is cut into views, and refuses every wrong event by its index."""

import pickle
from typing import Any

import numpy as np
import pytest
import torch

from distseq.models.data.events import EventStream

E = 5
FIELDS: dict[str, Any] = {
    "src": np.array([0, 1, 0, 2, 1]),
    "dst": np.array([3, 4, 3, 3, 5]),
    "t": np.array([-7, 5, 5, 9, 2**40]),
    "message": np.arange(10, dtype=np.float32).reshape(E, 2),
    "label": np.array([0, 1, 0, 0, 1]),
}


def stream(**changed: Any) -> EventStream:
    return EventStream(**FIELDS | changed)


def test_arrays_of_the_right_types_are_kept_not_copied() -> None:
    made = stream()
    assert all(getattr(made, name) is value for name, value in FIELDS.items())
    assert made.bytes == 3 * 8 * E + 4 * 10 + 8 * E
    assert (len(made), made.nodes, made.destinations, made.features) == (E, 6, (3, 6), 2)


def test_a_tensor_of_an_array_shares_its_memory() -> None:
    made = stream()
    torch.from_numpy(made.t)[0] = -8
    assert made.t[0] == -8
    FIELDS["t"][0] = -7


@pytest.mark.parametrize(
    "cut", [slice(1, 4), slice(None), slice(-2, None), slice(4, 2), slice(0, 99), slice(1, 3, 1), slice(0, 0)]
)
def test_a_cut_is_a_view_that_keeps_nodes_and_destinations(cut: slice) -> None:
    part = stream()[cut]
    for name, value in FIELDS.items():
        np.testing.assert_array_equal(getattr(part, name), value[cut])
        assert len(value[cut]) == 0 or np.shares_memory(getattr(part, name), value)
    assert (part.nodes, part.destinations) == (6, (3, 6))
    bare = EventStream(FIELDS["src"], FIELDS["dst"], FIELDS["t"])[cut]
    assert bare.message is None
    assert bare.label is None
    assert bare.features == 0


@pytest.mark.parametrize("wrong", [0, slice(None, None, 2), slice(None, None, -1), np.array([0, 1])])
def test_only_consecutive_events_are_cut(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"cut by stream\[a:b\]"):
        stream()[wrong]


@pytest.mark.parametrize(
    ("changed", "kinds"),
    [
        ({"src": np.array([0, 1, 0, 2, 1], np.uint8)}, {"src": np.int64}),
        ({"src": np.array([0, 1, 0, 2, 1], ">i4")}, {"src": np.int64}),
        ({"src": [0, 1, 0, 2, 1]}, {"src": np.int64}),
        ({"t": np.array([0.0, 1.0, 1.0, 2.0, 3.0])}, {"t": np.int64}),
        ({"t": np.arange(E, dtype=np.uint64)}, {"t": np.int64}),
        ({"message": np.ones((E, 3))}, {"message": np.float32}),
        ({"message": np.ones((E, 3), bool)}, {"message": np.float32}),
        ({"message": np.ones((E, 0))}, {"message": np.float32}),
        ({"label": np.array([True] * E)}, {"label": np.int64}),
        ({"label": np.full(E, 0.5, np.float16)}, {"label": np.float32}),
        ({"label": np.full(E, 0.1)}, {"label": np.float64}),
    ],
)
def test_other_types_become_the_right_ones_with_the_same_values(changed: dict[str, Any], kinds: dict[str, Any]) -> None:
    made = stream(**changed)
    for name, kind in kinds.items():
        assert getattr(made, name).dtype == kind
        np.testing.assert_array_equal(getattr(made, name), np.asarray(changed[name]).astype(kind))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"t": np.array([0, 5, 4, 9, 3])}, "event 2: t=4 is earlier than t=5 before it: events must be sorted by time"),
        ({"t": np.array([0, np.nan, 1, np.nan, 3])}, "event 1: t=nan is not a finite number"),
        ({"t": np.array([0, 1, 2, 3, np.inf])}, "event 4: t=inf is not a finite number"),
        ({"t": np.array([0, 1, 2.5, 3, 4])}, "event 2: t=2.5 is a fraction: times are whole numbers, such as seconds"),
        ({"t": np.array([0, 1, 2, 3, 2.0**63])}, "event 4: t=9.223372036854776e+18 does not fit int64"),
        ({"t": np.array([0, 1, 2, 3, 2**63], np.uint64)}, "event 4: t=9223372036854775808 does not fit int64"),
        ({"t": np.array(["0"] * E)}, "t must hold whole numbers: got an array of <U1"),
        ({"t": np.array([0j] * E)}, "t must hold whole numbers: got an array of complex128"),
        ({"src": np.array([0, 1, -3, -4, 0])}, "event 2: src=-3 is negative: nodes are numbered from 0"),
        ({"dst": np.array([3, -1, 3, 3, 3])}, "event 1: dst=-1 is negative: nodes are numbered from 0"),
        (
            {"src": np.array([0, 2**62, 0, 0, 0])},
            "event 1: src=4611686018427387904 is too large: nodes have numbers below 2^62",
        ),
        ({"src": np.zeros(E)}, "src must hold whole numbers: got an array of float64"),
        ({"src": np.zeros(E, bool)}, "src must hold whole numbers: got an array of bool"),
        ({"src": np.zeros((E, 1), int)}, "src must have one number for each event: got shape (5, 1)"),
        ({"nodes": 5}, "event 4: dst=5 is not below nodes=5"),
        ({"nodes": 2, "src": np.array([0, 2, 2, 2, 2])}, "event 1: src=2 is not below nodes=2"),
        ({"dst": np.array([3])}, "dst has 1 rows, and there are 5 events"),
        ({"t": np.arange(6)}, "t has 6 rows, and there are 5 events"),
        ({"message": np.zeros((4, 2))}, "message has 4 rows, and there are 5 events"),
        ({"message": np.zeros(E)}, "message must be an array of numbers (events, features): got float64 (5,)"),
        ({"message": np.eye(E) * 1e39}, "event 0: message[0]=1e+39 is not a finite float32"),
        (
            {"message": np.where(np.eye(E) * [0, 0, 0, 1, 1], np.nan, 3e38)},
            "event 3: message[3]=nan is not a finite float32",
        ),
        ({"label": np.array([0, 1, np.nan, 0, 0])}, "event 2: label=nan is not a finite number"),
        ({"label": np.zeros(2)}, "label has 2 rows, and there are 5 events"),
        ({"destinations": (4, 6)}, "event 0: dst=3 is not one of the destinations 4 .. 5"),
        ({"destinations": (3, 5)}, "event 4: dst=5 is not one of the destinations 3 .. 4"),
        ({"destinations": (3, 7)}, "destinations must be a range of ids within 0 .. 6: got (3, 7)"),
        ({"destinations": (5, 3)}, "destinations must be a range of ids within 0 .. 6: got (5, 3)"),
    ],
)
def test_a_wrong_event_is_refused_by_its_index(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message is compared
        stream(**changed)
    assert str(error.value) == message


def test_large_messages_whose_sum_overflows_are_finite() -> None:
    assert stream(message=np.full((E, 4), 3e38)).features == 4


def test_a_stream_may_be_empty() -> None:
    nothing = np.array([], np.int64)
    made = EventStream(nothing, nothing, nothing)
    assert (len(made), made.nodes, made.destinations, made.bytes) == (0, 0, (0, 0), 0)
    assert EventStream(nothing, nothing, nothing, nodes=4).destinations == (0, 4)


def test_a_self_loop_and_events_of_one_time_keep_their_order() -> None:
    made = EventStream(np.array([2, 0, 1]), np.array([2, 1, 0]), np.array([4, 4, 4]))
    assert made.src.tolist() == [2, 0, 1]
    assert made.destinations == (0, 3)


@pytest.mark.parametrize(
    "changed",
    [
        {"src": np.array([0, 1, 0, 2, 2])},
        {"dst": np.array([3, 4, 3, 3, 3])},
        {"t": np.array([-7, 5, 5, 9, 10])},
        {"message": None},
        {"label": np.array([0.0, 1, 0, 0, 1])},
        {"nodes": 7},
        {"destinations": (2, 6)},
    ],
)
def test_a_fingerprint_tells_streams_apart(changed: dict[str, Any]) -> None:
    assert stream(**changed).fingerprint != stream().fingerprint


def test_a_pickled_stream_is_the_same() -> None:
    again = pickle.loads(pickle.dumps(stream()))
    assert again.fingerprint == stream().fingerprint
    assert (again.nodes, again.destinations) == (6, (3, 6))
