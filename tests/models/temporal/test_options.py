"""What does not fit is refused in one line that names the rule and the value."""

from typing import Any

import numpy as np
import pytest

from distseq.models.data.events import EventStream
from distseq.models.temporal import Graph, TemporalModel
from distseq.models.temporal.neighbors import Neighbors
from tests.models.temporal.streams import model_of, stream_of

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"preset": "gat"}, "preset must be one of tgn, jodie, dyrep, apan: got 'gat'"),
    ({"widht": 3}, "has no option 'widht'; known: width"),
    ({"mode": "serial"}, "mode must be one of parallel, pres, replay, exact: got 'serial'"),
    ({"width": 0}, "width must be a whole number of at least 1: got 0"),
    ({"neighbors": True}, "neighbors must be a whole number of at least 1: got True"),
    ({"width": 9}, "heads must divide width: got width=9, heads=2"),
    ({"dropout": 1.0}, "dropout must be at least 0 and below 1: got 1.0"),
    ({"mode": "pres", "gamma": 1.0}, "gamma must be between 0 and 1: got 1.0"),
    ({"mode": "pres", "beta": -1.0}, "beta must be a number of at least 0: got -1.0"),
    ({"mode": "replay"}, "micro >= 1 belongs to mode replay: got mode='replay', micro=0"),
    ({"micro": 5}, "micro >= 1 belongs to mode replay: got mode='parallel', micro=5"),
    ({"beta": 0.1}, "beta belongs to mode 'pres' and does not fit mode 'parallel'"),
    ({"preset": "apan", "aggregation": "mean"}, "updater='mailbox' .* needs aggregation='last': got 'mean'"),
    ({"aggregation": "mean", "time": "learned"}, "aggregation='mean' stores time encodings, needs time='frozen'"),
    ({"aggregation": "mean", "preset": "dyrep"}, "aggregation='mean' needs other='memory': got 'neighbors'"),
    (
        {"mode": "exact", "preset": "dyrep"},
        "mode 'exact' does not fit other='neighbors': an update reads the memory of",
    ),
    (
        {"mode": "exact", "preset": "apan"},
        "mode 'exact' does not fit updater='mailbox': an event writes its neighbors'",
    ),
    (
        {"mode": "exact", "aggregation": "mean"},
        "mode 'exact' does not fit aggregation='mean': a mean is over the messages",
    ),
    ({"mode": "exact", "visible": "batch"}, "mode 'exact' does not fit visible='batch': neighbors as of the start"),
    ({"mode": "exact", "gamma": 0.5}, "gamma belongs to mode 'pres' and does not fit mode 'exact': in it every event"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED, ids=lambda value: str(value) if isinstance(value, dict) else "")
def test_options_that_do_not_fit_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        TemporalModel(**given)
    assert "\n" not in str(error.value)


def test_a_stream_that_does_not_fit_the_model_is_refused() -> None:
    graph, one = Graph(stream_of(events=10)), np.zeros(4, np.int64)
    with pytest.raises(ValueError, match="features=2, but the stream's messages have 3"):
        model_of(features=2).state(graph)
    with pytest.raises(ValueError, match=r"labels must be 0 \.\. 1: got 0 \.\. 2"):
        model_of(head="class", classes=2).state(graph)
    unlabelled = Graph(EventStream(one, one + 1, one))
    with pytest.raises(ValueError, match="head='class' needs a stream with whole numbers as labels"):
        model_of(head="class", features=0).state(unlabelled)
    with pytest.raises(ValueError, match=r"training must be 1 \.\. 4 events"):
        Graph(EventStream(one, one + 1, one), training=5)


def test_an_index_without_events_finds_nothing() -> None:
    none = np.zeros(0, np.int64)
    assert not Neighbors(none, none, none, 3).recent(np.array([1]), np.array([9]), 2).valid.any()
