"""The state of memory as one vector of bytes, the form in which it travels to hosts."""

import numpy as np
import torch

from distseq.models.temporal.options import Options
from distseq.models.temporal.state import State, layout


def packed(state: State) -> np.ndarray:
    """(bytes,) uint8: a copy of all fields, one after the other, and the position."""
    fields = [field.contiguous().view(torch.uint8).reshape(-1).numpy() for field in state.fields.values()]
    return np.concatenate([*fields, np.array([state.position], np.int64).view(np.uint8)])


def unpacked(vector: np.ndarray, nodes: int, options: Options, dtype: torch.dtype = torch.float32) -> State:
    """The state that was packed, which shares nothing with the vector. ValueError for a vector of another length.

    >>> state = State.empty(5, Options(width=4))
    >>> unpacked(packed(state), 5, Options(width=4)).digest() == state.digest()
    True
    """
    specs = {name: ((nodes, *shape), kind) for name, (shape, kind) in layout(options, dtype).items()}
    sizes = [int(np.prod(shape)) * kind.itemsize for shape, kind in specs.values()]
    if vector.shape != (sum(sizes) + 8,):
        raise ValueError(f"a state of {nodes} nodes has {sum(sizes) + 8} bytes: got {vector.shape}")
    pieces = np.split(vector, np.cumsum(sizes))
    fields = {}
    for (name, (shape, kind)), piece in zip(specs.items(), pieces, strict=False):
        # A boolean is a byte of 0 or 1.
        fields[name] = torch.from_numpy(piece.copy()).view(kind).view(shape)
    return State(fields, int(pieces[-1].copy().view(np.int64)[0]))
