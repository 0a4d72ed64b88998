"""What every layer is: a map of sequences of vectors that can go on from a state.

Shapes: B batch, T time, W width, H heads, D head size, N states.

Layers obey the contract of coded gradients: a sample's output depends on that sample and the parameters alone; no dropout, no
buffer that changes, no state kept between calls.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import rms_norm, silu

from distseq.kernels.linear import Linear


class Layer(nn.Module):
    """`width` is that of what comes in and goes out. Subclasses define `mix`."""

    def __init__(self, width: int, heads: int = 1) -> None:
        super().__init__()
        if min(width, heads) < 1 or width % heads:
            raise ValueError(
                f"{type(self).__name__} needs heads that divide the width: got width={width}, heads={heads}"
            )
        self.width, self.heads, self.size = width, heads, width // heads

    def mix(self, x_BTW: Tensor, state: Any, carry: bool) -> tuple[Tensor, Any]:
        """y (B, T, W) and the state after it; where `carry` is false, nobody will look at the state."""
        raise NotImplementedError

    def forward(self, x_BTW: Tensor, state: Any = None, carry: bool = False) -> tuple[Tensor, Any]:
        """y (B, T, W), and the state after it if `carry`, else None: given back, the layer goes on from there, so that single
        steps are the sequence. ValueError when x does not have the layer's width."""
        if x_BTW.dim() != 3 or x_BTW.shape[2] != self.width:
            raise ValueError(f"{type(self).__name__}: x must be (B, T, {self.width}): got shape {tuple(x_BTW.shape)}")
        y, after = self.mix(x_BTW, state, carry)
        return y, after if carry else None

    def split(self, x_BTW: Tensor) -> Tensor:
        """(B, T, H, D)."""
        return x_BTW.unflatten(2, (self.heads, -1))


class Gated(nn.Module):
    """Output of a matrix-state layer: each head to unit root mean square, times silu of a projection of x, projected."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = Linear(width, width, bias=False)
        self.out = Linear(width, width, bias=False)

    def forward(self, y_BTHD: Tensor, x_BTW: Tensor) -> Tensor:
        y: Tensor = self.out(rms_norm(y_BTHD, y_BTHD.shape[-1:]).flatten(2) * silu(self.gate(x_BTW)))
        return y
