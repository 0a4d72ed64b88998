"""Two kernels from which linear attention, the delta rule and their gradients are made: states over chunks, outputs in chunks.

Shapes: B batch, T time, H heads, K keys, V values, C chunks of L steps. b is the sum of the log-decays of a chunk up to a step,
D_ij = exp(b_i - b_j) where i >= j; no exponent is above 0. Tensors are contiguous; the last chunk may be ragged.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from distseq.kernels.triton.math import INTERPRETED

# The least and the most steps of a chunk (bfloat16, others); the largest blocks of keys and of values; warps. Not yet tuned.
LEAST, MOST = (1 if INTERPRETED else 16), (64, 32)
STATE_BLOCK, OUTPUT_BLOCK = 32, 64
STATE_WARPS, OUTPUT_WARPS = 4, 4


@triton.jit
def dot(x, y, FACTORS: tl.constexpr):
    """x y, its factors rounded to FACTORS: bfloat16 on a GPU for such inputs, what sums are kept in otherwise.

    Of float32 factors, three products of tensor cores: as exact as float32 is, and in fewer registers than without them.
    """
    return tl.dot(x.to(FACTORS), y.to(FACTORS), input_precision="tf32x3")


@triton.jit
def decays(g, t, T, H, L: tl.constexpr, SUM: tl.constexpr):
    """b and its last value, of a head's log-decays; those behind the end are 0."""
    b_L = tl.cumsum(tl.load(g + t * H, mask=t < T, other=0).to(SUM))
    return b_L, tl.sum(tl.where(tl.arange(0, L) == L - 1, b_L, 0.0))


@triton.jit
def rows(x, t, d, T, step):
    """Rows t, columns d of a head; 0 behind the end."""
    return tl.load(x + t[:, None] * step + d[None, :], mask=t[:, None] < T, other=0)


