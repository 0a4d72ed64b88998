"""The base class of layers, which map sequences to sequences and can continue from a state.

Shapes: B batch, T time, W width, H heads, D head size, N states.

Layers obey the contract of coded gradients: the output for a sample depends on that sample and the parameters alone. There is
no dropout, no buffer that changes, and no state kept between calls.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import rms_norm, silu

from distseq.kernels.linear import Linear


class Layer(nn.Module):
    """A layer of equal input and output `width`. Subclasses define `mix`. ValueError unless `heads` divides `width`.

    >>> import torch
    >>> from distseq.kernels.layers import LSTM
    >>> layer, x = LSTM(8), torch.randn(2, 6, 8)
    >>> whole, _ = layer(x)
    >>> first, state = layer(x[:, :4], carry=True)
    >>> rest, _ = layer(x[:, 4:], state)
    >>> torch.allclose(whole, torch.cat([first, rest], 1), atol=1e-6)
    True
    """

    def __init__(self, width: int, heads: int = 1) -> None:
        super().__init__()
        if min(width, heads) < 1 or width % heads:
            raise ValueError(
                f"{type(self).__name__}: the number of heads must divide the width: got width={width}, heads={heads}"
            )
        self.width, self.heads, self.size = width, heads, width // heads

    def mix(self, x_BTW: Tensor, state: Any, carry: bool) -> tuple[Tensor, Any]:
        """y (B, T, W) and the state after the last step, which may be None if `carry` is false."""
        raise NotImplementedError

    def forward(self, x_BTW: Tensor, state: Any = None, carry: bool = False) -> tuple[Tensor, Any]:
        """y (B, T, W), and the state after the last step if `carry`, else None.

        Called again with that state, the layer continues the sequence, so it can run step by step. ValueError if x does not have
        the layer's width.
        """
        if x_BTW.dim() != 3 or x_BTW.shape[2] != self.width:
            raise ValueError(f"{type(self).__name__}: x must be (B, T, {self.width}): got shape {tuple(x_BTW.shape)}")
        # A layer may use a faster form that gives no state, as S4D does, and then must not hand out a wrong one.
        y, after = self.mix(x_BTW, state, carry)
        return y, after if carry else None

    def extra_repr(self) -> str:
        """The layer's options, which `print(model)` shows."""
        return f"width={self.width}, heads={self.heads}"

    def split(self, x_BTW: Tensor) -> Tensor:
        """x_BTW with its width divided into heads, (B, T, H, D)."""
        return x_BTW.unflatten(2, (self.heads, -1))


# Of a root mean square, added to the mean of the squares. torch's default is the epsilon of the dtype: a model would then be
# another function in float32 than in float64 wherever activations are small.
EPSILON = 1e-5


class Gated(nn.Module):
    """The output of a matrix-state layer: heads normalized to unit root mean square, gated by silu of a projection, projected."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = Linear(width, width, bias=False)
        self.out = Linear(width, width, bias=False)

    def forward(self, y_BTHD: Tensor, x_BTW: Tensor) -> Tensor:
        # Each head by itself, since heads of different decay have states of very different size.
        y: Tensor = self.out(rms_norm(y_BTHD, y_BTHD.shape[-1:], eps=EPSILON).flatten(2) * silu(self.gate(x_BTW)))
        return y
