"""From a decoded sum to the gradients of a learner's parameters, as `.backward()` of the mean loss would leave them.

A sum is laid out like a row (distseq.gradients.work): P numbers of the gradient, K of which parameters were reached, and extras.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from distseq.gradients.problem import EXTRAS

Parameters = Sequence[nn.Parameter]


def set_gradients(parameters: Parameters, mean: torch.Tensor) -> None:
    """Sets `.grad` from a mean laid out like a row; None for a parameter that no sample has reached."""
    # None, not zeros: an optimizer leaves such a parameter out, where zeros would have it decayed (pytorch#28294).
    for parameter, piece, reached in _pieces(parameters, mean):
        parameter.grad = piece.view_as(parameter).to(parameter.dtype) if reached else None


def after_hooks(parameters: Parameters, total: np.ndarray, samples: float) -> np.ndarray:
    """A decoded sum after the hooks of parameters, which are called once, with the mean over `samples`, as on one machine.

    It is `total` itself where no parameter has a hook.
    """
    if not any(parameter._backward_hooks for parameter in parameters):
        return total
    # Or a leaf's backward pass would add to the gradient of an earlier step.
    for parameter in parameters:
        parameter.grad = None
    total = total.copy()
    # The pieces are views of the copy, so that writing to them changes it.
    for parameter, piece, reached in _pieces(parameters, torch.from_numpy(total)):
        if parameter._backward_hooks and reached:
            # A leaf's own backward pass is its hooks, and nothing else.
            torch.autograd.backward(parameter, (piece / samples).view_as(parameter).to(parameter.dtype))
            assert parameter.grad is not None, "a backward pass leaves a gradient"
            piece.copy_(parameter.grad.flatten() * float(samples))
    return total


def with_counts(parameters: Parameters, total: np.ndarray) -> np.ndarray:
    """A sum from a checkpoint; older ones do not say which parameters were reached, and took all of them for that."""
    numbers = sum(parameter.numel() for parameter in parameters)
    old = len(total) == numbers + EXTRAS
    return np.insert(total, numbers, np.ones(len(parameters))) if old else total


def _pieces(parameters: Parameters, sums: torch.Tensor) -> Iterator[tuple[nn.Parameter, torch.Tensor, bool]]:
    """Yields (parameter, its piece of the gradient, whether a sample has reached it)."""
    numbers = [parameter.numel() for parameter in parameters]
    *pieces, counts, _ = torch.split(sums, [*numbers, len(numbers), EXTRAS])
    for parameter, piece, count in zip(parameters, pieces, counts.tolist(), strict=True):
        # Decode weights of both signs could cancel the counts of a parameter that is reached, but not its gradient too.
        yield parameter, piece, bool(count) or bool(piece.any())
