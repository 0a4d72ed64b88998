"""Losses, gradients of every tensor and states of all modes and options equal those of the event-by-event reference."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from distseq.models.temporal import Draws, Graph, advance, class_logits, part_loss, prepare, scores
from tests.models.temporal.reference import Reference
from tests.models.temporal.streams import STREAMS, gradients, model_of, stream_of

MODES: list[dict[str, Any]] = [
    {"mode": "parallel"},
    {"mode": "pres"},
    {"mode": "replay", "micro": 7},
    {"mode": "exact"},
]
OPTIONS: list[dict[str, Any]] = [
    {"preset": "tgn"},
    {"preset": "tgn", "message": "mlp", "updater": "rnn", "time": "learned"},
    {"preset": "tgn", "time": "slow", "head": "class"},
    {"preset": "tgn", "aggregation": "mean", "message": "mlp"},
    {"preset": "tgn", "visible": "batch"},
    {"preset": "jodie"},
    {"preset": "jodie", "visible": "batch"},
    {"preset": "dyrep"},
    {"preset": "apan"},
    {"preset": "apan", "embedding": "attention"},
]


def refused_in_exact(options: dict[str, Any]) -> bool:
    return bool({"mean", "batch", "dyrep", "apan"} & set(options.values()))


CASES = [
    {**options, **mode}
    for options in OPTIONS
    for mode in MODES
    if mode["mode"] != "exact" or not refused_in_exact(options)
]
CASES.append({"preset": "tgn", "mode": "pres", "prediction": "time"})
CUTS = (0, 1, 19, 40)


def name_of(case: dict[str, Any]) -> str:
    return "-".join(str(value) for value in case.values())


@pytest.mark.parametrize("case", CASES, ids=name_of)
@pytest.mark.parametrize("kind", ["unipartite", *(pytest.param(kind, marks=pytest.mark.long) for kind in STREAMS[::2])])
def test_losses_gradients_and_memory_are_those_of_one_event_after_the_other(case: dict[str, Any], kind: str) -> None:
    model, graph, draws = model_of(**case), Graph(stream_of(kind, CUTS[-1], nodes=9)), Draws(5, 2)
    reference, state = Reference(model, graph, draws), model.state(graph)
    for start, stop in pairwise(CUTS):
        prepared = prepare(model, graph, state, slice(start, stop), draws)
        loss = part_loss(model, prepared, np.arange(start, stop))
        loss.backward()
        found = gradients(model)
        expected = reference.batch(start, stop)
        expected.backward()
        torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-13)
        for name, gradient in gradients(model).items():
            torch.testing.assert_close(
                found[name], gradient, rtol=1e-9, atol=1e-13, msg=lambda text, n=name: f"{n}: {text}"
            )
        state = advance(model, graph, state, slice(start, stop), prepared)
        for v, node in enumerate(reference.nodes):
            torch.testing.assert_close(state.fields["memory"][v], node.memory, rtol=1e-11, atol=1e-13)
            assert int(state.fields["updated"][v]) == node.updated


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_every_tensor_gets_a_gradient(case: dict[str, Any]) -> None:
    model, graph = model_of(**case), Graph(stream_of(events=60))
    state = model.state(graph)
    for start in (0, 20, 40):
        prepared = prepare(model, graph, state, slice(start, start + 20))
        part_loss(model, prepared, np.arange(start, start + 20)).backward()
        state = advance(model, graph, state, slice(start, start + 20))
    assert [name for name, gradient in gradients(model).items() if not gradient.any()] == []


@pytest.mark.parametrize("mode", MODES, ids=name_of)
def test_scores_of_many_candidates_are_those_of_one_pair_after_the_other(mode: dict[str, Any]) -> None:
    model, graph = model_of(**mode).eval(), Graph(stream_of(events=60))
    reference, state = Reference(model, graph, Draws(0)), model.state(graph)
    state = advance(model, graph, state, slice(0, 30))
    reference.batch(0, 30)
    prepared = prepare(model, graph, state, slice(30, 60))
    candidates = np.random.default_rng(0).integers(0, graph.nodes, (30, 5))
    found = scores(model, prepared, np.arange(30, 60), graph.src[30:], candidates)
    micro = {"replay": 7, "exact": 1}.get(model.options.mode, 30)
    for e in range(30, 60):
        first = 30 + (e - 30) // micro * micro
        if e == first and e > 30:
            reference.advance(range(e - micro, e))
        source = reference.embed(int(graph.src[e]), e, first)
        expected = torch.stack([reference.score(source, reference.embed(int(c), e, first)) for c in candidates[e - 30]])
        torch.testing.assert_close(found[e - 30], expected, rtol=1e-11, atol=1e-13)


def test_logits_of_classes_are_those_of_the_source_without_dropout() -> None:
    model, graph = model_of(head="class").eval(), Graph(stream_of(events=40))
    prepared = prepare(model, graph, model.state(graph), slice(0, 40))
    reference = Reference(model, graph, Draws(0))
    logits = class_logits(model, prepared, np.arange(40))
    for e in range(40):
        expected = reference.loss(e, 0)
        torch.testing.assert_close(-logits[e].log_softmax(0)[int(graph.label[e])], expected, rtol=1e-11, atol=1e-13)
