"""A model evaluated in another mode is the model of that mode with the same parameters."""

from typing import Any

import numpy as np
import pytest
import torch

from distseq.models.temporal import Graph, TemporalModel, advance
from distseq.models.temporal.evaluation import Candidates, Evaluation, Protocol, in_mode
from tests.models.temporal.streams import model_of, stream_of

TRAINED: list[dict[str, Any]] = [
    {"mode": "parallel"},
    {"mode": "pres"},
    {"mode": "replay", "micro": 7},
    {"mode": "exact"},
]
OTHERS: list[dict[str, Any]] = [
    {"mode": "parallel"},
    {"mode": "replay", "micro": 5},
    {"mode": "exact"},
]


@pytest.mark.parametrize("other", OTHERS, ids=lambda mode: mode["mode"])
@pytest.mark.parametrize("trained", TRAINED, ids=lambda mode: mode["mode"])
def test_rows_in_another_mode_are_those_of_a_model_of_that_mode(trained: dict[str, Any], other: dict[str, Any]) -> None:
    stream = stream_of(events=60)
    graph, scored = Graph(stream), range(30, 60)
    model, same = model_of(**trained), model_of(**other)
    same.load_state_dict({name: value for name, value in model.state_dict().items() if name != "gamma"})
    state = advance(model, graph, model.state(graph), slice(0, 30))
    bare = state.copy()
    bare.fields = {name: field for name, field in bare.fields.items() if name in same.state(graph).fields}
    found = []
    for one, begun, protocol in (
        (model, state, Protocol(batch=15, negatives=4, **other)),
        (same, bare, Protocol(batch=15, negatives=4)),
    ):
        candidates = Candidates(stream, scored, protocol)
        evaluation = Evaluation(one, graph, begun, scored, protocol, candidates)
        found.append(evaluation.rows(np.array(scored)))
    np.testing.assert_array_equal(*found)


def test_a_view_shares_parameters_and_leaves_the_model_alone() -> None:
    model = model_of(mode="pres")
    view = in_mode(model, Protocol(mode="replay", micro=3))
    assert (view.options.mode, view.options.micro, view.gamma) == ("replay", 3, None)
    assert model.options.mode == "pres"
    assert model.gamma is not None
    assert "gamma" in model.state_dict()
    assert {name for name, _ in view.named_parameters()} == {name for name, _ in model.named_parameters()} - {"gamma"}
    for name, parameter in view.named_parameters():
        assert parameter is model.get_parameter(name)


def test_the_same_mode_needs_no_view() -> None:
    model = model_of(mode="replay", micro=7)
    for protocol in (Protocol(), Protocol(mode="replay"), Protocol(mode="replay", micro=7)):
        assert in_mode(model, protocol) is model
    assert in_mode(model, Protocol(mode="replay", micro=2)).options.micro == 2


@pytest.mark.parametrize(
    ("given", "mode", "reason"),
    [
        ({"preset": "apan"}, "exact", "mode 'exact' does not fit updater='mailbox'"),
        ({"preset": "tgn", "visible": "batch"}, "exact", "mode 'exact' does not fit visible='batch'"),
        ({"mode": "exact"}, "pres", "mode 'pres' needs a gamma learned in it: the model was trained in 'exact'"),
        ({"mode": "exact"}, "replay", "mode 'replay' needs micro: the model was trained in 'exact'"),
    ],
)
def test_a_mode_that_does_not_fit_is_refused(given: dict[str, Any], mode: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        in_mode(model_of(**given), Protocol(mode=mode))


def test_gradients_still_reach_the_model() -> None:
    model = TemporalModel("jodie", width=4, time_width=2, mode="pres")
    view = in_mode(model, Protocol(mode="parallel"))
    sum(parameter.sum() for parameter in view.parameters()).backward()
    assert model.drift is not None
    assert torch.equal(model.drift.grad, torch.ones(4))
