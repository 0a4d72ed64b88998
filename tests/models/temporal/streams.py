"""Small streams and models for the tests of temporal models."""

from typing import Any

import numpy as np
import torch

from distseq.models.data.events import EventStream
from distseq.models.temporal import TemporalModel

FEATURES = 3
STREAMS = ("bipartite", "unipartite", "hub")


def stream_of(kind: str = "unipartite", events: int = 120, nodes: int = 14, seed: int = 0) -> EventStream:
    """bipartite: users to items, distinct times. unipartite: with self-loops and many ties. hub: node 0 in nearly every event."""
    rng = np.random.default_rng(seed)
    src, dst = rng.integers(0, nodes, (2, events))
    t = np.sort(rng.integers(0, events // 2, events))
    if kind == "bipartite":
        src, dst, t = (
            src % (nodes // 2),
            nodes // 2 + dst % (nodes - nodes // 2),
            np.cumsum(rng.integers(1, 50, events)),
        )
    if kind == "hub":
        dst = np.where(rng.random(events) < 0.9, 0, dst)
    message = rng.normal(size=(events, FEATURES)).astype(np.float32)
    # A large first time: models count from the stream's beginning.
    return EventStream(src, dst, t + 1_700_000_000, message, rng.integers(0, 3, events), nodes)


def model_of(preset: str = "tgn", seed: int = 0, **given: Any) -> TemporalModel:
    """A small model in float64, in training mode, with dropout."""
    small = {
        "width": 8,
        "time_width": 5,
        "features": FEATURES,
        "neighbors": 3,
        "slots": 4,
        "classes": 3,
        "dropout": 0.3,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = TemporalModel(preset, **{**small, **given}).double()
        # Biases of 0 would hide what reads them.
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.data += 0.1 * torch.randn(parameter.shape, dtype=parameter.dtype)
    return model


def gradients(model: TemporalModel) -> dict[str, torch.Tensor]:
    """Copies of all gradients, zeros where there is none; then they are cleared."""
    found = {
        name: torch.zeros_like(one) if one.grad is None else one.grad.clone() for name, one in model.named_parameters()
    }
    model.zero_grad()
    return found