@triton.jit
def _states(
    k, v, g, first, starts, last, T, H, C, K: tl.constexpr, V: tl.constexpr, L: tl.constexpr,
    BK: tl.constexpr, BV: tl.constexpr, REVERSE: tl.constexpr, FACTORS: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    bh = tl.program_id(0).to(tl.int64)
    head = bh // H * T * H + bh % H
    m, n = tl.program_id(1) * BK + tl.arange(0, BK), tl.program_id(2) * BV + tl.arange(0, BV)
    cell = m[:, None] * V + n[None, :]
    s_KV = tl.load(first + bh * K * V + cell).to(SUM)
    for step in range(C):
        c = C - 1 - step if REVERSE else step
        tl.store(starts + (bh * C + c) * K * V + cell, s_KV)
        t = c * L + tl.arange(0, L)
        b_L, total = decays(g + head, t, T, H, L, SUM)
        k_LK = rows(k + head * K, t, m, T, H * K).to(SUM) * tl.exp(b_L if REVERSE else total - b_L)[:, None]
        s_KV = s_KV * tl.exp(total) + dot(tl.trans(k_LK), rows(v + head * V, t, n, T, H * V), FACTORS)
    tl.store(last + bh * K * V + cell, s_KV)


@triton.jit
def _outputs(
    q, k, v, g, s, o, T, H, C, s_k, s_v, K: tl.constexpr, V: tl.constexpr, L: tl.constexpr,
    BK: tl.constexpr, BV: tl.constexpr, REVERSE: tl.constexpr, WITHIN: tl.constexpr, ACROSS: tl.constexpr,
    FACTORS: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    bh, c = tl.program_id(0).to(tl.int64), tl.program_id(1)
    head = bh // H * T * H + bh % H
    n, i = tl.program_id(2) * BV + tl.arange(0, BV), tl.arange(0, L)
    t = c * L + i
    b_L, total = decays(g + head, t, T, H, L, SUM)
    o_LV, weights_LL = tl.zeros((L, BV), SUM), tl.zeros((L, L), SUM)
    for begin in range(0, K, BK):
        m = begin + tl.arange(0, BK)
        q_LK = rows(q + head * K, t, m, T, H * K)
        if WITHIN:
            weights_LL += dot(q_LK, tl.trans(rows(k + head * K, t, m, T, H * K)), FACTORS)
        if ACROSS:
            s_KV = tl.load(s + (bh * C + c) * K * V + m[:, None] * s_k + n[None, :] * s_v)
            o_LV += dot(q_LK, s_KV, FACTORS)
    if ACROSS:
        o_LV *= tl.exp(total - b_L if REVERSE else b_L)[:, None]
    if WITHIN:
        gone_LL = b_L[None, :] - b_L[:, None] if REVERSE else b_L[:, None] - b_L[None, :]
        seen_LL = i[:, None] <= i[None, :] if REVERSE else i[:, None] >= i[None, :]
        weights_LL *= tl.exp(tl.where(seen_LL, gone_LL, float("-inf")))
        o_LV += dot(weights_LL, rows(v + head * V, t, n, T, H * V), FACTORS)
    tl.store(o + head * V + t[:, None] * (H * V) + n[None, :], o_LV, mask=t[:, None] < T)


def length(chunk: int, dtype: torch.dtype) -> int:
    """Steps of a chunk: the power of two from `chunk` on, among those that a program can hold."""
    return min(max(triton.next_power_of_2(chunk), LEAST), MOST[dtype != torch.bfloat16])


def numbers(dtype: torch.dtype) -> dict[str, tl.dtype]:
    """What dots multiply and what sums are kept in. The interpreter multiplies the bits of bfloat16 as if they were numbers."""
    total = tl.float64 if dtype == torch.float64 else tl.float32
    return {"FACTORS": tl.bfloat16 if dtype == torch.bfloat16 and not INTERPRETED else total, "SUM": total}


def states(
    k: Tensor, v: Tensor, g: Tensor, first: Tensor, L: int, dtype: torch.dtype, *, reverse: bool = False
) -> tuple[Tensor, Tensor]:
    """Where each chunk starts, (B, H, C, K, V), and the last, (B, H, K, V), of S <- e^{b_L} S + (e^{b_L - b} k)^T v, by chunks.

    `reverse`: from the last chunk on, S <- e^{b_L} S + (e^b k)^T v; a chunk starts at its end.
    """
    (B, T, H, K), V = k.shape, v.shape[3]
    C, BK, BV = triton.cdiv(T, L), min(K, STATE_BLOCK), min(V, STATE_BLOCK)
    starts, last = first.new_empty(B, H, C, K, V), first.new_empty(B, H, K, V)
    with torch.cuda.device_of(k):
        _states[(B * H, K // BK, V // BV)](
            k, v, g, first, starts, last, T, H, C, K, V, L, BK, BV, reverse, **numbers(dtype), num_warps=STATE_WARPS
        )
    return starts, last


def outputs(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, s: Tensor | None, L: int, dtype: torch.dtype,
    *, reverse: bool = False, within: bool = True,
) -> Tensor:  # fmt: skip
    """(q k^T . D) v + e^b q S in each chunk, (B, T, H, V), with S (B, H, C, K, V) of any strides in K and V; None for zero.

    `reverse`: (q k^T . D^T) v + e^{b_L - b} q S. Not `within`: the second term alone. Sums are not rounded to the inputs' dtype.
    """
    (B, T, H, K), V = q.shape, v.shape[3]
    C, BK, BV = triton.cdiv(T, L), min(K, OUTPUT_BLOCK), min(V, OUTPUT_BLOCK)
    o = g.new_empty(B, T, H, V, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    strides = (0, 0) if s is None else s.stride()[3:]
    with torch.cuda.device_of(q):
        _outputs[(B * H, C, V // BV)](
            q, k, v, g, s, o, T, H, C, *strides, K, V, L, BK, BV, reverse, within, s is not None,
            **numbers(dtype), num_warps=OUTPUT_WARPS,
        )  # fmt: skip
    return o
