"""Diagonal state-space layers: S4D, S5 and Mamba.

Shapes: B batch, T time, W width, N states (complex, one of each conjugate pair), E inner width.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, silu, softplus

from distseq.kernels.backend import accumulator
from distseq.kernels.layers.layer import Layer
from distseq.kernels.linear import Linear
from distseq.kernels.primitives import fft_conv, scan, selective_scan, short_conv

# Range of the time steps dt at the start (Gu et al. 2022): memories of some 10 to 1000 steps.
FASTEST, SLOWEST = 0.1, 0.001


def _log_steps(count: int) -> Tensor:
    """log dt for `count` channels or states."""
    # Uniform in the logarithm: as many channels remember tens of steps as hundreds.
    low, high = math.log(SLOWEST), math.log(FASTEST)
    return low + (high - low) * torch.rand(count)


def _wide(parameter: Tensor) -> Tensor:
    """In the dtype of sums: there is no complex arithmetic in half precision."""
    return parameter.to(accumulator(parameter.dtype))


def _pairs(parameter: Tensor) -> Tensor:
    return torch.view_as_complex(_wide(parameter))


class SSM(Layer):
    """h' = A h + B u, y = 2 Re(C h) + D u with diagonal A, discretized with step dt by zero-order hold; then gelu, a projection.

    `kind` "s4d": N states for each channel (Gu et al. 2022, S4D-Lin), computed as a convolution unless a state is given or
    wanted. "s5": N states shared by all channels (Smith et al. 2023), computed as a scan.
    ValueError for another kind or no state.

    >>> import torch
    >>> layer = SSM(8, states=4)
    >>> y, state = layer(torch.randn(2, 10, 8), carry=True)
    >>> y.shape, state.shape, state.dtype
    (torch.Size([2, 10, 8]), torch.Size([2, 8, 4]), torch.complex64)
    """

    def __init__(self, width: int, states: int = 32, kind: str = "s4d") -> None:
        super().__init__(width)
        if kind not in ("s4d", "s5") or states < 1:
            raise ValueError(f"SSM: kind must be s4d or s5, with states >= 1: got {kind!r}, states={states}")
        self.kind = kind
        outer = (width,) if kind == "s4d" else ()  # channels with states of their own
        self.log_step = nn.Parameter(_log_steps(width if outer else states))
        # A_n = -1/2 + i pi n, the start of S4D-Lin (Gu et al. 2022). The real part is kept as a logarithm, so that no update can
        # make it positive and the recurrence unstable.
        self.log_decay = nn.Parameter(torch.full((*outer, states), math.log(0.5)))
        self.frequency = nn.Parameter(math.pi * torch.arange(states).expand(*outer, states).clone())
        # Of s4d B = 1: a channel's B and C only occur as a product. Complex numbers are pairs of real ones, since parameters are
        # gathered into one real vector.
        self.enter = None if outer else nn.Parameter(torch.randn(states, width, 2) / width**0.5)
        self.leave = nn.Parameter(torch.randn(width, states, 2) * 0.5**0.5)
        self.skip = nn.Parameter(torch.randn(width))
        self.out = Linear(width, width)

    def continuous(self) -> tuple[Tensor, Tensor]:
        """A and dt."""
        log_decay, frequency, log_step = (_wide(each) for each in (self.log_decay, self.frequency, self.log_step))
        return torch.complex(-torch.exp(log_decay), frequency), torch.exp(log_step)

    def discrete(self) -> tuple[Tensor, Tensor]:
        """The factor exp(dt A) of a step, and the gain (exp(dt A) - 1) / A of its input, each (W, N) or (N,)."""
        A, dt = self.continuous()
        held = A * (dt[:, None] if self.kind == "s4d" else dt)
        # expm1: for dt = .001 the difference exp(dt A) - 1 would lose three of float32's seven digits.
        return torch.exp(held), torch.expm1(held) / A

    # The powers of each step's factor as exponentials, in parallel: a product of factors would be a loop, and lose digits.
    def kernel(self, taps: int) -> Tensor:
        """(W, taps): 2 Re sum_n C_n (e^{dt A_n} - 1) / A_n e^{dt A_n l} (Gu et al. 2022, eq. 7)."""
        A, dt_W = self.continuous()
        held_WN = A * dt_W[:, None]
        powers_WNT = torch.exp(held_WN[:, :, None] * torch.arange(taps, device=held_WN.device))
        gain_WN = _pairs(self.leave) * torch.expm1(held_WN) / A
        # Twice the real part: the other states are the conjugates, and give the conjugate sum.
        return 2 * torch.einsum("wn,wnt->wt", gain_WN, powers_WNT).real

    def mix(self, x_BTW: Tensor, state: Any, carry: bool) -> tuple[Tensor, Any]:
        leave = _pairs(self.leave)
        # The convolution costs T log T and needs no tensor (B, T, W, N), but does not give the last state.
        if self.kind == "s4d" and state is None and not carry:
            y, after = fft_conv(x_BTW, self.kernel(x_BTW.shape[1]))[0], None
        else:
            factor, gain = self.discrete()
            if self.enter is None:
                h, after = scan(factor, gain * x_BTW[..., None], state)
                y = 2 * (leave * h).sum(-1).real
            else:
                entered = x_BTW.to(leave.dtype) @ _pairs(self.enter).T
                h, after = scan(factor, gain * entered, state)
                y = 2 * (h @ leave.T).real
        return self.out(gelu(y + self.skip * x_BTW).to(x_BTW.dtype)), after

    def extra_repr(self) -> str:
        return f"width={self.width}, states={self.log_decay.shape[-1]}, kind={self.kind}"


class SelectiveSSM(Layer):
    """Mamba (Gu and Dao 2023): a state-space model whose step, input and output matrices depend on the input.

    It lies between a short convolution of `taps` taps and a gate. `states`: of each inner channel; `expand`: the inner width
    divided by `width`. ValueError for a size below 1.

    >>> import torch
    >>> y, (inputs, inner) = SelectiveSSM(8, states=4)(torch.randn(2, 10, 8), carry=True)
    >>> y.shape, inputs.shape, inner.shape
    (torch.Size([2, 10, 8]), torch.Size([2, 3, 16]), torch.Size([2, 16, 4]))
    """

    def __init__(self, width: int, states: int = 16, expand: int = 2, taps: int = 4) -> None:
        super().__init__(width)
        if min(states, expand, taps) < 1:
            raise ValueError(f"SelectiveSSM needs sizes >= 1: got states={states}, expand={expand}, taps={taps}")
        # Steps dt come from a projection of rank width / 16, as in the paper: a full matrix would have inner^2 parameters.
        inner, self.states, self.rank = width * expand, states, math.ceil(width / 16)
        self.enter = Linear(width, 2 * inner, bias=False)
        self.taps = nn.Parameter(torch.randn(inner, taps) / taps**0.5)
        self.taps_bias = nn.Parameter(torch.zeros(inner))
        self.select = Linear(inner, self.rank + 2 * states, bias=False)
        self.step = Linear(self.rank, inner)
        # A_n = -n, the real start of the paper (S4D-Real); as a logarithm, so that A stays negative.
        self.log_decay = nn.Parameter(torch.log(torch.arange(1.0, states + 1)).expand(inner, states).clone())
        self.skip = nn.Parameter(torch.ones(inner))
        self.out = Linear(inner, width, bias=False)
        dt = torch.exp(_log_steps(inner))
        # The inverse of softplus, in a form that keeps its digits for small dt: at first softplus of the bias is dt.
        with torch.no_grad():
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

    def extra_repr(self) -> str:
        inner, taps = self.taps.shape
        return f"width={self.width}, states={self.states}, expand={inner // self.width}, taps={taps}"
