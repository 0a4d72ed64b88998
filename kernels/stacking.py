"""Rules for torch.func.vmap that compute several models of one shape in a single call.

A primitive computes each head independently of the others, so a model's numbers do not depend on the models it is stacked
with. Its bits may, because libraries choose their products by size: distseq/gradients/passes.py tries each shape before it
stacks. M models.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Axes = Sequence[int | None]  # for each argument, the axis of its heads in one model; None: it has none
VmapResult = tuple[Any, Any]  # the result of a static method `vmap`: outputs, and the axis of the models in each


def along_heads(
    function: Any, info: Any, dims: Axes, args: Sequence[Any], heads: Axes, outputs: Sequence[int]
) -> VmapResult:
    """`function` called once with M times the heads. Outputs beyond those of `outputs` are for its own backward only."""
    M = info.batch_size
    # Folded into the heads, so that neither forward nor backward of a primitive knows of models.
    found = function.apply(*(_folded(each, dim, axis, M) for each, dim, axis in zip(args, dims, heads, strict=True)))
    if isinstance(found, Tensor):
        return _unfolded(found, outputs[0], M), 0
    unfolded = (_unfolded(each, axis, M) for each, axis in zip(found, outputs, strict=False))
    return (*unfolded, *found[len(outputs) :]), (*(0,) * len(outputs), *(None,) * (len(found) - len(outputs)))


def _unfolded(found: Tensor, axis: int, M: int) -> Tensor:
    """(M, ...), with each model's numbers laid out as if it had been computed alone."""
    # Contiguous, because later sums over a tensor of other strides may take another order, and with it other bits.
    return found.unflatten(axis, (M, -1)).movedim(axis, 0).contiguous()


def with_models_axis(arg: Tensor, dim: int | None, axis: int, M: int) -> Tensor:
    """The argument with the models' axis at `axis`, which it moves one further; what all models share is expanded."""
    return (
        arg.unsqueeze(axis).expand(*arg.shape[:axis], M, *arg.shape[axis:]) if dim is None else arg.movedim(dim, axis)
    )


def _folded(arg: Any, dim: int | None, axis: int | None, M: int) -> Any:
    return (
        arg if arg is None or axis is None else with_models_axis(arg, dim, axis, M).flatten(axis, axis + 1).contiguous()
    )


def one_by_one(function: Any, info: Any, dims: Axes, args: Sequence[Any], outputs: int) -> VmapResult:
    """`function` called once for each model, for functions whose models cannot share a call."""

    # Where it is slower than one call, distseq/gradients/passes.py finds out and does not stack.
    def of(arg: Any, dim: int | None, at: int) -> Any:
        return arg if dim is None else arg.select(dim, at)

    calls = [
        function.apply(*(of(arg, dim, at) for arg, dim in zip(args, dims, strict=True)))
        for at in range(info.batch_size)
    ]
    found = [torch.stack(each) for each in list(zip(*calls, strict=True))[:outputs]]
    return (*found, *calls[0][outputs:]), (*(0,) * outputs, *(None,) * (len(calls[0]) - outputs))
