"""Evaluation mode of a model, and back to the mode that each of its modules had; losses without a graph."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import TypeVar

import torch
from torch import nn

T = TypeVar("T")


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[nn.Module]:
    """Calls `model.eval()`, and restores the mode of each module afterwards: a frozen one may have been in eval mode before.

    Yields the model, or a copy of it where a module has a `train` or `eval` of its own, which may do more than set flags.
    """
    modules = list(model.modules())
    if any(type(one).train is not nn.Module.train or type(one).eval is not nn.Module.eval for one in modules):
        # LoRA's layers, for example, add their matrices to the frozen weights and subtract them again, which rounds.
        yield deepcopy(model).eval()
        return
    modes = [one.training for one in modules]
    model.eval()
    try:
        yield model
    finally:
        for one, mode in zip(modules, modes, strict=True):
            one.training = mode


def without_graph(losses: Callable[[], T]) -> T:
    """What a call computes, without gradients; with a graph if it takes gradients itself, as a gradient penalty does."""
    try:
        with torch.no_grad():
            return losses()
    except RuntimeError as error:
        if "does not require grad" not in str(error):
            raise
    with torch.enable_grad():
        return losses()
