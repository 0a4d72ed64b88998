"""Rows of several learners whose models have one shape, computed in one pass: models stacked along the kernels' heads.

A stack is used only where it has been seen to give the very bits of rows computed one by one, so that replicas agree whoever
stacks. Which bits come out hangs on shapes, not on values (what does not is never stacked: see the kernels' vmap rules), so a
shape is tried once.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Rows = list[np.ndarray]


class Proven:
    """What is known of each shape: whether its stack has the bits of its rows."""

    def __init__(self) -> None:
        self._equal: dict[Hashable, bool] = {}

    def rows(self, shape: Hashable, alone: Callable[[], Rows], together: Callable[[], Rows]) -> Rows:
        """The rows, together where that has been proven; the first time of a shape, both ways. What only `together` raises
        (an operation without a rule for stacks) means: never of this shape."""
        if shape not in self._equal:
            rows = alone()
            try:
                stacked = together()
            except (RuntimeError, NotImplementedError, ValueError):
                stacked = []
            self._equal[shape] = [row.tobytes() for row in rows] == [row.tobytes() for row in stacked]
            return rows
        return together() if self._equal[shape] else alone()


class _Loss(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Any) -> Tensor:
        losses: Tensor = self.model.per_sample_loss(batch)  # type: ignore[operator]
        return losses


def stacked_rows(
    model: nn.Module, vectors: Sequence[Tensor], batches: Sequence[dict[str, Tensor]], weights: Sequence[Tensor]
) -> list[Tensor]:
    """One row for each vector of parameters (P,), its batch and weights (B,): as distseq.task, gradient, loss and weights.

    RuntimeError where the model has an operation that cannot be stacked, ValueError where the batches differ in shape.
    """
    if len({tuple((name, each.shape, each.dtype) for name, each in batch.items()) for batch in batches}) > 1:
        raise ValueError("batches of different shapes cannot be stacked")
    own = {f"model.{name}": each for name, each in model.named_parameters() if each.requires_grad}
    pieces = torch.stack(list(vectors)).split([each.numel() for each in own.values()], 1)
    stacked = {
        name: piece.reshape(len(vectors), *each.shape).requires_grad_()
        for (name, each), piece in zip(own.items(), pieces, strict=True)
    }
    batch = {name: torch.stack([each[name] for each in batches]) for name in batches[0]}
    losses_MB = torch.func.vmap(lambda p, b: torch.func.functional_call(_Loss(model), p, (b,)))(stacked, batch)
    losses = [losses_B @ weights_B for losses_B, weights_B in zip(losses_MB, weights, strict=True)]
    total = torch.stack(losses).sum()
    gradients = torch.autograd.grad(total, list(stacked.values()), allow_unused=True, materialize_grads=True)
    return [
        torch.cat([*(each[m].flatten() for each in gradients), loss.detach()[None], weights[m].sum()[None]])
        for m, loss in enumerate(losses)
    ]
