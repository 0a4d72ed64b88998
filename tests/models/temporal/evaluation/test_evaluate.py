"""Rows of an evaluation: those of one event after the other, the same however the events are cut into parts."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from distseq.models.data.events import EventStream
from distseq.models.temporal import Draws, Graph, State, TemporalModel, advance, class_logits, prepare
from distseq.models.temporal.evaluation import Candidates, Evaluation, Protocol, parts
from tests.models.temporal.reference import Reference
from tests.models.temporal.streams import model_of, stream_of

MODES: list[dict[str, Any]] = [
    {"mode": "parallel"},
    {"mode": "pres"},
    {"mode": "replay", "micro": 7},
    {"mode": "exact"},
]
CASES = [
    {"preset": preset, **mode}
    for preset in ("tgn", "jodie", "dyrep", "apan")
    for mode in MODES
    if mode["mode"] != "exact" or preset in ("tgn", "jodie")
]
CASES.append({"preset": "tgn", "visible": "batch", "mode": "parallel"})
EVENTS, FIRST = 90, 40


def name_of(case: dict[str, Any]) -> str:
    return "-".join(map(str, case.values()))


def before(model: TemporalModel, graph: Graph, first: int = FIRST) -> State:
    """The state before an event, reached in two batches."""
    state = advance(model, graph, model.state(graph), slice(0, 17))
    return advance(model, graph, state, slice(17, first))


def rows_of(
    model: TemporalModel, stream: EventStream, protocol: Protocol, asked: np.ndarray | None = None, **given: Any
) -> np.ndarray:
    """Of the events from FIRST on, by a new evaluation."""
    graph, scored = Graph(stream), range(FIRST, len(stream))
    candidates = Candidates(stream, scored, protocol, **given)
    evaluation = Evaluation(model, graph, before(model, graph), scored, protocol, candidates)
    return evaluation.rows(np.arange(FIRST, len(stream)) if asked is None else asked)


def slow_rows(model: TemporalModel, stream: EventStream, protocol: Protocol) -> np.ndarray:
    """The same, event by event, from the equations."""
    graph, scored = Graph(stream), range(FIRST, len(stream))
    candidates, reference = Candidates(stream, scored, protocol), Reference(model, graph, Draws(0))
    model.eval()
    for first, last in ((0, 17), (17, FIRST)):
        reference.batch(first, last)
    found = []
    for start in range(FIRST, len(stream), protocol.batch):
        stop = min(start + protocol.batch, len(stream))
        micro = {"replay": model.options.micro, "exact": 1}.get(model.options.mode, stop - start)
        for first in range(start, stop, micro):
            some = range(first, min(first + micro, stop))
            for e in some:
                one = np.array([e])
                asked = [int(graph.dst[e]), int(candidates.paired(one)[0]), *candidates.against(one)[0].tolist()]
                source = reference.embed(int(graph.src[e]), e, first)
                logits = [float(reference.score(source, reference.embed(c, e, first)).detach()) for c in asked]
                above = sum(each > logits[0] + 1e-13 for each in logits[2:])
                same = sum(
                    c == asked[0] or abs(x - logits[0]) < 1e-13 for c, x in zip(asked[2:], logits[2:], strict=True)
                )
                ranked = (e - FIRST) % protocol.every == 0
                found.append((logits[0], logits[1], 1 + above + same / 2 if ranked else 0))
            reference.advance(some)
    return np.array(found)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_rows_are_those_of_one_event_after_the_other(case: dict[str, Any]) -> None:
    model, stream = model_of(**case), stream_of("bipartite", FIRST + 25, nodes=9)
    protocol = Protocol(batch=16, negatives=3, every=2, seed=4)
    found, slow = rows_of(model, stream, protocol), slow_rows(model, stream, protocol)
    np.testing.assert_allclose(found[:, :2], slow[:, :2], rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(found[:, 2], slow[:, 2])


@pytest.mark.parametrize("kind", ["uniform", "historical"])
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_parts_give_the_rows_of_one_pass_bit_for_bit(case: dict[str, Any], kind: str) -> None:
    model, stream = model_of(**case).float(), stream_of(events=EVENTS)
    protocol = Protocol(batch=16, negatives=5, kind=kind, every=3)
    given = {"training": FIRST}
    whole = rows_of(model, stream, protocol, **given)
    events = np.arange(FIRST, EVENTS)
    # Cut at batches, inside them, and every third event.
    for cut in (parts(range(FIRST, EVENTS), 3, batch=16), np.split(events, [1, 17, 30]), [events[::3], events[1::2]]):
        for part in cut:
            np.testing.assert_array_equal(rows_of(model, stream, protocol, part, **given), whole[part - FIRST])


def test_one_evaluation_goes_on_from_where_it_is() -> None:
    model, stream = model_of(mode="exact"), stream_of(events=EVENTS)
    graph, protocol, scored = Graph(stream), Protocol(batch=16, negatives=4), range(FIRST, EVENTS)
    evaluation = Evaluation(model, graph, before(model, graph), scored, protocol, Candidates(stream, scored, protocol))
    events = np.arange(FIRST, EVENTS)
    found = np.concatenate([evaluation.rows(part) for part in np.split(events, [3, 16, 20])])
    np.testing.assert_array_equal(found, rows_of(model, stream, protocol))
    state = before(model, graph)
    for start in range(FIRST, EVENTS, 16):
        state = advance(model, graph, state, slice(start, min(start + 16, EVENTS)))
    assert evaluation.finish().digest() == state.digest()


@pytest.mark.parametrize(("dtype", "off"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_in_mode_exact_the_evaluation_batch_does_not_matter(dtype: torch.dtype, off: float) -> None:
    model, stream = model_of(mode="exact").to(dtype), stream_of(events=380, nodes=40)
    found = [rows_of(model, stream, Protocol(batch=batch, negatives=5)) for batch in (1, 7, 200, 333)]
    for other in found[1:]:
        np.testing.assert_allclose(found[0][:, :2], other[:, :2], rtol=off, atol=off)
    # Ranks are the same but where a candidate is nearly as high as the true destination, as one without events yet is to another.
    assert np.mean(found[0][:, 2] == found[3][:, 2]) > 0.98
    stale = rows_of(model, stream, Protocol(batch=200, negatives=5, mode="parallel"))
    assert np.abs(stale[:, :2] - found[0][:, :2]).max() > 0.01


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_a_later_event_changes_no_earlier_row(case: dict[str, Any]) -> None:
    model, stream, last = model_of(**case), stream_of(events=EVENTS), 65
    message, src = np.array(stream.message), np.array(stream.src)
    message[last + 1 :] *= -2
    src[last + 1 :] = np.roll(src, 5)[last + 1 :]
    later = replace(stream, src=src, message=message)
    protocol = Protocol(batch=16, negatives=4)
    one, other = (rows_of(model, each, protocol)[: last + 1 - FIRST] for each in (stream, later))
    # The batch of the event is computed with others in it, so its last bits may differ.
    np.testing.assert_array_equal(one[: 56 - FIRST], other[: 56 - FIRST])
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)


def test_events_before_those_that_are_evaluated_are_streamed_over() -> None:
    model, stream = model_of(mode="replay", micro=5), stream_of(events=EVENTS)
    graph, protocol = Graph(stream), Protocol(batch=20, negatives=4)
    candidates = Candidates(stream, range(FIRST + 7, EVENTS), protocol)
    evaluation = Evaluation(model, graph, model.state(graph), range(EVENTS), protocol, candidates)
    found = evaluation.rows(np.arange(FIRST + 7, EVENTS))
    state = model.state(graph)
    for start in range(0, FIRST, 20):
        state = advance(model, graph, state, slice(start, start + 20))
    carried = Evaluation(model, graph, state, range(FIRST, EVENTS), protocol, candidates)
    np.testing.assert_array_equal(found, carried.rows(np.arange(FIRST + 7, EVENTS)))


def test_dropout_is_not_applied_and_the_model_is_left_as_it_is() -> None:
    model, stream = model_of(dropout=0.5), stream_of(events=EVENTS)
    assert model.training
    trained = {name: value.clone() for name, value in model.state_dict().items()}
    found = rows_of(model, stream, Protocol(negatives=4))
    assert model.training
    assert all(torch.equal(value, trained[name]) for name, value in model.state_dict().items())
    np.testing.assert_array_equal(found, rows_of(model.eval(), stream, Protocol(negatives=4)))


def test_the_number_of_threads_changes_no_bit() -> None:
    model, stream = model_of(width=64, time_width=32).float(), stream_of(events=EVENTS)
    found, threads = [], torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(rows_of(model, stream, Protocol(negatives=20)))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(*found)


def test_equal_scores_share_their_ranks() -> None:
    model, stream = model_of(), stream_of(events=EVENTS)
    for parameter in (model.head.out.weight, model.head.out.bias):
        parameter.data.zero_()
    rows = rows_of(model, stream, Protocol(negatives=8, every=2))
    np.testing.assert_array_equal(rows[:, 2], np.where(np.arange(len(rows)) % 2 == 0, 1 + 8 / 2, 0))
    # Historical negatives are fewer where the source has few others left; only those there are count.
    protocol = Protocol(negatives=60, kind="historical")
    found = Candidates(stream, range(FIRST, EVENTS), protocol, training=FIRST).against(np.arange(FIRST, EVENTS))
    assert (found < 0).any()
    rows = rows_of(model, stream, protocol, training=FIRST)
    np.testing.assert_array_equal(rows[:, 2], 1 + (found >= 0).sum(1) / 2)


def test_many_candidates_are_scored_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    model, stream, protocol = model_of(), stream_of(events=EVENTS), Protocol(negatives=8)
    whole = rows_of(model, stream, protocol)
    monkeypatch.setattr("distseq.models.temporal.evaluation.evaluate.PAIRS", 37)
    np.testing.assert_allclose(rows_of(model, stream, protocol), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mode", MODES, ids=name_of)
def test_classes_of_events_are_evaluated_in_parts(mode: dict[str, Any]) -> None:
    model, stream = model_of(head="class", **mode), stream_of(events=EVENTS)
    graph, protocol = Graph(stream), Protocol(batch=16)
    state = before(model, graph)
    whole = Evaluation(model, graph, state.copy(), range(FIRST, EVENTS), protocol).rows(np.arange(FIRST, EVENTS))
    prepared = prepare(model, graph, state, slice(FIRST, FIRST + 16))
    expected = class_logits(model, prepared, np.arange(FIRST, FIRST + 16)).detach()
    np.testing.assert_array_equal(whole[:16], expected)
    late = np.arange(FIRST + 20, EVENTS - 3)
    part = Evaluation(model, graph, state.copy(), range(FIRST, EVENTS), protocol).rows(late)
    np.testing.assert_array_equal(part, whole[late - FIRST])


@pytest.mark.parametrize(
    ("asked", "named"),
    [([FIRST - 1], FIRST - 1), ([EVENTS], EVENTS), ([FIRST + 3, FIRST + 1], FIRST + 1)],
)
def test_events_that_cannot_be_asked_for_are_named(asked: list[int], named: int) -> None:
    with pytest.raises(ValueError, match=rf"evaluation: events must be sorted and within 40 \.\. 89: got {named}$"):
        rows_of(model_of(), stream_of(events=EVENTS), Protocol(), np.array(asked))


def test_a_batch_that_was_passed_cannot_be_asked_for_again() -> None:
    model, graph = model_of(head="class"), Graph(stream_of(events=EVENTS))
    evaluation = Evaluation(model, graph, before(model, graph), range(FIRST, EVENTS), Protocol(batch=10))
    evaluation.rows(np.array([55]))
    evaluation.rows(np.array([51]))
    with pytest.raises(ValueError, match=r"within 50 \.\. 89: got 49"):
        evaluation.rows(np.array([49]))


def test_what_an_evaluation_needs_is_said() -> None:
    model, graph = model_of(), Graph(stream_of(events=EVENTS))
    with pytest.raises(ValueError, match=r"state includes 40 events, so the range begins there: got range\(50, 90\)"):
        Evaluation(model, graph, before(model, graph), range(50, EVENTS), Protocol())
    with pytest.raises(ValueError, match="a model of links needs candidates"):
        Evaluation(model, graph, before(model, graph), range(FIRST, EVENTS), Protocol())
