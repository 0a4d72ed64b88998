"""The reference backend: every primitive as a plain loop, against which the other backends are tested.

Arguments are those of distseq.kernels.primitives, already checked, and always with a state. Sums and states are float32, or
float64 for float64 inputs.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from distseq.kernels.backend import accumulator
from distseq.kernels.cells import CELLS, State


# The dtype of sums, also for the inputs: rounding of a half-precision product must not be part of what others are compared with.
def _wide(*tensors: Tensor) -> list[Tensor]:
    return [tensor.to(accumulator(tensor.dtype)) for tensor in tensors]


def _stacked(steps: Iterable[Tensor], like: Tensor) -> Tensor:
    return torch.stack(list(steps), 1).to(like.dtype)


def rnn(x: Tensor, r: Tensor, state: State, *, cell: str, bias: Tensor | None = None) -> tuple[Tensor, State]:
    x_BTHGD, r_HGDE = _wide(x, r)
    shift_HGD = torch.zeros_like(r_HGDE[:, :, 0])
    if bias is not None:
        shift_HGD = torch.cat([shift_HGD[:, :-1], bias.to(r_HGDE.dtype)[:, None]], 1)
    h = []
    # unbind, not x[:, t]: under autograd each index fills a zero tensor of x's full size, which makes a loop quadratic in T.
    for x_BHGD in x_BTHGD.unbind(1):
        product = torch.einsum("bhd,hgde->bhge", state[0], r_HGDE) + shift_HGD
        state = CELLS[cell].step(x_BHGD, product, state)
        h.append(state[0])
    return _stacked(h, x), state


def scan(a: Tensor, x: Tensor, state: Tensor, *, reverse: bool = False) -> tuple[Tensor, Tensor]:
    steps = list(zip(*(tensor.unbind(1) for tensor in _wide(a.expand_as(x), x)), strict=True))
    h = []
    for a_t, x_t in reversed(steps) if reverse else steps:
        state = a_t * state + x_t
        h.append(state)
    return _stacked(reversed(h) if reverse else h, x), state


def selective_scan(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    A_DN, D_D = _wide(A, D)
    y = []
    for u_BD, dt_BD, B_BN, C_BN in zip(*(tensor.unbind(1) for tensor in _wide(u, dt, B, C)), strict=True):
        state = torch.exp(dt_BD[:, :, None] * A_DN) * state + (dt_BD * u_BD)[:, :, None] * B_BN[:, None]
        y.append((state * C_BN[:, None]).sum(2) + D_D * u_BD)
    return _stacked(y, u), state


def linear_attention(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor, *, chunk: int = 0
) -> tuple[Tensor, Tensor]:
    o = []
    g = g[..., None] if g.dim() == 3 else g
    for q_BHK, k_BHK, v_BHV, g_BHK in zip(*(tensor.unbind(1) for tensor in _wide(q, k, v, g)), strict=True):
        state = torch.exp(g_BHK)[..., None] * state + k_BHK[..., None] * v_BHV[:, :, None]
        o.append((q_BHK[..., None] * state).sum(2))
    return _stacked(o, v), state


def delta_rule(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor, state: Tensor, *, steps: int = 1, chunk: int | None = None
) -> tuple[Tensor, Tensor]:
    o = []
    inner = list(zip(*(tensor.unbind(1) for tensor in _wide(k, v, beta)), strict=True))
    for t, (q_BHK, g_BH) in enumerate(zip(*(tensor.unbind(1) for tensor in _wide(q, g)), strict=True)):
        state = torch.exp(g_BH)[..., None, None] * state
        for k_BHK, v_BHV, beta_BH in inner[t * steps : (t + 1) * steps]:
            wrong_BHV = v_BHV - (k_BHK[..., None] * state).sum(2)
            state = state + k_BHK[..., None] * (beta_BH[..., None] * wrong_BHV)[:, :, None]
        o.append((q_BHK[..., None] * state).sum(2))
    return _stacked(o, v), state


def prefix_softmax(s: Tensor, v: Tensor, state: State, *, chunk: int = 0) -> tuple[Tensor, State]:
    lse_BH, mean_BHV = state
    o = []
    for s_BH, v_BHV in zip(*(tensor.unbind(1) for tensor in _wide(s, v)), strict=True):
        # Where no score so far is above -inf the mean is 0, instead of 0 / 0: such a sum is replaced before it is computed, since
        # the gradient of what is not chosen must be finite too.
        some_BH, zero = torch.maximum(lse_BH, s_BH) > float("-inf"), torch.zeros_like(s_BH)
        before, total_BH = lse_BH, torch.logaddexp(lse_BH, torch.where(some_BH, s_BH, zero))
        lse_BH = torch.where(some_BH, total_BH, lse_BH)
        total_BH = torch.where(some_BH, total_BH, zero)
        mean_BHV = torch.exp(before - total_BH)[..., None] * mean_BHV + torch.exp(s_BH - total_BH)[..., None] * v_BHV
        o.append(mean_BHV)
    return _stacked(o, v), (lse_BH, mean_BHV)


def short_conv(x: Tensor, w: Tensor, state: Tensor, *, dilation: int = 1) -> tuple[Tensor, Tensor]:
    x_BSD, w_DL = torch.cat([state, *_wide(x)], 1), _wide(w)[0]
    reach = (w.shape[1] - 1) * dilation
    y = [(x_BSD[:, t : t + reach + 1 : dilation] * w_DL.T).sum(1) for t in range(x.shape[1])]
    return _stacked(y, x), x_BSD[:, x_BSD.shape[1] - reach :]


def fft_conv(x: Tensor, k: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    return short_conv(x, k.flip(1), state)


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, causal: bool, window: int | None) -> Tensor:
    T, S = q.shape[1], k.shape[1]
    (q_BTHD, k_BSHD, v_BSHV), y = _wide(q, k, v), []
    for t, q_BHD in enumerate(q_BTHD.unbind(1)):
        last = S - T + t + 1 if causal else S
        seen = slice(max(0, last - window) if window else 0, last)
        scores_BHS = torch.einsum("bhd,bshd->bhs", q_BHD, k_BSHD[:, seen]) * q.shape[-1] ** -0.5
        if mask is not None:
            scores_BHS = scores_BHS.masked_fill(~mask[:, None, seen], float("-inf"))
        # The softmax of nothing but -inf is nan: a query that sees no key gives zeros instead.
        weights_BHS = torch.softmax(scores_BHS, 2).nan_to_num(0.0)
        y.append(torch.einsum("bhs,bshv->bhv", weights_BHS, v_BSHV[:, seen]))
    return _stacked(y, v)
