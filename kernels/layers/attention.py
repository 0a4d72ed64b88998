"""Softmax layers: causal attention and Aaren. Shapes: B batch, T time, W width, H heads, D head size."""

from typing import Any

import torch
from torch import Tensor, nn

from distseq.kernels.layers.layer import Layer
from distseq.kernels.linear import Linear
from distseq.kernels.primitives import attention, prefix_softmax

# The base of Su et al. (2021): the slowest pair turns once in about 2 pi ROUND steps, far more than any sequence here has.
ROUND = 10000.0


def rotated(x_BTHD: Tensor, first: int) -> Tensor:
    """x_BTHD with each pair (d, d + D/2) rotated by an angle proportional to its position, which starts at `first`.

    Products of rotated queries and keys depend on their distance only (rotary embedding, Su et al. 2021).
    """
    T, D = x_BTHD.shape[1], x_BTHD.shape[3]
    # float64: an angle is position times rate, and at position 1e5 float32 rounds it to a hundredth of a radian.
    rates = ROUND ** (-torch.arange(0, D, 2, device=x_BTHD.device, dtype=torch.float64) / D)
    angles = (first + torch.arange(T, device=x_BTHD.device))[:, None, None] * rates
    cos, sin = angles.cos().to(x_BTHD.dtype), angles.sin().to(x_BTHD.dtype)
    one, other = x_BTHD.chunk(2, -1)
    return torch.cat([one * cos - other * sin, one * sin + other * cos], -1)


class Attention(Layer):
    """Causal softmax attention (Vaswani et al. 2017) with rotary embedding (Su et al. 2021).

    `window`: the number of latest steps that a query sees, its own among them; None for all. The state holds the keys and values
    that may still be seen. ValueError for heads that do not divide the width, an odd head size or a window below 1.

    >>> import torch
    >>> y, (seen, (keys, values, _)) = Attention(8, heads=2, window=3)(torch.randn(2, 10, 8), carry=True)
    >>> y.shape, seen, keys.shape
    (torch.Size([2, 10, 8]), 10, torch.Size([2, 2, 2, 4]))
    """

    def __init__(self, width: int, heads: int = 4, window: int | None = None) -> None:
        super().__init__(width, heads)
        if self.size % 2:
            raise ValueError(f"Attention needs an even head size: got {self.size}")
        if window is not None and window < 1:
            raise ValueError(f"Attention: window must be at least 1: got {window}")
        self.window = window
        self.project = Linear(width, 3 * width, bias=False)
        self.out = Linear(width, width, bias=False)

    def mix(self, x_BTW: Tensor, state: Any, carry: bool) -> tuple[Tensor, Any]:
        # The position counts on through the state: rotations of old keys stay as they were.
        seen, keys = state if state is not None else (0, None)
        q, k, v = (self.split(each) for each in self.project(x_BTW).chunk(3, -1))
        o, keys = attention(rotated(q, seen), rotated(k, seen), v, keys, window=self.window)
        return self.out(o.flatten(2)), (seen + x_BTW.shape[1], keys)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, window={self.window}"


class Aaren(Layer):
    """Attention of one learned query per head over the prefix: a recurrence with constant memory (Feng et al. 2024).

    The query does not depend on the input, so this is a weighted mean of the past and no substitute for attention in general.

    >>> import torch
    >>> Aaren(8, heads=2)(torch.randn(2, 10, 8))[0].shape
    torch.Size([2, 10, 8])
    """

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__(width, heads)
        # Unit deviation, like the entries of a projected query: scores start as in attention.
        self.query = nn.Parameter(torch.randn(heads, self.size))
        self.project = Linear(width, 2 * width, bias=False)
        self.out = Linear(width, width, bias=False)

    def mix(self, x_BTW: Tensor, state: Any, carry: bool) -> tuple[Tensor, Any]:
        k, v = (self.split(each) for each in self.project(x_BTW).chunk(2, -1))
        o, state = prefix_softmax((k * self.query).sum(-1) * self.size**-0.5, v, state)
        return self.out(o.flatten(2)), state
