"""The loss of a batch is a sum over parts, cut anywhere: gradients of parts add up to that of the whole batch, in every mode."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distseq.models.temporal import Draws, Graph, advance, part_loss, prepare
from tests.models.temporal.streams import gradients, model_of, stream_of

MODES: list[dict[str, Any]] = [
    {"mode": "parallel"},
    {"mode": "pres", "beta": 0.5},
    {"mode": "replay", "micro": 8},
    {"mode": "exact"},
    {"mode": "parallel", "preset": "apan", "head": "class"},
    {"mode": "replay", "micro": 8, "preset": "dyrep"},
    {"mode": "pres", "preset": "jodie", "visible": "batch"},
]
modes = pytest.mark.parametrize("mode", MODES, ids=lambda mode: "-".join(map(str, mode.values())))
STREAM = stream_of(events=120)
BEFORE = (slice(0, 30), slice(30, 60))


@modes
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=["64", "32"])
@settings(deadline=None, max_examples=5)
@given(owner=st.lists(st.integers(0, 5), min_size=60, max_size=60))
def test_gradients_of_parts_add_up_to_that_of_the_batch(
    mode: dict[str, Any], dtype: torch.dtype, tolerance: float, owner: list[int]
) -> None:
    model, graph, draws = model_of(**mode).to(dtype), Graph(STREAM), Draws(3, 1)
    state = model.state(graph)
    # Memory is 0 until a second batch applies the messages of the first.
    for batch in BEFORE:
        state = advance(model, graph, state, batch)
    prepared, events = prepare(model, graph, state, slice(60, 120), draws), np.arange(60, 120)
    loss = part_loss(model, prepared, events)
    loss.backward()
    whole, total = gradients(model), 0.0
    for part in range(6):
        one = part_loss(model, prepared, events[np.array(owner) == part])
        one.backward()
        total += one.item()
    summed = gradients(model)
    assert abs(total - loss.item()) <= tolerance * abs(loss.item())
    for name, gradient in whole.items():
        assert (summed[name] - gradient).norm() <= tolerance * max(gradient.norm(), 1e-3), name


def test_coherence_is_in_the_loss_and_in_its_gradient() -> None:
    graph, events = Graph(STREAM), np.arange(60, 120)
    found = []
    for beta in (0.0, 1.0):
        model = model_of(mode="pres", beta=beta)
        state = model.state(graph)
        for batch in BEFORE:
            state = advance(model, graph, state, batch)
        loss = part_loss(model, prepare(model, graph, state, slice(60, 120)), events)
        loss.backward()
        found.append((loss.item(), gradients(model)["updater.recurrent"]))
    (without, plain), (with_it, pulled) = found
    assert with_it > without
    assert (pulled - plain).norm() > 1e-3 * plain.norm()


def test_draws_of_another_epoch_change_the_loss_and_the_same_ones_do_not() -> None:
    model, graph, events = model_of(), Graph(STREAM), np.arange(40)
    losses = [
        part_loss(model, prepare(model, graph, model.state(graph), slice(0, 40), draws), events).item()
        for draws in (Draws(1, 0), Draws(1, 0), Draws(1, 1), Draws(2, 0))
    ]
    assert losses[0] == losses[1]
    assert len(set(losses)) == 3


def test_an_event_that_is_not_of_the_batch_is_refused() -> None:
    model, graph = model_of(), Graph(STREAM)
    prepared = prepare(model, graph, model.state(graph), slice(0, 40))
    with pytest.raises(ValueError, match=r"event 40 is not one of the batch 0 \.\. 39"):
        part_loss(model, prepared, np.array([3, 40]))


@pytest.mark.parametrize(
    "batch", [slice(0, 0), slice(10, 5), slice(0, 121), slice(-3, 5), slice(0, 10, 2), slice(None, 5)]
)
def test_a_batch_that_is_no_piece_of_the_stream_is_refused(batch: slice) -> None:
    model, graph = model_of(), Graph(STREAM)
    with pytest.raises(ValueError, match="a batch is a slice start:stop of the stream's 120 events"):
        prepare(model, graph, model.state(graph), batch)


def test_a_batch_that_does_not_follow_the_state_is_refused() -> None:
    model, graph = model_of(), Graph(STREAM)
    with pytest.raises(ValueError, match="the state includes 0 events, so the next batch begins there"):
        advance(model, graph, model.state(graph), slice(10, 20))
