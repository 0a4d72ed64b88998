"""The digest of a state: current after every change, and different for every changed bit."""

from typing import Any

import numpy as np
import pytest
import torch

from distseq.models.temporal import Graph, State, changes
from distseq.models.temporal.packing import packed, unpacked
from tests.models.temporal.streams import model_of, stream_of

CASES: list[dict[str, Any]] = [
    {"mode": "exact"},
    {"mode": "pres"},
    {"mode": "replay", "micro": 7},
    {"aggregation": "mean"},
    {"preset": "dyrep"},
    {"preset": "apan"},
]


def advanced(options: dict[str, Any], dtype: torch.dtype, asked: bool) -> tuple[State, list[bytes]]:
    """A state after four batches, and its digests on the way, if they are `asked` for."""
    options = dict(options)
    model, graph = model_of(options.pop("preset", "tgn"), **options).to(dtype), Graph(stream_of(events=80))
    state, found = model.state(graph), []
    for start in range(0, 80, 20):
        if asked:
            found.append(state.digest())
        state.apply(changes(model, graph, state, slice(start, start + 20)), start + 20)
    return state, found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", CASES, ids=str)
def test_it_is_the_same_however_a_state_was_reached(options: dict[str, Any], dtype: torch.dtype) -> None:
    kept, on_the_way = advanced(options, dtype, asked=True)
    fresh, _ = advanced(options, dtype, asked=False)
    assert kept.digest() == fresh.digest() == kept.copy().digest()
    assert len(set(on_the_way)) == 4
    model = model_of(**{k: v for k, v in options.items() if k != "preset"}, preset=options.get("preset", "tgn"))
    assert unpacked(packed(kept), 14, model.options, dtype).digest() == kept.digest()
    assert State.from_dict(kept.to_dict(), 14, model.options, dtype).digest() == kept.digest()


def test_it_comes_back_with_what_was_put_back() -> None:
    model, graph = model_of(), Graph(stream_of(events=80))
    state = model.state(graph)
    before = state.digest()
    undone = state.apply(changes(model, graph, state, slice(0, 40)), 40)
    assert state.digest() != before
    state.apply(undone, 0)
    assert state.digest() == before


@pytest.mark.parametrize("options", CASES, ids=str)
def test_every_bit_counts(options: dict[str, Any]) -> None:
    state, _ = advanced(options, torch.float32, asked=False)
    seen = {state.digest()}
    draws = np.random.default_rng(0)
    for name in state.fields:
        for _ in range(8):
            copy = State({key: field.clone() for key, field in state.fields.items()}, state.position)
            flat = copy.fields[name].view(torch.uint8).reshape(-1)
            if not len(flat):
                continue
            # Of a boolean only the lowest bit is one.
            bit = 0 if copy.fields[name].dtype == torch.bool else int(draws.integers(8))
            flat[int(draws.integers(len(flat)))] ^= 1 << bit
            seen.add(copy.digest())
    fields = sum(field.numel() > 0 for field in state.fields.values())
    assert len(seen) > 1 + 7 * fields, "a few of them may have been the same bit"


def test_rows_that_are_exchanged_and_the_position_count() -> None:
    state, _ = advanced({"mode": "exact"}, torch.float32, asked=False)
    other = State({key: field.flip(0) for key, field in state.fields.items()}, state.position)
    moved = State(state.fields, state.position + 1)
    assert len({state.digest(), other.digest(), moved.digest()}) == 3


def test_trackers_that_are_emptied_change_it() -> None:
    state, _ = advanced({"mode": "pres"}, torch.float32, asked=True)
    before = state.digest()
    state.begin_epoch()
    assert state.digest() != before
    assert state.digest() == State(state.fields, state.position).digest()
