"""A learner's model, loss and data on one host, and the functions that compute losses from them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from distseq.coding.factory import load_factory
from distseq.gradients.data import Source
from distseq.gradients.device import moved
from distseq.gradients.memory import HostMemory
from distseq.gradients.side_effects import Watched
from distseq.gradients.threads import one_thread
from distseq.models.data.dataset import Dataset

# Numbers of a row behind the gradient: the weighted sums of losses and of counts. Both are additive over samples, so that they
# are decoded with the gradient and cost no message of their own.
EXTRAS = 2

DTYPES = {"float32": torch.float32, "float64": torch.float64}

# (model, batch) -> (B,) losses, or (B,) sums of losses and (B,) counts of what they were summed over
Loss = Callable[[Any, Any], torch.Tensor | tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Problem:
    """What one learner learns: a model on a device, its data and its loss; the same on every host."""

    model: nn.Module
    source: Source
    parameters: tuple[nn.Parameter, ...]  # trained ones, in the order of a row's gradient
    loss: Loss | None = None  # None = the model's own per_sample_loss
    memory: HostMemory | None = None  # of a temporal model

    @cached_property
    def watched(self) -> Watched:
        """Tells whether a pass has changed the model; first used before its first pass."""
        return Watched(self.model)

    @property
    def loss_name(self) -> str:
        """What error messages call the loss."""
        return "per_sample_loss" if self.loss is None else "loss"

    @property
    def data(self) -> Dataset:
        return self.source.dataset


def model_factory(target: str) -> Callable[..., Any]:
    """The class or function that makes the model `target`, "module:name". Nothing but its module is run.

    ValueError when it cannot be imported, or may not be called to make a model (distseq.coding.factory).
    """
    return load_factory(target, "model", lambda kind: issubclass(kind, nn.Module), "subclass of torch.nn.Module")


def build_model(target: str, args: Mapping[str, Any], seed: int, dtype: torch.dtype) -> nn.Module:
    """Builds the model `target` "module:name" with `args`, its random weights drawn from `seed`, and casts it to `dtype`.

    ValueError when it cannot be imported or built, names what makes no model (`model_factory`), or has no per_sample_loss.
    """
    factory = model_factory(target)
    # A forked generator: building a model must not change what a user's own code draws next.
    with torch.random.fork_rng(devices=[]), one_thread():
        torch.manual_seed(seed)
        try:
            model = factory(**args)
        except (Exception, SystemExit) as error:  # a user's model may raise anything
            kind = "" if isinstance(error, TypeError | RuntimeError | ValueError) else f"{type(error).__name__}: "
            raise ValueError(f"model {target!r} with {dict(args)}: {kind}{' '.join(str(error).split())}") from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"model {target!r} must be a torch.nn.Module: got {type(model).__name__}")
    if not callable(getattr(model, "per_sample_loss", None)):
        raise ValueError(f"model {target!r} has no method per_sample_loss(batch) -> (B,)")
    return cast(model, dtype)


def cast(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The model with its floating-point parameters and buffers of type `dtype`; complex ones stay as they are."""
    # Module.to(dtype) would make real numbers of complex ones: tables of rotary embeddings would lose their imaginary part.
    model._apply(lambda t: t.to(dtype) if t.is_floating_point() else t)  # type: ignore[no-untyped-call]
    return model


def trained(model: nn.Module) -> tuple[nn.Parameter, ...]:
    """The trained parameters of a model, in the order of a row's gradient."""
    return tuple(p for p in model.parameters() if p.requires_grad)


def row_length(parameters: Sequence[nn.Parameter]) -> int:
    """P + K + EXTRAS: the numbers of a row of K trained parameters, which have P numbers."""
    return sum(p.numel() for p in parameters) + len(parameters) + EXTRAS


def losses(problem: Problem, ids: np.ndarray, batch: Any) -> torch.Tensor:
    """(B,) losses of samples `ids`, or their sums where the loss also returns counts; see `losses_and_counts`."""
    return losses_and_counts(problem, ids, batch)[0]


