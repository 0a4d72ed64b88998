"""Every preset learns, in every mode that it has: who meets whom in a stream with a rule."""

from typing import Any

import numpy as np
import pytest
import torch

from distseq.models.data.events import EventStream
from distseq.models.temporal import Draws, Graph, TemporalModel, advance, part_loss, prepare

# (options, learning rate, epochs): attention learns sooner than models that know a node by its memory alone.
CASES: list[tuple[dict[str, Any], float, int]] = [
    ({"preset": "tgn"}, 0.004, 5),
    ({"preset": "tgn", "mode": "pres"}, 0.004, 5),
    ({"preset": "tgn", "mode": "replay", "micro": 10}, 0.004, 5),
    ({"preset": "tgn", "mode": "exact"}, 0.004, 5),
    ({"preset": "tgn", "time": "slow"}, 0.004, 5),
    ({"preset": "jodie"}, 0.01, 6),
    ({"preset": "dyrep"}, 0.01, 6),
    ({"preset": "apan"}, 0.01, 10),
]


def ruled(events: int = 400) -> EventStream:
    """User u comes back to item u mod 5 of 5 items, and says so in its message."""
    rng = np.random.default_rng(0)
    user = rng.integers(0, 20, events)
    message = np.eye(5, dtype=np.float32)[user % 5]
    return EventStream(user, 20 + user % 5, np.arange(events) * 3, message)


@pytest.mark.parametrize(("case", "rate", "epochs"), CASES, ids=lambda one: str(one))
def test_the_loss_falls(case: dict[str, Any], rate: float, epochs: int) -> None:
    graph = Graph(ruled())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TemporalModel(**case, width=16, time_width=8, features=5, neighbors=5, dropout=0.1)
    optimizer, means = torch.optim.Adam(model.parameters(), rate), []
    for epoch in range(epochs):
        state, losses = model.state(graph), []
        for start in range(0, 400, 40):
            batch = slice(start, start + 40)
            prepared = prepare(model, graph, state, batch, Draws(0, epoch))
            loss = part_loss(model, prepared, np.arange(start, start + 40))
            state = advance(model, graph, state, batch, prepared)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        means.append(np.mean(losses))
    # A model that says nothing has the loss 2 log 2 = 1.386.
    assert min(means[-2:]) < 0.93 * 1.386
