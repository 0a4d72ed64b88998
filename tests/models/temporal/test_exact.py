"""Mode exact: the memory of batch size 1 at any batch size."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distseq.models.temporal import Graph, TemporalModel, advance, part_loss, prepare, scores
from distseq.models.temporal.exact import levels, previous
from tests.models.temporal.streams import STREAMS, gradients, model_of, stream_of

ENDS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=30)


def all_scores(
    model: TemporalModel, graph: Graph, size: int, candidates: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of all events at a batch size, and the memory at the end."""
    state, found = model.state(graph), []
    for start in range(0, graph.events, size):
        batch = slice(start, min(start + size, graph.events))
        prepared = prepare(model, graph, state, batch)
        found.append(scores(model, prepared, np.arange(start, batch.stop), graph.src[batch], candidates[batch]))
        state = advance(model, graph, state, batch, prepared)
    return torch.cat(found), state.fields["memory"]


@pytest.mark.parametrize(
    ("preset", "kind"),
    [
        ("tgn", "unipartite"),
        ("jodie", "hub"),
        *(pytest.param("tgn", kind, marks=pytest.mark.long) for kind in STREAMS[::2]),
    ],
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)], ids=["64", "32"])
def test_scores_and_memory_are_the_same_at_every_batch_size(
    kind: str, preset: str, dtype: torch.dtype, tolerance: float
) -> None:
    model, graph = model_of(preset, mode="exact").to(dtype).eval(), Graph(stream_of(kind, 210))
    candidates = np.random.default_rng(0).integers(0, graph.nodes, (graph.events, 4))
    expected, memory = all_scores(model, graph, 1, candidates)
    for size in (7, 200):
        found, last = all_scores(model, graph, size, candidates)
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(last, memory, rtol=tolerance, atol=tolerance)


def test_a_batch_in_parallel_is_not_exact_but_batches_of_one_event_are() -> None:
    graph = Graph(stream_of(events=80))
    candidates = np.random.default_rng(0).integers(0, graph.nodes, (80, 4))
    exact, parallel = model_of(mode="exact").eval(), model_of(mode="parallel").eval()
    expected, _ = all_scores(exact, graph, 80, candidates)
    torch.testing.assert_close(all_scores(parallel, graph, 1, candidates)[0], expected, rtol=1e-12, atol=1e-12)
    assert (all_scores(parallel, graph, 80, candidates)[0] - expected).abs().max() > 1e-3


def test_the_gradient_is_that_of_batches_of_one_event_summed() -> None:
    graph = Graph(stream_of(events=60))
    exact, single = model_of(mode="exact", dropout=0.0), model_of(mode="parallel", dropout=0.0)
    part_loss(exact, prepare(exact, graph, exact.state(graph), slice(0, 60)), np.arange(60)).backward()
    state = single.state(graph)
    for e in range(60):
        prepared = prepare(single, graph, state, slice(e, e + 1))
        (part_loss(single, prepared, np.array([e])) / 60).backward()
        state = advance(single, graph, state, slice(e, e + 1))
    expected = gradients(single)
    for name, gradient in gradients(exact).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-10, atol=1e-13)


@given(pairs=ENDS)
def test_events_of_a_level_share_no_node_and_each_level_follows_one_before(pairs: list[tuple[int, int]]) -> None:
    level = levels(np.array(pairs).reshape(-1), 6)
    for at, pair in enumerate(pairs):
        earlier = [level[e] for e in range(at) if set(pairs[e]) & set(pair)]
        assert level[at] == max(earlier, default=-1) + 1


@given(pairs=ENDS)
def test_a_version_comes_from_the_last_one_of_its_node_of_an_earlier_event(pairs: list[tuple[int, int]]) -> None:
    ends = [end for pair in pairs for end in pair]
    for version, before in enumerate(previous(np.array(ends)).tolist()):
        earlier = [one for one in range(version) if ends[one] == ends[version] and one // 2 < version // 2]
        assert before == max(earlier, default=-1)
