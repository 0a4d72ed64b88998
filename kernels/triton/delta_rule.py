"""The gated delta rule in chunks: one triangular solve, then a loop over states (Yang et al. 2024).

Shapes: B batch, T time, H heads, K keys, V values, C chunks of L steps. With b and D as in chunks.py, let [x, w] be the solution
of (I + tril(beta k k^T . D, -1)) [x, w] = beta [v, e^b k]. A chunk that starts from state S then writes u = x - w S, and the rest
is linear attention with the values u. PyTorch does the solve, autograd its gradient.
Not the default for any shape until it is measured on a GPU.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn.functional import pad

from distseq.kernels.backend import accumulator
from distseq.kernels.border import once
from distseq.kernels.eager.chunks import LEAST
from distseq.kernels.stacking import Axes, VmapResult, along_heads
from distseq.kernels.triton.chunks import decays, dot, length, numbers, outputs, rows
from distseq.kernels.triton.linear_attention import by_decay, by_keys

# The most values of a program, and its warps. A program holds all keys, whose products with the state run one after another, so
# that its block of values is small. Not tuned on a GPU yet.
BLOCK, WARPS = 32, 4


@triton.jit
def _delta_states(
    q, k, x, w, do, g, first, starts, last, u, T, H, C, K: tl.constexpr, V: tl.constexpr, L: tl.constexpr,
    BV: tl.constexpr, BACKWARD: tl.constexpr, FACTORS: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """u = x - w S, then S <- e^{b_L} S + (e^{b_L - b} k)^T u.

    Backward du = x + e^{b_L - b} k R, then R <- e^{b_L} R + (e^b q)^T do - w^T du.
    """
    bh = tl.program_id(0).to(tl.int64)
    head = bh // H * T * H + bh % H
    m, n = tl.arange(0, K), tl.program_id(1) * BV + tl.arange(0, BV)
    cell = m[:, None] * V + n[None, :]
    s_KV = tl.load(first + bh * K * V + cell).to(SUM)
    for step in range(C):
        c = C - 1 - step if BACKWARD else step
        tl.store(starts + (bh * C + c) * K * V + cell, s_KV)
        t = c * L + tl.arange(0, L)
        b_L, total = decays(g + head, t, T, H, L, SUM)
        k_LK = rows(k + head * K, t, m, T, H * K).to(SUM) * tl.exp((total - b_L).to(SUM))[:, None]
        w_LK = rows(w + head * K, t, m, T, H * K)
        x_LV = rows(x + head * V, t, n, T, H * V)
        if BACKWARD:
            u_LV = x_LV + dot(k_LK, s_KV, FACTORS)
            q_LK = rows(q + head * K, t, m, T, H * K).to(SUM) * tl.exp(b_L.to(SUM))[:, None]
            read_KV = dot(tl.trans(q_LK), rows(do + head * V, t, n, T, H * V), FACTORS)
            s_KV = s_KV * tl.exp(total.to(SUM)) + read_KV - dot(tl.trans(w_LK), u_LV, FACTORS)
        else:
            u_LV = x_LV - dot(w_LK, s_KV, FACTORS)
            s_KV = s_KV * tl.exp(total.to(SUM)) + dot(tl.trans(k_LK), u_LV, FACTORS)
        tl.store(u + head * V + t[:, None] * (H * V) + n[None, :], u_LV, mask=t[:, None] < T)
    tl.store(last + bh * K * V + cell, s_KV)


def _loop(
    q: Tensor, k: Tensor, x: Tensor, w: Tensor, do: Tensor, g: Tensor, first: Tensor, L: int, backward: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The states before each chunk, the last state, and u; `backward`: their gradients."""
    (B, T, H, K), V = k.shape, x.shape[3]
    C, BV = triton.cdiv(T, L), min(V, BLOCK)
    # u is only a factor of products, and may be rounded to their dtype; du is a gradient, which is passed on to the solve.
    starts, last = first.new_empty(B, H, C, K, V), torch.empty_like(first)
    u = torch.empty_like(x, dtype=x.dtype if backward else q.dtype)
    with torch.cuda.device_of(k):
        _delta_states[(B * H, V // BV)](
            q, k, x, w, do, g, first, starts, last, u, T, H, C, K, V, L, BV, backward,
            **numbers(q.dtype), num_warps=WARPS,
        )  # fmt: skip
    return starts, last, u


class _Delta(torch.autograd.Function):
    @staticmethod
    def forward(
        q: Tensor, k: Tensor, x: Tensor, w: Tensor, g: Tensor, state: Tensor, L: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        starts, last, u = _loop(q, k, x, w, x, g, state, L, backward=False)
        return outputs(q, k, u, g, starts, L, q.dtype).to(q.dtype), last, starts, u

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        q, k, _, w, g, _, ctx.L = inputs
        ctx.mark_non_differentiable(*output[2:])
        ctx.save_for_backward(q, k, w, g, *output[1:])

    @staticmethod
    @once
    def backward(ctx: Any, do: Tensor, dlast: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        q, k, w, g, last, starts, u = ctx.saved_tensors
        do, dlast = do.contiguous(), dlast.contiguous()
        within = outputs(k, q, do, g, None, ctx.L, q.dtype, reverse=True)
        ends, dstate, du = _loop(q, k, within, w, do, g, dlast, ctx.L, backward=True)
        dq, dk = by_keys(q, k, u, g, do, starts, ends, ctx.L)
        dw = -outputs(du, du, k, torch.zeros_like(g), starts.mT, ctx.L, q.dtype, within=False)
        reach_BTH, at_start_BTH = (q * dq - k * dk).sum(3), (w * dw).sum(3)
        # w reads the state at the start of its chunk, so these terms decay up to the last step of the previous chunk only.
        at_start_BCH = pad(at_start_BTH, (0, 0, 0, -at_start_BTH.shape[1] % ctx.L)).unflatten(1, (-1, ctx.L)).sum(2)
        reach_BTH[:, ctx.L - 1 : -1 : ctx.L] += at_start_BCH[:, 1:]
        dg = by_decay(reach_BTH, last, dlast)
        return dq.to(q.dtype), dk.to(k.dtype), du, dw.to(w.dtype), dg.to(g.dtype), dstate, None

    @staticmethod
    def vmap(info: Any, dims: Axes, *args: Any) -> VmapResult:
        return along_heads(_Delta, info, dims, args, (2, 2, 2, 2, 2, 1, None), (2, 1))


def _solved(k: Tensor, v: Tensor, beta: Tensor, g: Tensor, L: int) -> tuple[Tensor, Tensor]:
    """The solutions x (B, T, H, V) and w (B, T, H, K) for all chunks."""
    T, K = k.shape[1:4:2]
    # Padded steps have beta = 0 and write nothing.
    k, v, beta, g = (
        pad(each.to(accumulator(each.dtype)), (0, 0) * (each.dim() - 2) + (0, -T % L))
        .unflatten(1, (-1, L))
        .transpose(2, 3)
        for each in (k, v, beta, g)
    )
    b_BCHL = g.double().clamp_min(LEAST).cumsum(3)
    below_LL = torch.ones(L, L, dtype=torch.bool, device=k.device).tril(-1)
    gone_BCHLL = (b_BCHL[..., :, None] - b_BCHL[..., None, :]).masked_fill(~below_LL, float("-inf"))
    system = beta[..., None] * (k @ k.mT) * gone_BCHLL.to(k.dtype).exp()
    right = beta[..., None] * torch.cat([v, b_BCHL.to(k.dtype).exp()[..., None] * k], -1)
    solution = torch.linalg.solve_triangular(system, right, upper=False, unitriangular=True)
    x, w = solution.transpose(2, 3).flatten(1, 2)[:, :T].split([v.shape[-1], K], 3)
    return x, w


def delta_rule(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor, state: Tensor, *, steps: int = 1, chunk: int | None = None
) -> tuple[Tensor, Tensor]:
    """As distseq.kernels.reference.delta_rule."""
    # Sub-steps become steps: padded decays of 0 after the first, padded queries before the last, whose outputs are kept.
    L = length(chunk or 16, v.dtype)
    q = pad(q[:, :, None], (0, 0, 0, 0, steps - 1, 0)).flatten(1, 2)
    g = pad(g[:, :, None], (0, 0, 0, steps - 1)).flatten(1, 2)
    x, w = _solved(k, v, beta, g, L)
    o, last, *_ = _Delta.apply(*(each.contiguous() for each in (q, k, x, w.to(k.dtype), g, state)), L)
    return o[:, steps - 1 :: steps], last
