"""Layers whose state is a matrix for each head.

Shapes: B batch, T time, W width, H heads, D head size, P projections, L taps.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, normalize, silu

from distseq.kernels.composed import lightnet, mlstm
from distseq.kernels.layers.layer import Gated, Layer
from distseq.kernels.linear import Linear
from distseq.kernels.primitives import delta_rule, linear_attention, short_conv

DAMPED = 16  # log-decays are divided by this: heads begin with long memories (Yang et al. 2023, GLA)
TAPS = 4


class Keyed(Layer):
    """Queries, keys and values from one projection, each behind a short convolution; a gated output.

    The convolution begins as the identity, except that the last of a step's `steps` keys takes 1 / (2 steps) of the input
    before and the rest of the present one: a value is then written at the key that came before it, which recall needs and
    training seldom finds from the identity. More of the past where there are more keys keeps words of a group from being learned.
    """

    def __init__(self, width: int, heads: int, steps: int = 1) -> None:
        super().__init__(width, heads)
        total = (1 + 2 * steps) * width
        self.project = Linear(width, total, bias=False)
        taps_PWL = torch.zeros(1 + 2 * steps, width, TAPS)
        taps_PWL[:, :, -1] = 1.0
        taps_PWL[steps, :, -2:] = torch.tensor([0.5 / steps, 1 - 0.5 / steps])
        self.taps = nn.Parameter(taps_PWL.flatten(0, 1))
        self.gated = Gated(width)

    def keyed(self, x_BTW: Tensor, state: Any) -> tuple[tuple[Tensor, ...], Tensor]:
        """q, then all k, then all v, each (B, T, H, D), and the last inputs of the convolution."""
        mixed, inputs = short_conv(self.project(x_BTW), self.taps, state)
        return tuple(self.split(each) for each in silu(mixed).split(self.width, -1)), inputs


class LinearAttention(Keyed):
    """S <- diag(e^g) S + k v^T with log-decays g of the input: `decay` none, scalar (one for each head)
    or vector (one for each key)."""

    def __init__(self, width: int, heads: int = 4, decay: str = "scalar") -> None:
        super().__init__(width, heads)
        sizes = {"none": 0, "scalar": heads, "vector": width}
        if decay not in sizes:
            raise ValueError(f"LinearAttention: decay must be one of {', '.join(sizes)}: got {decay!r}")
        self.decay = Linear(width, sizes[decay]) if sizes[decay] else None
        self.vector = decay == "vector"

    def mix(self, x_BTW: Tensor, state: Any, carry: bool) -> tuple[Tensor, Any]:
        inputs, matrix = state if state is not None else (None, None)
        (q, k, v), inputs = self.keyed(x_BTW, inputs)
        g = None if self.decay is None else logsigmoid(self.decay(x_BTW)) / DAMPED
        g = self.split(g) if g is not None and self.vector else g
        o, matrix = linear_attention(q, k * self.size**-0.5, v, g, matrix)
        return self.gated(o, x_BTW), (inputs, matrix)


class MLSTM(Keyed):
    """The matrix memory of xLSTM (Beck et al. 2024): exponential input gate, sigmoid forget gate, a normalizer."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__(width, heads)
        self.gates = Linear(width, 2 * heads)
        nn.init.zeros_(self.gates.weight)
        with torch.no_grad():  # forget gates from 3 to 6: heads begin with memories of different lengths
            self.gates.bias.copy_(torch.cat([torch.zeros(heads), torch.linspace(3.0, 6.0, heads)]))

    def mix(self, x_BTW: Tensor, state: Any, carry: bool) -> tuple[Tensor, Any]:
        inputs, memory = state if state is not None else (None, None)
        (q, k, v), inputs = self.keyed(x_BTW, inputs)
        i_BTH, f_BTH = self.gates(x_BTW).chunk(2, -1)
        o, memory = mlstm(q, k * self.size**-0.5, v, i_BTH, f_BTH, memory)
        return self.gated(o, x_BTW), (inputs, memory)


class DeltaProduct(Keyed):
    """`steps` generalized Householder products for each step (Siems et al. 2025); one of them, gated, is Gated DeltaNet.

    beta = 2 sigmoid, so that a product may reflect: eigenvalues from -1 to 1.
    """

    def __init__(self, width: int, heads: int = 4, steps: int = 2, gated: bool = True) -> None:
        if steps < 1:
            raise ValueError(f"DeltaProduct needs steps >= 1: got {steps}")
        super().__init__(width, heads, steps)
        self.steps = steps
        self.beta = Linear(width, steps * heads)
        self.decay = Linear(width, heads) if gated else None
        if self.decay is not None:
            nn.init.constant_(self.decay.bias, 3.0)

    def mix(self, x_BTW: Tensor, state: Any, carry: bool) -> tuple[Tensor, Any]:
        inputs, matrix = state if state is not None else (None, None)
        (q, *kv), inputs = self.keyed(x_BTW, inputs)
        k, v = (torch.stack(each, 2).flatten(1, 2) for each in (kv[: self.steps], kv[self.steps :]))
        beta = 2 * torch.sigmoid(self.beta(x_BTW)).unflatten(2, (self.steps, self.heads)).flatten(1, 2)
        g = None if self.decay is None else logsigmoid(self.decay(x_BTW))
        o, matrix = delta_rule(normalize(q, dim=-1), normalize(k, dim=-1), v, beta, g, matrix, steps=self.steps)
        return self.gated(o, x_BTW), (inputs, matrix)


class LightNet(Keyed):
    """Linear attention whose decay normalizes its keys over time: an additive softmax of keys (Qin et al. 2024)."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__(width, heads)

    def mix(self, x_BTW: Tensor, state: Any, carry: bool) -> tuple[Tensor, Any]:
        inputs, memory = state if state is not None else (None, None)
        (q, k, v), inputs = self.keyed(x_BTW, inputs)
        o, memory = lightnet(q, k, v, memory)
        return self.gated(o, x_BTW), (inputs, memory)
