"""Figures of rows: AP, ranks and losses by their definitions, for new nodes and for classes."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, softplus

from distseq.models.links.metrics import mean_over_batches, pooled
from distseq.models.temporal import Graph, advance, part_loss, prepare
from distseq.models.temporal.evaluation import Candidates, Evaluation, Protocol, figures
from tests.models.temporal.streams import model_of, stream_of

LINKS = ("loss", "ap", "auc", "ap_by_batch", "auc_by_batch", "mrr", "hits@10")


def rows_of(count: int = 450, seed: int = 0) -> np.ndarray:
    draws = np.random.default_rng(seed)
    rank = np.where(np.arange(count) % 3 == 0, draws.integers(1, 30, count), 0)
    return np.stack([draws.normal(1, 2, count), draws.normal(0, 2, count), rank], 1)


def test_figures_of_links_are_those_of_their_definitions() -> None:
    rows = rows_of()
    found = figures(rows)
    assert tuple(found) == LINKS
    true, other = torch.from_numpy(rows[:, :2].T)
    assert found["loss"] == pytest.approx(float((softplus(-true) + softplus(other)).mean()), rel=1e-14)
    assert (found["ap"], found["auc"]) == pooled(rows[:, 0], rows[:, 1])
    assert (found["ap_by_batch"], found["auc_by_batch"]) == mean_over_batches(rows[:, 0], rows[:, 1], 200)
    rank = rows[::3, 2]
    assert found["mrr"] == pytest.approx(np.mean(1 / rank))
    assert found["hits@10"] == pytest.approx(np.mean(rank <= 10))


def test_new_nodes_have_figures_of_their_own() -> None:
    rows, new = rows_of(), np.arange(450) % 7 == 0
    found = figures(rows, new=new)
    assert {name: found[name] for name in LINKS} == figures(rows)
    assert {name.removeprefix("new_"): value for name, value in found.items() if name.startswith("new_")} == figures(
        rows[new]
    )
    assert figures(rows, new=np.zeros(450, bool)) == figures(rows)


def test_events_that_are_not_ranked_have_no_mrr() -> None:
    rows = rows_of()
    rows[:, 2] = 0
    assert tuple(figures(rows)) == LINKS[:5]


def test_figures_of_classes_are_those_of_their_definitions() -> None:
    draws = np.random.default_rng(1)
    labels, rows = draws.integers(0, 2, 300), 30 * draws.normal(size=(300, 2))
    found = figures(rows, labels=labels, new=labels == 1)
    expected = float(cross_entropy(torch.from_numpy(rows), torch.from_numpy(labels)))
    assert found["loss"] == pytest.approx(expected, rel=1e-12)
    assert found["accuracy"] == np.mean((rows[:, 1] > rows[:, 0]) == labels)
    odds = rows[:, 1] - rows[:, 0]
    assert (found["ap"], found["auc"]) == pooled(odds[labels == 1], odds[labels == 0])
    # Of one class alone there is no AP.
    assert [name for name in found if name.startswith("new")] == ["new_loss", "new_accuracy"]
    assert tuple(figures(draws.normal(size=(9, 3)), labels=np.arange(9) % 3)) == ("loss", "accuracy")


def test_rows_and_what_belongs_to_them_have_one_length() -> None:
    with pytest.raises(ValueError, match="figures: new must have one number for each of 450 rows: got 3"):
        figures(rows_of(), new=np.zeros(3, bool))
    with pytest.raises(ValueError, match="figures: labels must have one number for each of 450 rows: got 3"):
        figures(rows_of(), labels=np.zeros(3, int))
    with pytest.raises(ValueError, match="at least one event"):
        figures(np.zeros((0, 3)))


def test_a_class_head_learns_what_the_messages_tell() -> None:
    stream = stream_of("bipartite", 400)
    # The label of an event is the sign of the source's last message.
    last: dict[int, int] = {}
    for e, (src, value) in enumerate(zip(stream.src.tolist(), stream.message[:, 0].tolist(), strict=True)):
        stream.label[e], last[src] = last.get(src, 0), int(value > 0)
    model, graph = model_of(head="class", classes=2, mode="exact", dropout=0.0, width=16), Graph(stream)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(20):
        state = model.state(graph)
        for start in range(0, 300, 50):
            prepared = prepare(model, graph, state, slice(start, start + 50))
            part_loss(model, prepared, np.arange(start, start + 50)).backward()
            state = advance(model, graph, state, slice(start, start + 50), prepared)
            optimizer.step()
            optimizer.zero_grad()
    evaluation = Evaluation(model, graph, state, range(300, 400), Protocol(batch=30))
    found = figures(evaluation.rows(np.arange(300, 400)), labels=stream.label[300:])
    assert found["accuracy"] > 0.85
    assert found["auc"] > 0.9


def test_the_loss_of_an_evaluation_is_the_loss_of_training_with_the_same_negatives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, stream, protocol = model_of().eval(), stream_of(events=60), Protocol(negatives=3)
    graph, scored = Graph(stream), range(20, 60)
    candidates = Candidates(stream, scored, protocol)
    state = advance(model, graph, model.state(graph), slice(0, 20))
    prepared = prepare(model, graph, state, slice(20, 60))
    events = np.arange(20, 60)
    monkeypatch.setattr("distseq.models.temporal.modes.negatives", lambda _, asked: candidates.paired(asked))
    expected = float(part_loss(model, prepared, events).detach())
    found = figures(Evaluation(model, graph, state, scored, protocol, candidates).rows(events))
    assert found["loss"] == pytest.approx(expected, rel=1e-12)
