"""Evaluation of temporal learners: mapped work whose figures are those of one pass, from memory as training left it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

import distseq
from distseq.engine.interfaces import Observer
from distseq.engine.journal import read_journal
from distseq.learners.learner import Learner
from distseq.models.data.events import EventData
from distseq.models.data.events.dataset import Events
from distseq.models.data.events.split import Split
from distseq.models.temporal import Draws, Graph, State, TemporalModel, advance, prepare
from distseq.models.temporal.evaluation import Candidates, Evaluation, Protocol, figures
from tests.models.temporal.streams import model_of, stream_of

EVENTS, TRAINED, TEST, BATCH = 300, 200, 240, 48
OPTIONS: dict[str, Any] = {"batch": 16, "negatives": 5, "seed": 4}


class Figures(Observer):
    def __init__(self) -> None:
        self.found: list[tuple[int, Mapping[str, float]]] = []
        self.losses: list[tuple[int, float]] = []

    def figures(self, learner: str, step: int, figures: Mapping[str, float], now: float) -> None:
        self.found.append((step, figures))

    def evaluated(self, learner: str, step: int, loss: float, now: float) -> None:
        self.losses.append((step, loss))


def events(part: str = "training", **options: Any) -> Events:
    return Events(EventData(stream_of(events=EVENTS), Split(TRAINED, TEST, EVENTS)), part, **options)


def learner(steps: int = 5, part: str = "test", **model: Any) -> Learner:
    made = model_of(**model)
    optimizer = torch.optim.SGD(made.parameters(), 0.3)
    own = {} if model.get("head") == "class" else OPTIONS
    return Learner(
        "tgn", made, optimizer, data=events(), batch=BATCH, steps=steps, evaluation=events(part, **own), seed=1
    )


def trained(one: Learner, folder: Path, **options: Any) -> Figures:
    seen = Figures()
    given = {"pool": "simulated", "workers": 6, "checks": 0, "out": folder, "console": Console(quiet=True)}
    distseq.train([one], **{**given, "watchers": [seen], **options})
    return seen


def carried_state(one: Learner, steps: int) -> State:
    """The state after so many steps of a learner whose parameters stay, since its rate is 0."""
    model = one.model
    assert isinstance(model, TemporalModel)
    graph = Graph(stream_of(events=EVENTS), TRAINED)
    state = model.state(graph)
    for step in range(steps):
        start = step % 5 * BATCH
        state = state if start else model.state(graph)
        batch = slice(start, min(start + BATCH, TRAINED))
        state = advance(model, graph, state, batch, prepare(model, graph, state, batch, Draws(1, step // 5)))
    return state


def one_pass(one: Learner, state: State, first: int, stop: int) -> dict[str, float]:
    """The figures of one pass over events first .. stop - 1."""
    model, stream, protocol = one.model, stream_of(events=EVENTS), Protocol(**OPTIONS)
    assert isinstance(model, TemporalModel)
    graph, scored = Graph(stream, TRAINED), range(first, stop)
    candidates = Candidates(stream, scored, protocol, training=TRAINED)
    before = range(state.position, first)
    if len(before):
        state = Evaluation(model, graph, state, before, protocol, candidates).finish()
    rows = Evaluation(model, graph, state, scored, protocol, candidates).rows(np.arange(first, stop))
    new = one.stream_evaluation._new if one.stream_evaluation is not None else None
    return figures(rows, new=new)


MODES: list[dict[str, Any]] = [
    {"mode": "parallel"},
    {"mode": "pres"},
    {"mode": "replay", "micro": 10},
    {"mode": "exact"},
    {"preset": "apan"},
]


@pytest.mark.parametrize("options", MODES, ids=lambda options: str(options.get("mode", options.get("preset"))))
@pytest.mark.parametrize("part", ["test", "validation"])
def test_figures_are_those_of_one_pass(options: dict[str, Any], part: str, tmp_path: Path) -> None:
    one = learner(part=part, **options)
    for group in one.optimizer.param_groups:
        group["lr"] = 0.0
    seen = trained(one, tmp_path / "run", scheme="gc:1")
    first, stop = (TEST, EVENTS) if part == "test" else (TRAINED, TEST)
    expected = one_pass(one, carried_state(one, 5), first, stop)
    assert [step for step, _ in seen.found] == [5]
    assert seen.losses == [(5, expected.pop("loss"))]
    assert seen.found[0][1] == expected


def test_within_an_epoch_the_rest_of_it_is_read_first(tmp_path: Path) -> None:
    one = learner(steps=8, mode="exact")
    for group in one.optimizer.param_groups:
        group["lr"] = 0.0
    seen = trained(one, tmp_path / "run", evaluate_every=2)
    assert sorted(step for step, _ in seen.found) == [2, 4, 6, 8]
    for step, found in seen.found:
        expected = one_pass(one, carried_state(one, step), TEST, EVENTS)
        expected.pop("loss")
        assert dict(found) == expected, step


def test_the_journal_and_the_summary_have_all_figures_beside_baselines(tmp_path: Path) -> None:
    one = learner()
    seen = trained(one, tmp_path / "run")
    (record,) = [each for each in read_journal(tmp_path / "run" / "journal.jsonl") if each["kind"] == "evaluation"]
    assert record["figures"] == dict(seen.found[0][1])
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())["models"]["tgn"]
    assert summary["ap"] == record["figures"]["ap"]
    assert summary["mrr"] == record["figures"]["mrr"]
    assert set(summary["baselines"]) == {"edgebank", "popularity", "counts"}
    assert {"ap", "mrr", "hits@10"} <= set(summary["baselines"]["edgebank"])
    assert "memory carried on from training" in summary["evaluated"]
    assert "batches of 16" in summary["evaluated"]


def test_evaluation_leaves_training_as_it_is(tmp_path: Path) -> None:
    one, other = learner(mode="exact"), learner(mode="exact")
    trained(one, tmp_path / "one", evaluate_every=1)
    other.evaluation = other.stream_evaluation = None
    trained(other, tmp_path / "other")
    for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_without_a_part_the_test_events_are_evaluated(tmp_path: Path) -> None:
    model = model_of()
    one = Learner(
        "tgn", model, torch.optim.SGD(model.parameters(), 0.3), data=events(), batch=BATCH, steps=2, evaluation=events()
    )
    other = learner(steps=2)
    assert one.stream_evaluation is not None
    assert other.stream_evaluation is not None
    assert one.stream_evaluation.batches == 1, "60 events in a batch of 200"
    assert one.stream_evaluation._scored == other.stream_evaluation._scored


def test_another_mode_than_that_of_training(tmp_path: Path) -> None:
    model = model_of(mode="parallel")
    one = Learner(
        "tgn",
        model,
        torch.optim.SGD(model.parameters(), 0.3),
        data=events(),
        batch=BATCH,
        steps=2,
        evaluation=events("test", mode="exact", **OPTIONS),
    )
    seen = trained(one, tmp_path / "run")
    assert one.stream_evaluation is not None
    assert "mode exact (trained in parallel)" in one.stream_evaluation.described
    assert 0 < seen.found[0][1]["ap"] <= 1


def test_classes_have_an_accuracy(tmp_path: Path) -> None:
    one = learner(head="class")
    seen = trained(one, tmp_path / "run")
    assert 0 <= seen.found[0][1]["accuracy"] <= 1
    assert "mrr" not in seen.found[0][1]


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_pools_find_the_same_figures(pool: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if pool == "ray":
        request.getfixturevalue("ray_session")
    options = {"workers": 4, "scheme": "gc:1"}
    seen = trained(learner(mode="exact"), tmp_path / "run", pool=pool, hosts=2, **options)
    other = trained(learner(mode="exact"), tmp_path / "other", compute="rows", **options)
    assert seen.found == other.found


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        (
            Events(stream_of(events=EVENTS), "test", val=0.2, test=0.4),
            "on events after its training: got events from 12. on, where training ends at 200",
        ),
        (events("test", negatives=0), "evaluation: negatives must be a whole number of at least 1: got 0"),
        (events("test", nonsense=1), "evaluation: got an unexpected keyword argument 'nonsense'"),
        (events("test", mode="pres"), "mode 'pres' needs a gamma learned in it"),
        (events("test", kind="published"), "learner tgn: evaluation: kind 'published' needs negatives"),
        (Events(stream_of("hub", events=EVENTS), "test"), "on a later part of the stream that it learns from"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(given: Events, wrong: str) -> None:
    model = model_of()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(ValueError, match=wrong):
        Learner("tgn", model, optimizer, data=events(), batch=BATCH, steps=1, evaluation=given)
