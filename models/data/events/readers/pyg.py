"""Streams from a PyTorch Geometric `TemporalData` in memory."""

from typing import Any

from distseq.models.data.events.stream import EventStream


def from_temporal_data(data: Any) -> EventStream:
    """The stream of an object with tensors src, dst, t and, if they are there, msg (E, F) and y (E,); memory is shared.

    >>> from types import SimpleNamespace
    >>> import torch
    >>> ends = {"src": torch.tensor([0, 1]), "dst": torch.tensor([2, 2])}
    >>> from_temporal_data(SimpleNamespace(**ends, t=torch.tensor([5, 6]), msg=torch.ones(2, 3))).message.shape
    (2, 3)
    """
    found = {name: getattr(data, name, None) for name in ("src", "dst", "t", "msg", "y")}
    names = {"src": "src", "dst": "dst", "t": "t", "msg": "message", "y": "label"}
    return EventStream(**{names[name]: each.numpy(force=True) for name, each in found.items() if each is not None})
