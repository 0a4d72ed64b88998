"""Layers with a matrix as the state of each head: linear attention, mLSTM, DeltaProduct, LightNet.

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

# Divisor of log-decays (Yang et al. 2023, GLA): a fresh sigmoid halves the state in each step, and 2^(-1/16) halves it in 16.
DAMPED = 16
TAPS = 4  # as in Mamba and DeltaNet: more cost time, and the recurrence sees farther anyway


class Keyed(Layer):
    """Queries, keys and values from one projection, each after a short convolution; and a gated output.

    `steps`: keys and values for each step. The convolution starts as the identity, except that the last key of a step mixes in
    the previous input.
    """

    def __init__(self, width: int, heads: int, steps: int = 1) -> None:
        super().__init__(width, heads)
        total = (1 + 2 * steps) * width
        self.project = Linear(width, total, bias=False)
        taps_PWL = torch.zeros(1 + 2 * steps, width, TAPS)
        taps_PWL[:, :, -1] = 1.0
        # A value is then written at the key that came before it, which recall needs and training seldom finds from the identity.
        # With more keys for each step, a larger share of the past kept words of a group from being learned, hence 1 / steps.
        taps_PWL[steps, :, -2:] = torch.tensor([0.5 / steps, 1 - 0.5 / steps])
        self.taps = nn.Parameter(taps_PWL.flatten(0, 1))
        self.gated = Gated(width)

    def keyed(self, x_BTW: Tensor, state: Any) -> tuple[tuple[Tensor, ...], Tensor]:
        """(q, all k, all v), each (B, T, H, D), and the last inputs of the convolution, its state."""
        # One convolution over all projections: a call costs more than its few taps.
        mixed, inputs = short_conv(self.project(x_BTW), self.taps, state)
        return tuple(self.split(each) for each in silu(mixed).split(self.width, -1)), inputs


class LinearAttention(Keyed):
    """Gated linear attention, S <- diag(e^g) S + k v^T, with log-decays g computed from the input.

    `decay`: "none", "scalar" (one for each head) or "vector" (one for each key; GLA, Yang et al. 2023). Queries and keys pass
    silu, and heads are normalized at the output, in place of the feature map and the normalizer of Katharopoulos et al. (2020).
    ValueError for another decay, or heads that do not divide the width.

    >>> import torch
    >>> y, (inputs, matrix) = LinearAttention(8, heads=2)(torch.randn(2, 10, 8), carry=True)
    >>> y.shape, matrix.shape
    (torch.Size([2, 10, 8]), torch.Size([2, 2, 4, 4]))
    """

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
        # Log-decays directly: the logarithm of a computed sigmoid would be -inf where the gate closes.
        g = None if self.decay is None else logsigmoid(self.decay(x_BTW)) / DAMPED
        g = self.split(g) if g is not None and self.vector else g
        # Scaled on the keys, as in attention: products of queries and keys then do not grow with the head size.
        o, matrix = linear_attention(q, k * self.size**-0.5, v, g, matrix)
        return self.gated(o, x_BTW), (inputs, matrix)

    def extra_repr(self) -> str:
        decay = "none" if self.decay is None else "vector" if self.vector else "scalar"
        return f"{super().extra_repr()}, decay={decay}"


class MLSTM(Keyed):
    """The mLSTM of xLSTM (Beck et al. 2024): a matrix memory with exponential input gate, sigmoid forget gate, a normalizer.

    Values too pass the short convolution, and the output gate is silu instead of a sigmoid; the projections around it that widen
    the paper's block are left to the model.

    >>> import torch
    >>> MLSTM(8, heads=2)(torch.randn(2, 10, 8))[0].shape
    torch.Size([2, 10, 8])
    """

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__(width, heads)
        self.gates = Linear(width, 2 * heads)
        nn.init.zeros_(self.gates.weight)
        # Forget gates start at sigmoid(3) to sigmoid(6), memories of some 20 to 400 steps: heads of different length (Beck et al.
        # 2024). Their weights are zero, so that a gate does not depend on the input before it has learned to.
        with torch.no_grad():
            self.gates.bias.copy_(torch.cat([torch.zeros(heads), torch.linspace(3.0, 6.0, heads)]))

    def mix(self, x_BTW: Tensor, state: Any, carry: bool) -> tuple[Tensor, Any]:
        inputs, memory = state if state is not None else (None, None)
        (q, k, v), inputs = self.keyed(x_BTW, inputs)
        i_BTH, f_BTH = self.gates(x_BTW).chunk(2, -1)
        o, memory = mlstm(q, k * self.size**-0.5, v, i_BTH, f_BTH, memory)
        return self.gated(o, x_BTW), (inputs, memory)


class DeltaProduct(Keyed):
    """`steps` generalized Householder products per step (Siems et al. 2025). With one it is Gated DeltaNet, or DeltaNet.

    `gated`: the state decays by one factor per head and step. ValueError for no step, or heads that do not divide the width.

    >>> import torch
    >>> DeltaProduct(8, heads=2, steps=3)(torch.randn(2, 10, 8))[0].shape
    torch.Size([2, 10, 8])
    """

    def __init__(self, width: int, heads: int = 4, steps: int = 2, gated: bool = True) -> None:
        if steps < 1:
            raise ValueError(f"DeltaProduct needs steps >= 1: got {steps}")
        # "False" is true in Python.
        if not isinstance(gated, bool):
            raise ValueError(f"DeltaProduct: gated must be True or False: got {gated!r}")
        super().__init__(width, heads, steps)
        self.steps = steps
        self.beta = Linear(width, steps * heads)
        self.decay = Linear(width, heads) if gated else None
        # Memories of some 20 steps at the start: sigmoid(3) is .95.
        if self.decay is not None:
            nn.init.constant_(self.decay.bias, 3.0)

    def mix(self, x_BTW: Tensor, state: Any, carry: bool) -> tuple[Tensor, Any]:
        inputs, matrix = state if state is not None else (None, None)
        (q, *kv), inputs = self.keyed(x_BTW, inputs)
        # Interleaved: the sub-steps of one step are neighbours in time, as `delta_rule` expects them.
        k, v = (torch.stack(each, 2).flatten(1, 2) for each in (kv[: self.steps], kv[self.steps :]))
        # In (0, 2) instead of (0, 1): beyond 1 a product reflects, and only negative eigenvalues can count or permute (Grazzi et
        # al. 2024).
        beta = 2 * torch.sigmoid(self.beta(x_BTW)).unflatten(2, (self.steps, self.heads)).flatten(1, 2)
        g = None if self.decay is None else logsigmoid(self.decay(x_BTW))
        # Unit keys: I - beta k k^T then has eigenvalues in (-1, 1], and the state cannot grow.
        o, matrix = delta_rule(normalize(q, dim=-1), normalize(k, dim=-1), v, beta, g, matrix, steps=self.steps)
        return self.gated(o, x_BTW), (inputs, matrix)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, steps={self.steps}, gated={self.decay is not None}"


class LightNet(Keyed):
    """LightNet (Qin et al. 2024): linear attention with a softmax of the keys over time in place of a learned decay.

    For sequences, in one direction: the paper's scans over several dimensions are not here.

    >>> import torch
    >>> LightNet(8, heads=2)(torch.randn(2, 10, 8))[0].shape
    torch.Size([2, 10, 8])
    """

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__(width, heads)

    def mix(self, x_BTW: Tensor, state: Any, carry: bool) -> tuple[Tensor, Any]:
        inputs, memory = state if state is not None else (None, None)
        (q, k, v), inputs = self.keyed(x_BTW, inputs)
        o, memory = lightnet(q, k, v, memory)
        return self.gated(o, x_BTW), (inputs, memory)
