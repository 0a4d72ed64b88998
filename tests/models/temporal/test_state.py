"""The state of memory: digests, checkpoints, sizes, and changes of parts merged into those of a batch."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from distseq.models.temporal import Graph, State, advance, changes, state_bytes
from distseq.models.temporal.advance import batch_changes
from distseq.models.temporal.options import Options, options_of
from distseq.models.temporal.state import layout, merged
from tests.models.temporal.streams import model_of, stream_of

ALL: list[dict[str, Any]] = [
    {"preset": "tgn"},
    {"preset": "tgn", "aggregation": "mean"},
    {"preset": "tgn", "mode": "pres"},
    {"preset": "dyrep"},
    {"preset": "apan"},
]
options = pytest.mark.parametrize("given", ALL, ids=lambda given: "-".join(given.values()))


def after_some(given: dict[str, Any], events: int = 40) -> State:
    model, graph = model_of(**given), Graph(stream_of(events=events))
    return advance(model, graph, model.state(graph), slice(0, events))


@options
def test_a_saved_state_is_the_same_state(given: dict[str, Any]) -> None:
    state = after_some(given)
    chosen = model_of(**given).options
    again = State.from_dict(state.to_dict(), len(state), chosen, torch.float64)
    assert again.digest() == state.digest()
    assert again.position == 40


@options
def test_a_bit_of_any_field_changes_the_digest(given: dict[str, Any]) -> None:
    state = after_some(given)
    digest = state.digest()
    assert len(digest) == 8
    for field in state.fields.values():
        kept = field[3].clone()
        field[3] = ~kept if kept.dtype == torch.bool else kept + 1
        assert state.digest() != digest
        field[3] = kept
    assert state.digest() == digest


@options
def test_bytes_are_those_of_the_tensors(given: dict[str, Any]) -> None:
    state, model = after_some(given), model_of(**given)
    held = sum(field.nbytes for field in state.fields.values())
    assert held == state_bytes(len(state), model.options, torch.float64)
    assert list(state.fields) == list(layout(model.options))


@options
def test_advancing_leaves_the_state_it_starts_from(given: dict[str, Any]) -> None:
    model, graph = model_of(**given), Graph(stream_of(events=40))
    state = advance(model, graph, model.state(graph), slice(0, 20))
    digest = state.digest()
    assert advance(model, graph, state, slice(20, 40)).digest() != digest
    assert state.digest() == digest


@options
def test_changes_in_place_can_be_taken_back(given: dict[str, Any]) -> None:
    model, graph = model_of(**given), Graph(stream_of(events=40))
    state = advance(model, graph, model.state(graph), slice(0, 20))
    digest, expected = state.digest(), advance(model, graph, state, slice(20, 40)).digest()
    before = state.apply(changes(model, graph, state, slice(20, 40)), 40)
    assert state.digest() == expected
    state.apply(before, 20)
    assert state.digest() == digest


def test_a_saved_state_of_other_options_is_refused_by_field() -> None:
    saved = after_some({"preset": "tgn"}).to_dict()
    with pytest.raises(ValueError, match="field 'count'"):
        State.from_dict(saved, 14, options_of("tgn", {"width": 8, "mode": "pres"}), torch.float64)
    with pytest.raises(ValueError, match="field 'event'"):
        State.from_dict(saved, 15, Options(width=8), torch.float64)


def test_an_epoch_begins_with_trackers_at_zero_and_memory_as_it_was() -> None:
    model, graph = model_of(mode="pres"), Graph(stream_of(events=80))
    state = model.state(graph)
    for start in (0, 40):
        state = advance(model, graph, state, slice(start, start + 40))
    assert state.fields["count"].any()
    assert state.fields["xi"].any()
    memory = state.fields["memory"].clone()
    state.begin_epoch()
    assert not any(state.fields[name].any() for name in ("xi", "psi", "count"))
    assert torch.equal(state.fields["memory"], memory)


@pytest.mark.parametrize("given", [{}, {"mode": "pres"}, {"preset": "dyrep"}], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_changes_of_parts_merge_into_those_of_the_batch_in_any_order(given: dict[str, Any], seed: int) -> None:
    model, graph = model_of(**given), Graph(stream_of(events=80, seed=seed))
    state = advance(model, graph, model.state(graph), slice(0, 40))
    whole, rng = batch_changes(model, graph, state, slice(40, 80)), np.random.default_rng(seed)
    cuts = np.unique([40, 80, *rng.integers(40, 80, 4)]).tolist()
    parts = [batch_changes(model, graph, state, slice(a, b)) for a, b in pairwise(cuts)]
    together = merged([parts[i] for i in rng.permutation(len(parts))])
    assert np.array_equal(together.nodes, whole.nodes)
    assert np.array_equal(together.event, whole.event)
    for name, field in whole.fields.items():
        torch.testing.assert_close(together.fields[name], field, rtol=1e-13, atol=1e-15)


WAYS: list[dict[str, Any]] = [
    {"mode": "parallel"},
    {"mode": "pres"},
    {"mode": "replay", "micro": 200},
    {"mode": "exact"},
    {"preset": "apan"},
]


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("given", WAYS, ids=str)
def test_digests_do_not_depend_on_the_number_of_threads(given: dict[str, Any]) -> None:
    # Sizes as published: with several threads some products of these shapes, micro-batches of 200 among them, have other bits.
    small = stream_of(events=2400, nodes=5000)
    message = np.random.default_rng(0).normal(size=(2400, 172)).astype(np.float32)
    model, graph = (
        model_of(width=100, time_width=100, features=172, **given).float(),
        Graph(replace(small, message=message)),
    )
    digests = []
    for count in (1, 2):
        torch.set_num_threads(count)
        state = model.state(graph)
        for start in (0, 800, 1600):
            state = advance(model, graph, state, slice(start, start + 800))
        digests.append(state.digest())
        assert torch.get_num_threads() == count
    assert digests[0] == digests[1]
