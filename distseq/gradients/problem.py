"""A learner's model, loss and data on one host, and the functions that compute losses from them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from distseq.coding.import_string import load_object
from distseq.gradients.data import Source
from distseq.gradients.device import moved
from distseq.models.data.dataset import Dataset

# Numbers of a row behind the gradient: the weighted sum of losses, and the sum of weights. Both are additive over samples, so
# that they are decoded with the gradient and cost no message of their own.
EXTRAS = 2

DTYPES = {"float32": torch.float32, "float64": torch.float64}

Loss = Callable[[Any, Any], torch.Tensor]  # (model, batch) -> (B,)


@dataclass(frozen=True)
class Problem:
    """What one learner learns: a model on a device, its data and its loss; the same on every host."""

    model: nn.Module
    source: Source
    parameters: tuple[nn.Parameter, ...]  # trained ones, in the order of a row's gradient
    loss: Loss | None = None  # None = the model's own per_sample_loss

    @property
    def data(self) -> Dataset:
        return self.source.dataset


def build_model(target: str, args: Mapping[str, Any], seed: int, dtype: torch.dtype) -> nn.Module:
    """Builds the model `target` "module:name" with `args`, its random weights drawn from `seed`, and casts it to `dtype`.

    ValueError when it cannot be imported or built, or has no per_sample_loss.
    """
    # A forked generator: building a model must not change what a user's own code draws next.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = load_object(target)(**args)
        except (TypeError, RuntimeError) as error:
            raise ValueError(f"model {target!r} with {dict(args)}: {error}") from None
    if not isinstance(model, nn.Module):
        raise ValueError(f"model {target!r} must be a torch.nn.Module: got {type(model).__name__}")
    if not callable(getattr(model, "per_sample_loss", None)):
        raise ValueError(f"model {target!r} has no method per_sample_loss(batch) -> (B,)")
    return model.to(dtype)


def trained(model: nn.Module) -> tuple[nn.Parameter, ...]:
    """The trained parameters of a model, in the order of a row's gradient."""
    return tuple(p for p in model.parameters() if p.requires_grad)


def losses(problem: Problem, ids: np.ndarray, batch: Any) -> torch.Tensor:
    """(B,) losses of samples `ids`, whose `batch` has been read, on the model's device. ValueError for any other shape."""
    device, own = problem.parameters[0].device, problem.loss is None
    batch = batch if device.type == "cpu" else moved(batch, device)
    losses_B = problem.model.per_sample_loss(batch) if own else problem.loss(problem.model, batch)  # type: ignore[operator, misc]
    what = "per_sample_loss" if own else "loss"
    if not isinstance(losses_B, torch.Tensor):
        raise ValueError(f"{what} must return a tensor of ({len(ids)},) losses: got {type(losses_B).__name__}")
    if losses_B.shape != (len(ids),):
        raise ValueError(f"{what} must return ({len(ids)},) losses: got shape {tuple(losses_B.shape)}")
    return losses_B


def load_vector(parameters: Sequence[nn.Parameter], vector: np.ndarray) -> None:
    """Copies a flat vector (P,) into parameters, in their order. ValueError when the lengths differ."""
    sizes = [p.numel() for p in parameters]
    if sum(sizes) != len(vector):
        raise ValueError(f"the model has {sum(sizes)} parameters, the vector {len(vector)}")
    with torch.no_grad():
        for parameter, piece in zip(parameters, np.split(vector, np.cumsum(sizes)[:-1]), strict=True):
            parameter.copy_(torch.tensor(piece).view_as(parameter))
