"""Where rows are computed: the host's CPU or its GPU."""

from collections.abc import Mapping
from typing import Any

import torch

from distseq.config.schema import DEVICES


def choose_device(name: str) -> torch.device:
    """The device of one of DEVICES on this host; "auto" is cuda where there is one.

    On cuda, float32 stays float32: TF32 is switched off in this process. ValueError for cuda where there is none.
    """
    if name not in DEVICES:
        raise ValueError(f"device must be one of {', '.join(DEVICES)}: got {name!r}")
    present = torch.cuda.is_available()
    if name == "cuda" and not present:
        raise ValueError("device is cuda, and this host has no CUDA device: set it to auto or cpu")
    if name == "cpu" or not present:
        return torch.device("cpu")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda")


def moved(batch: Any, device: torch.device) -> Any:
    """The batch with whatever has a method `to` on the device, in nested dicts, lists and tuples; the rest as it is."""
    if callable(getattr(batch, "to", None)):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: moved(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(moved(value, device) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(moved(value, device) for value in batch)
    return batch
