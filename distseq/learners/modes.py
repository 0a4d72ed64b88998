"""Optimizers with `train()` and `eval()`, such as Schedule-Free ones, whose weights to train and to evaluate differ."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


def switches(optimizer: Any) -> bool:
    """Whether the optimizer has `train()` and `eval()`."""
    return callable(getattr(optimizer, "train", None)) and callable(getattr(optimizer, "eval", None))


def to_training(optimizer: Any) -> None:
    """Has the parameters be those to train; nothing for an optimizer without modes."""
    if switches(optimizer):
        optimizer.train()


@contextmanager
def evaluation_weights(optimizer: Any, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Has the parameters be those to evaluate, and afterwards those to train, to the bit."""
    if not switches(optimizer):
        yield
        return
    to_training(optimizer)
    kept = [parameter.detach().clone() for parameter in parameters]
    optimizer.eval()
    try:
        yield
    finally:
        optimizer.train()
        # There and back rounds: an evaluation would change the training.
        with torch.no_grad():
            for parameter, value in zip(parameters, kept, strict=True):
                parameter.copy_(value)
