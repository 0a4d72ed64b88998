"""Chooses the device on which a host computes rows, and moves batches there."""

from collections.abc import Mapping
from typing import Any

import torch

from distseq.config.schema import DEVICES


def choose_device(name: str) -> torch.device:
    """The device called `name` (one of DEVICES) on this host; "auto" is cuda if the host has it, else the CPU.

    ValueError for cuda on a host without a CUDA device.
    """
    if name not in DEVICES:
        raise ValueError(f"device must be one of {', '.join(DEVICES)}: got {name!r}")
    present = torch.cuda.is_available()
    if name == "cuda" and not present:
        raise ValueError("device=cuda needs a CUDA device, which this host lacks: set device to auto or cpu")
    if name == "cpu" or not present:
        return torch.device("cpu")
    # TF32 has 10 bits of mantissa: a decoded gradient would differ from the full batch's by 1e-3 instead of 1e-7.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda")


def moved(batch: Any, device: torch.device) -> Any:
    """A batch on `device`: whatever has a method `to`, in nested dicts, lists and tuples, is moved, the rest unchanged."""
    # Not only tensors: batches of graph libraries have `to`, too.
    if callable(getattr(batch, "to", None)):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: moved(value, device) for key, value in batch.items()}
    # A NamedTuple takes its fields as arguments, other tuples one iterable.
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(moved(value, device) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(moved(value, device) for value in batch)
    return batch
