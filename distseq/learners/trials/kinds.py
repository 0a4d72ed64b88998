"""Which learners are of one kind, so that one of them is tried for all."""

from collections.abc import Hashable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from distseq.gradients.data import Source, tensors
from distseq.learners.learner import Learner


def kind(learner: Learner, source: Source) -> Hashable:
    """Equal for learners of equal classes and settings, with equal shapes of batches and kinds of data.

    Values of parameters, buffers and samples are left out: other values go the same way through the same code, and rows are
    checked during the run. DataError when the learner's first sample cannot be read.
    """
    # Of a sweep over learning rates all are of one kind; an optimizer without momentum is of another kind than one with it.
    groups = [
        {key: value == 0 if isinstance(value, int | float) else value for key, value in _plain(group).items()}
        | {"params": len(group["params"])}
        for group in learner.optimizer.param_groups
    ]
    settings = (learner.batch, learner.clip is None, learner.accumulate, learner.ema, learner.evaluation is None)
    return (
        *(repr(part) for part in (_model(learner.model), groups, settings)),
        *(
            _object(part)
            for part in (learner.loss, learner.optimizer, learner.schedule, learner.data, learner.evaluation)
        ),
        _batch(source.batch(learner.ids(0)[:1])),
    )


def _model(model: nn.Module) -> list[Any]:
    return [
        (
            name,
            type(module),
            module.training,
            _plain(vars(module)),
            [(key, value.shape, value.dtype, value.requires_grad) for key, value in _tensors(module)],
            [len(hooks) for hooks in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)],
        )
        for name, module in model.named_modules()
    ]


def _tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    for table in (module._parameters, module._buffers):
        yield from ((key, value) for key, value in table.items() if value is not None)


def _plain(state: Any) -> dict[str, Any]:
    """The entries that are numbers, text, types, or tuples of them; of functions the code, of others the type."""
    return {
        key: value if isinstance(value, bool | int | float | str | tuple | type | None) else _object(value)
        for key, value in state.items()
    }


def _object(value: Any) -> Hashable:
    """What tells an object from one of another kind: its type, or for a function the function itself."""
    code = getattr(value, "__code__", None)
    # A function that is made anew for each learner has one code; what it closes over may differ in kind.
    cells = [_object(cell.cell_contents) for cell in getattr(value, "__closure__", None) or () if _filled(cell)]
    kind: type = type(value)
    return (code, repr(cells)) if code is not None else (kind, type(getattr(value, "_data", None)))


def _filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def _batch(batch: Any) -> str:
    return repr([(name, tuple(tensor.shape[1:]), tensor.dtype) for name, tensor in tensors(batch)])


def further(count: int, wanted: int) -> np.ndarray:
    """At most `wanted` sample ids, evenly spaced over `count` samples."""
    # Spread over the data, so that padding, rare classes or other lengths have a chance to be among them.
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).astype(np.int64))
