"""Muon's step on matrices: torch's own where it is there, else the same rule written here."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# (value, gradient, momentum): tensors (rows, columns); the first and the last are changed in place.
Matrix = tuple[Tensor, Tensor, Tensor]


class Options(NamedTuple):
    """Of a step, named as torch.optim.Muon names them."""

    lr: float
    momentum: float
    nesterov: bool
    ns_coefficients: tuple[float, float, float]
    ns_steps: int
    eps: float
    weight_decay: float
    adjust_lr_fn: str | None


def step(matrices: Sequence[Matrix], options: Options, *, full_precision: bool = False) -> None:
    """Steps matrices by Muon (Jordan et al. 2024); `full_precision`: orthogonalizes in their dtype, not in bfloat16."""
    # torch has it since 2.9, in bfloat16 alone.
    if full_precision or not hasattr(torch.optim, "Muon"):
        _own_step(matrices, options, None if full_precision else torch.bfloat16)
        return
    values = [value.detach() for value, _, _ in matrices]
    # Of one step: what lasts is the momentum, which its owner keeps in the shape of whole parameters.
    optimizer = torch.optim.Muon(values, **options._asdict())
    for value, (_, gradient, momentum) in zip(values, matrices, strict=True):
        value.grad = gradient
        optimizer.state[value]["momentum_buffer"] = momentum
    optimizer.step()  # type: ignore[no-untyped-call]


def _own_step(matrices: Sequence[Matrix], options: Options, dtype: torch.dtype | None) -> None:
    for value, gradient, momentum in matrices:
        momentum.lerp_(gradient, 1 - options.momentum)
        ahead = gradient.lerp(momentum, options.momentum) if options.nesterov else momentum
        update = orthogonalized(ahead.to(dtype or ahead.dtype), options.ns_coefficients, options.ns_steps, options.eps)
        value.mul_(1 - options.lr * options.weight_decay)
        value.add_(update, alpha=-options.lr * factor(options.adjust_lr_fn, *value.shape))


def orthogonalized(matrix: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """(rows, columns): U V^T of the matrix U S V^T, roughly: a few Newton-Schulz steps take S to between .5 and 1.5.

    Each maps every singular value s to a s + b s^3 + c s^5 (Jordan et al. 2024); five with their coefficients take all above
    about .01 of the norm there.

    >>> import torch
    >>> x = orthogonalized(torch.diag(torch.tensor([3.0, 1.0])), (3.4445, -4.775, 2.0315), 5, 1e-7)
    >>> bool((torch.linalg.svdvals(x) - 1).abs().max() < 0.5)
    True
    """
    a, b, c = coefficients
    # The smaller of the two products: x x^T is (rows, rows).
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    # By the Frobenius norm, which is no smaller than the largest singular value: the steps diverge from beyond 1.
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        squares = x @ x.T
        x = torch.addmm(x, torch.addmm(squares, squares, squares, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


def factor(kind: str | None, rows: int, columns: int) -> float:
    """By which a matrix's learning rate is multiplied: sqrt(max(1, rows / columns)), or .2 sqrt(max(rows, columns)).

    The first ("original", None) keeps the gain of a layer's outputs (Jordan et al. 2024), the second ("match_rms_adamw") the
    usual size of Adam's updates (Liu et al. 2025, Muon is scalable for LLM training, eq. 4).

    >>> factor("original", 8, 2)
    2.0
    """
    if kind == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1, rows / columns))
