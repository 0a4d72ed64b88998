"""A later event changes no earlier score, bit for bit: what an event reads is decided by the events before it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from distseq.models.data.events import EventStream
from distseq.models.temporal import Graph, TemporalModel, advance, part_loss, prepare, scores
from tests.models.temporal.streams import model_of, stream_of

CASES: list[dict[str, Any]] = [
    {"preset": preset, **mode}
    for preset in ("tgn", "jodie", "dyrep", "apan")
    for mode in ({"mode": "parallel"}, {"mode": "pres"}, {"mode": "replay", "micro": 9}, {"mode": "exact"})
    if mode["mode"] != "exact" or preset in ("tgn", "jodie")
]
EVENTS, BATCH, LAST = 90, 30, 47


def changed(stream: EventStream) -> EventStream:
    """The stream with other events after the event LAST, in the same batch and behind it."""
    src, dst, t, message = (np.array(one) for one in (stream.src, stream.dst, stream.t, stream.message))
    later = slice(LAST + 1, None)
    src[later], dst[later] = dst[later], np.roll(src, 5)[later]
    t[later] = np.maximum.accumulate(t[later] + 3)
    message[later] *= -2
    return replace(stream, src=src, dst=dst, t=t, message=message)


def earlier_scores(model: TemporalModel, graph: Graph) -> list[torch.Tensor]:
    """Scores of the events up to LAST, and the loss of those of its batch."""
    state, found = model.state(graph), []
    candidates = np.random.default_rng(0).integers(0, graph.nodes, (EVENTS, 4))
    for start in range(0, LAST + 1, BATCH):
        events = np.arange(start, min(start + BATCH, LAST + 1))
        prepared = prepare(model, graph, state, slice(start, start + BATCH))
        found.append(scores(model, prepared, events, graph.src[events], candidates[events]))
        with torch.no_grad():
            found.append(part_loss(model, prepared, events)[None])
        state = advance(model, graph, state, slice(start, start + BATCH), prepared)
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_a_later_event_changes_no_earlier_score(case: dict[str, Any]) -> None:
    # Coherence counts the nodes of the whole batch, so it is left out of the loss that is compared.
    model = model_of(**case, **({"beta": 0.0} if case["mode"] == "pres" else {})).float()
    stream = stream_of(events=EVENTS)
    # The mean time between events is taken over the events that both streams share.
    before = earlier_scores(model, Graph(stream, LAST + 1))
    after = earlier_scores(model, Graph(changed(stream), LAST + 1))
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_a_change_of_an_earlier_event_is_seen() -> None:
    model, stream = model_of(), stream_of(events=EVENTS)
    message = np.array(stream.message)
    message[BATCH - 1] += 1
    before = earlier_scores(model, Graph(stream))
    after = earlier_scores(model, Graph(replace(stream, message=message)))
    assert not torch.equal(before[2], after[2])
