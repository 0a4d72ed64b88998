"""Several models of one shape in one call: torch.func.vmap lays the models beside each other along the heads.

Every operation of a primitive works on each head alone, so a model's numbers do not depend on who is beside it; that its bits
do not either is not promised here: it hangs on the library's products, and who stacks tries it (distseq/gradients/passes.py).
M models.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Axes = Sequence[int | None]  # of each argument, where its heads are in one model; None: it has none
Found = tuple[Any, Any]  # what a static method `vmap` returns: outputs, and where the models are in each


def along_heads(
    function: Any, info: Any, dims: Axes, args: Sequence[Any], heads: Axes, outputs: Sequence[int]
) -> Found:
    """`function` called once with M times the heads. Outputs past those of `outputs` are what only its backward looks at."""
    M = info.batch_size
    found = function.apply(*(_folded(each, dim, axis, M) for each, dim, axis in zip(args, dims, heads, strict=True)))
    if isinstance(found, Tensor):
        return _unfolded(found, outputs[0], M), 0
    unfolded = (_unfolded(each, axis, M) for each, axis in zip(found, outputs, strict=False))
    return (*unfolded, *found[len(outputs) :]), (*(0,) * len(outputs), *(None,) * (len(found) - len(outputs)))


def _unfolded(found: Tensor, axis: int, M: int) -> Tensor:
    """(M, ...), each model's numbers where they are without the others."""
    return found.unflatten(axis, (M, -1)).movedim(axis, 0).contiguous()


def beside(arg: Tensor, dim: int | None, axis: int, M: int) -> Tensor:
    """The models' axis where `axis` is in one model; what all models share is expanded."""
    return (
        arg.unsqueeze(axis).expand(*arg.shape[:axis], M, *arg.shape[axis:]) if dim is None else arg.movedim(dim, axis)
    )


def _folded(arg: Any, dim: int | None, axis: int | None, M: int) -> Any:
    return arg if arg is None or axis is None else beside(arg, dim, axis, M).flatten(axis, axis + 1).contiguous()


def one_by_one(function: Any, info: Any, dims: Axes, args: Sequence[Any], outputs: int) -> Found:
    """`function` called for each model, where the models cannot share a call."""

    def of(arg: Any, dim: int | None, at: int) -> Any:
        return arg if dim is None else arg.select(dim, at)

    calls = [
        function.apply(*(of(arg, dim, at) for arg, dim in zip(args, dims, strict=True)))
        for at in range(info.batch_size)
    ]
    found = [torch.stack(each) for each in list(zip(*calls, strict=True))[:outputs]]
    return (*found, *calls[0][outputs:]), (*(0,) * outputs, *(None,) * (len(calls[0]) - outputs))
