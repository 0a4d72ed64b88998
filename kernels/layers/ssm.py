"""Diagonal state-space layers. Shapes: B batch, T time, W width, N states (complex, of conjugate pairs one), E inner width."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, silu, softplus

from distseq.kernels.layers.layer import Layer
from distseq.kernels.linear import Linear
from distseq.kernels.primitives import fft_conv, scan, selective_scan, short_conv

FASTEST, SLOWEST = 0.1, 0.001  # steps dt are drawn between these


def _log_steps(count: int) -> Tensor:
    low, high = math.log(SLOWEST), math.log(FASTEST)
    return low + (high - low) * torch.rand(count)


class SSM(Layer):
    """h' = A h + B u, y = 2 Re(C h) + D u with diagonal A, held over a step dt (zero-order hold), then gelu and a projection.

    `kind` s4d: N states for each channel (Gu et al. 2022, S4D-Lin), computed as a convolution unless a state is given or wanted;
    s5: N states for all channels together (Smith et al. 2023), computed as a scan.
    """

    def __init__(self, width: int, states: int = 32, kind: str = "s4d") -> None:
        super().__init__(width)
        if kind not in ("s4d", "s5") or states < 1:
            raise ValueError(f"SSM: kind must be s4d or s5, with states >= 1: got {kind!r}, states={states}")
        self.kind = kind
        outer = (width,) if kind == "s4d" else ()  # channels with states of their own
        self.log_step = nn.Parameter(_log_steps(width if outer else states))
        self.log_decay = nn.Parameter(torch.full((*outer, states), math.log(0.5)))
        self.frequency = nn.Parameter(math.pi * torch.arange(states).expand(*outer, states).clone())
        self.enter = None if outer else nn.Parameter(torch.randn(states, width, 2) / width**0.5)
        self.leave = nn.Parameter(torch.randn(width, states, 2) * 0.5**0.5)
        self.skip = nn.Parameter(torch.randn(width))
        self.out = Linear(width, width)

    def discrete(self) -> tuple[Tensor, Tensor]:
        """A step's factor exp(dt A), and what it multiplies inputs by, (exp(dt A) - 1) / A: each (W, N) or (N,)."""
        A = torch.complex(-torch.exp(self.log_decay), self.frequency)
        dt = torch.exp(self.log_step)
        held = A * (dt[:, None] if self.kind == "s4d" else dt)
        return torch.exp(held), torch.expm1(held) / A

    def kernel(self, taps: int) -> Tensor:
        """(W, taps): 2 Re sum_n C_n (e^{dt A_n} - 1) / A_n e^{dt A_n l} (Gu et al. 2022, eq. 7)."""
        A = torch.complex(-torch.exp(self.log_decay), self.frequency)
        held_WN = A * torch.exp(self.log_step)[:, None]
        powers_WNT = torch.exp(held_WN[:, :, None] * torch.arange(taps, device=held_WN.device))
        gain_WN = torch.view_as_complex(self.leave) * torch.expm1(held_WN) / A
        return 2 * torch.einsum("wn,wnt->wt", gain_WN, powers_WNT).real

    def mix(self, x_BTW: Tensor, state: Any, carry: bool) -> tuple[Tensor, Any]:
        leave = torch.view_as_complex(self.leave)
        if self.kind == "s4d" and state is None and not carry:
            y, after = fft_conv(x_BTW, self.kernel(x_BTW.shape[1]))[0], None
        else:
            factor, gain = self.discrete()
            if self.enter is None:
                h, after = scan(factor, gain * x_BTW[..., None], state)
                y = 2 * (leave * h).sum(-1).real
            else:
                entered = x_BTW.to(leave.dtype) @ torch.view_as_complex(self.enter).T
                h, after = scan(factor, gain * entered, state)
                y = 2 * (h @ leave.T).real
        return self.out(gelu(y + self.skip * x_BTW)), after


class SelectiveSSM(Layer):
    """Mamba (Gu, Dao 2023): a state-space model whose step, input and output matrices depend on the input, between a short
    convolution and a gate. `expand`: inner width over width."""

    def __init__(self, width: int, states: int = 16, expand: int = 2, taps: int = 4) -> None:
        super().__init__(width)
        if min(states, expand, taps) < 1:
            raise ValueError(f"SelectiveSSM needs sizes >= 1: got states={states}, expand={expand}, taps={taps}")
        inner, self.states, self.rank = width * expand, states, math.ceil(width / 16)
        self.enter = Linear(width, 2 * inner, bias=False)
        self.taps = nn.Parameter(torch.randn(inner, taps) / taps**0.5)
        self.taps_bias = nn.Parameter(torch.zeros(inner))
        self.select = Linear(inner, self.rank + 2 * states, bias=False)
        self.step = Linear(self.rank, inner)
        self.log_decay = nn.Parameter(torch.log(torch.arange(1.0, states + 1)).expand(inner, states).clone())
        self.skip = nn.Parameter(torch.ones(inner))
        self.out = Linear(inner, width, bias=False)
        dt = torch.exp(_log_steps(inner))
        with torch.no_grad():  # softplus of the bias is dt
            self.step.bias.copy_(dt + torch.log(-torch.expm1(-dt)))

    def mix(self, x_BTW: Tensor, state: Any, carry: bool) -> tuple[Tensor, Any]:
        inputs, inner = state if state is not None else (None, None)
        u_BTE, gate_BTE = self.enter(x_BTW).chunk(2, -1)
        u_BTE, inputs = short_conv(u_BTE, self.taps, inputs)
        u_BTE = silu(u_BTE + self.taps_bias)
        low, B_BTN, C_BTN = self.select(u_BTE).split([self.rank, self.states, self.states], -1)
        dt_BTE = softplus(self.step(low))
        y_BTE, inner = selective_scan(u_BTE, dt_BTE, -torch.exp(self.log_decay), B_BTN, C_BTN, self.skip, inner)
        return self.out(y_BTE * silu(gate_BTE)), (inputs, inner)
