"""How well a model predicts text that it was not trained on."""

import math
from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor, nn

from distseq.models.text import Text


class Model(Protocol):
    """What is asked of a model here: the one method that every model has, and to know where it lies."""

    def per_sample_loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Mean negative log likelihood of each window, in nats a character: (B,)."""
        ...

    def parameters(self) -> Iterable[nn.Parameter]: ...


@torch.no_grad()
def bits_per_char(model: Model, dataset: Text, limit: int | None = None, batch_size: int = 256) -> float:
    """Bits a character over the held-out windows, or `limit` of them; below `unigram_entropy` once it has learned.

    The model is evaluated where it lies and in the mode, train or eval, that it is in.
    """
    device = next(iter(model.parameters())).device
    held_out = dataset.held_out(limit)
    losses = []
    for start in range(0, len(held_out["inputs"]), batch_size):
        batch = {name: tensor[start : start + batch_size].to(device) for name, tensor in held_out.items()}
        losses.append(model.per_sample_loss(batch).double())
    return torch.cat(losses).mean().item() / math.log(2)