def losses_and_counts(problem: Problem, ids: np.ndarray, batch: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(B,) losses of samples `ids`, whose `batch` has been read, and (B,) counts, None where the loss returns none.

    Both are on the model's device and in its parameters' dtype, counts without a gradient. ValueError for any other shape, for
    losses of less precision than the parameters, and for a count that is negative or not finite, naming its sample.
    """
    device, dtype, own = problem.parameters[0].device, problem.parameters[0].dtype, problem.loss is None
    batch = batch if device.type == "cpu" else moved(batch, device)
    found = problem.model.per_sample_loss(batch) if own else problem.loss(problem.model, batch)  # type: ignore[operator, misc]
    what = problem.loss_name
    losses_B, counts_B = pair(found, what)
    _check_vector(losses_B, len(ids), what, "losses")
    losses_B = _precise(losses_B, dtype, what)
    if counts_B is not None:
        _check_vector(counts_B, len(ids), what, "counts")
        if counts_B.is_complex():
            raise ValueError(f"{what} must return counts that are real numbers: got {counts_B.dtype}")
        counts_B = counts_B.detach().to(device, dtype)
        check_counts(counts_B, ids, what)
    return losses_B, counts_B


def pair(found: Any, what: str) -> tuple[Any, Any]:
    """Splits what a loss returned into losses and counts, None for losses alone. ValueError for a tuple of another length."""
    if not isinstance(found, tuple | list):
        return found, None
    if len(found) != 2:
        raise ValueError(f"{what} must return losses, or the pair (sums, counts): got {len(found)} values")
    return found[0], found[1]


def _check_vector(values: Any, length: int, what: str, of: str) -> None:
    if not isinstance(values, torch.Tensor):
        raise ValueError(f"{what} must return a tensor of ({length},) {of}: got {type(values).__name__}")
    if values.shape != (length,):
        raise ValueError(f"{what} must return ({length},) {of}: got shape {tuple(values.shape)}")


def _precise(losses_B: torch.Tensor, dtype: torch.dtype, what: str) -> torch.Tensor:
    """Losses in the dtype of the parameters. ValueError where they are of less precision, or no real floating point numbers.

    float64 targets make float64 losses of a float32 model. A half-precision loss has a gradient in which the weights of a row
    are rounded: rows of a code would not add up to the batch's.
    """
    if losses_B.dtype != dtype and not (losses_B.dtype is torch.float64 and dtype is torch.float32):
        wanted = " or float64" if dtype is torch.float32 else ""
        got, own = (str(one).removeprefix("torch.") for one in (losses_B.dtype, dtype))
        raise ValueError(f"{what} must return losses of {own}{wanted}, as its parameters are {own}: got {got}")
    return losses_B.to(dtype)


def check_counts(counts_B: torch.Tensor, ids: np.ndarray, what: str) -> None:
    """ValueError naming the first of samples `ids` whose count is negative or not finite."""
    wrong = ~(torch.isfinite(counts_B) & (counts_B >= 0))
    if wrong.any():
        first = int(wrong.nonzero()[0])
        raise ValueError(
            f"{what} returned the count {float(counts_B[first]):g} for sample {int(ids[first])}: "
            "a count must be finite and at least 0"
        )


def check_counted(counted: bool, expected: bool | None, what: str) -> None:
    """ValueError when a loss returns counts but did not do so when it was tried, or the reverse."""
    if expected is not None and counted != expected:
        now, then = ("counts", "none") if counted else ("no counts", "them")
        raise ValueError(
            f"{what} returns {now} for these samples, but returned {then} when it was tried: it must always return losses "
            "alone, or always the pair (sums, counts)"
        )


def load_vector(parameters: Sequence[nn.Parameter], vector: np.ndarray) -> None:
    """Copies a flat vector (P,) into parameters, in their order. ValueError when the lengths differ."""
    sizes = [p.numel() for p in parameters]
    if sum(sizes) != len(vector):
        raise ValueError(f"the model has {sum(sizes)} parameters, the vector {len(vector)}")
    with torch.no_grad():
        for parameter, piece in zip(parameters, np.split(vector, np.cumsum(sizes)[:-1]), strict=True):
            parameter.copy_(torch.tensor(piece).view_as(parameter))
