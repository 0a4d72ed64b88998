"""Rows of several learners whose models are built alike, in one pass: torch.func.vmap over their parameters and batches.

A stack is used where it has been seen to give the very bits of rows computed one by one, so that replicas agree whoever stacks.
Which operations are chosen hangs on shapes and not on values, so a shape is tried once; and once more with parameters that
were moved at random, for a gradient of zeros says nothing. Shapes: M rows, P parameters, B samples.
"""

import warnings
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distseq.cluster.work import Asked

MOVED = 0.02  # standard deviation of what is added to parameters for the second trial

Rows = list[np.ndarray]


class Trials:
    """Which shapes, for how many rows, have been seen to be equal, of which learners."""

    def __init__(self) -> None:
        self._equal: dict[Hashable, bool] = {}
        self._met: set[int] = set()

    def passed(
        self,
        shape: Hashable,
        asked: Sequence[Asked],
        alone: Callable[[Sequence[Asked]], Rows],
        together: Callable[[Sequence[Asked]], Rows],
    ) -> bool:
        """Whether these may be computed together; learners that have not been met are tried first."""
        key, learners = (shape, len(asked)), {each.payload.learner for each in asked}
        if self._equal.get(key, True) and not (key in self._equal and learners <= self._met):
            self._equal[key] = all(same_bits(alone, together, each) for each in (asked, moved(asked)))
            self._met |= learners if self._equal[key] else set()
        return self._equal[key]


def same_bits(
    alone: Callable[[Sequence[Asked]], Rows], together: Callable[[Sequence[Asked]], Rows], asked: Sequence[Asked]
) -> bool:
    """Not, where the model has an operation that cannot be stacked, or only by a loop that torch warns of."""
    expected = alone(asked)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "There is a performance drop")
        try:
            found = together(asked)
        except Exception:  # a user's model may raise anything where its tensors are stacked
            return False
    return [row.tobytes() for row in found] == [row.tobytes() for row in expected]


def moved(asked: Sequence[Asked]) -> list[Asked]:
    """The same of other parameters, as another version of the job."""
    draws = np.random.default_rng(0)

    def other(parameters: np.ndarray) -> np.ndarray:
        return parameters + MOVED * draws.standard_normal(parameters.shape).astype(parameters.dtype)

    payloads = (each.payload for each in asked)
    others = (replace(each, parameters=other(each.parameters), version=-1 - each.version) for each in payloads)
    return [each._replace(payload=payload) for each, payload in zip(asked, others, strict=True)]


class _Loss(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Any) -> Tensor:
        losses: Tensor = self.model.per_sample_loss(batch)  # type: ignore[operator]
        return losses


def stacked_rows(
    models: Sequence[nn.Module], vectors_MP: Tensor, batches: Sequence[dict[str, Tensor]], weights_MB: Tensor
) -> Tensor:
    """(M, P + 2): the rows of distseq.task of the models, of one structure, with these trained parameters."""
    vectors_MP.requires_grad_()
    own = [{**dict(model.named_parameters()), **dict(model.named_buffers())} for model in models]
    trained = {name: each for name, each in models[0].named_parameters() if each.requires_grad}
    values = {name: torch.stack([each[name] for each in own]) for name in own[0].keys() - trained.keys()}
    pieces = torch.split(vectors_MP, [each.numel() for each in trained.values()], 1)
    values |= {
        name: piece.reshape(len(models), *each.shape)
        for (name, each), piece in zip(trained.items(), pieces, strict=True)
    }
    batch = {name: torch.stack([each[name] for each in batches]) for name in batches[0]}
    named = {f"model.{name}": value for name, value in values.items()}
    losses_MB = torch.func.vmap(lambda own, b: torch.func.functional_call(_Loss(models[0]), own, (b,)))(named, batch)
    losses = torch.stack([losses_B @ weights_B for losses_B, weights_B in zip(losses_MB, weights_MB, strict=True)])
    (gradients_MP,) = torch.autograd.grad(losses.sum(), vectors_MP)
    sums = torch.stack([weights_B.sum() for weights_B in weights_MB])
    return torch.cat([gradients_MP, losses.detach()[:, None], sums[:, None]], 1)
