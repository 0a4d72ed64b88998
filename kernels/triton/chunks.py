"""The kernels of chunked recurrences: states from chunk to chunk, and outputs within chunks.

Linear attention, the delta rule and their gradients are made of these two. Shapes: B batch, T time, H heads, K keys, V values,
C chunks of L steps. b is the cumulated log-decay of a chunk up to a step, D_ij = exp(b_i - b_j) for i >= j, else 0; no exponent
is positive. Tensors are contiguous; the last chunk may be shorter.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from distseq.kernels.triton.math import INTERPRETED

# The fewest steps of a chunk, 16 because of tl.dot, and the most (bfloat16, other dtypes, which need twice the registers). The
# largest blocks of keys and values, and warps. Not tuned on a GPU yet: larger tiles save loads until registers spill.
LEAST, MOST = (1 if INTERPRETED else 16), (64, 32)
STATE_BLOCK, OUTPUT_BLOCK = 32, 64
STATE_WARPS, OUTPUT_WARPS = 4, 4


@triton.jit
def dot(x, y, FACTORS: tl.constexpr):
    """The product x y, with factors rounded to FACTORS."""
    # tf32x3 makes a float32 product of three tensor-core products: as exact as float32, and in fewer registers than a product
    # without tensor cores.
    return tl.dot(x.to(FACTORS), y.to(FACTORS), input_precision="tf32x3")


@triton.jit
def decays(g, t, T, H, L: tl.constexpr, SUM: tl.constexpr):
    """b and its last value in float64, from a head's log-decays; those beyond T are 0."""
    # A log-decay of 0 keeps the state, so that a shorter last chunk ends with the state after its last step.
    g_L = tl.load(g + t * H, mask=t < T, other=0).to(tl.float64)
    # Bounded, and summed in float64, as in distseq.kernels.eager.chunks. where, because tl.maximum would drop a NaN.
    b_L = tl.cumsum(tl.where(g_L < -1000.0, -1000.0, g_L))
    return b_L, tl.sum(tl.where(tl.arange(0, L) == L - 1, b_L, 0.0))


@triton.jit
def rows(x, t, d, T, step):
    """Steps t and columns d of a head; 0 beyond T."""
    return tl.load(x + t[:, None] * step + d[None, :], mask=t[:, None] < T, other=0)


@triton.jit
def _states(
    k, v, g, first, starts, last, T, H, C, K: tl.constexpr, V: tl.constexpr, L: tl.constexpr,
    BK: tl.constexpr, BV: tl.constexpr, REVERSE: tl.constexpr, FACTORS: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    # int64: offsets into a tensor of states exceed 2^31 at sizes that still fit into memory.
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
        k_LK = rows(k + head * K, t, m, T, H * K).to(SUM) * tl.exp((b_L if REVERSE else total - b_L).to(SUM))[:, None]
        s_KV = s_KV * tl.exp(total.to(SUM)) + dot(tl.trans(k_LK), rows(v + head * V, t, n, T, H * V), FACTORS)
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
    # Sums start in the dtype of sums: tl.dot of bfloat16 factors adds to them without rounding in between.
    o_LV, weights_LL = tl.zeros((L, BV), SUM), tl.zeros((L, L), SUM)
    # Keys in blocks, since a whole (K, V) state does not fit beside the weights of a chunk.
    for begin in range(0, K, BK):
        m = begin + tl.arange(0, BK)
        q_LK = rows(q + head * K, t, m, T, H * K)
        if WITHIN:
            weights_LL += dot(q_LK, tl.trans(rows(k + head * K, t, m, T, H * K)), FACTORS)
        if ACROSS:
            s_KV = tl.load(s + (bh * C + c) * K * V + m[:, None] * s_k + n[None, :] * s_v)
            o_LV += dot(q_LK, s_KV, FACTORS)
    if ACROSS:
        o_LV *= tl.exp((total - b_L if REVERSE else b_L).to(SUM))[:, None]
    if WITHIN:
        gone_LL = b_L[None, :] - b_L[:, None] if REVERSE else b_L[:, None] - b_L[None, :]
        seen_LL = i[:, None] <= i[None, :] if REVERSE else i[:, None] >= i[None, :]
        # Masked before the exponential: the exponents of unseen pairs are positive, and inf times 0 would be NaN.
        weights_LL *= tl.exp(tl.where(seen_LL, gone_LL.to(SUM), float("-inf")))
        o_LV += dot(weights_LL, rows(v + head * V, t, n, T, H * V), FACTORS)
    tl.store(o + head * V + t[:, None] * (H * V) + n[None, :], o_LV, mask=t[:, None] < T)


def length(chunk: int, dtype: torch.dtype) -> int:
    """Steps of a chunk: `chunk` rounded up to a power of two, within what a program can hold."""
    return min(max(triton.next_power_of_2(chunk), LEAST), MOST[dtype != torch.bfloat16])


def numbers(dtype: torch.dtype) -> dict[str, tl.dtype]:
    """The dtypes of factors and of sums."""
    # bfloat16 only on a GPU: the interpreter multiplies its bit patterns as if they were integers (triton issue 11584).
    total = tl.float64 if dtype == torch.float64 else tl.float32
    return {"FACTORS": tl.bfloat16 if dtype == torch.bfloat16 and not INTERPRETED else total, "SUM": total}


def states(
    k: Tensor, v: Tensor, g: Tensor, first: Tensor, L: int, dtype: torch.dtype, *, reverse: bool = False
) -> tuple[Tensor, Tensor]:
    """The states before each chunk (B, H, C, K, V) and after the last (B, H, K, V) of S <- e^{b_L} S + (e^{b_L - b} k)^T v.

    `reverse`: from the last chunk to the first, S <- e^{b_L} S + (e^b k)^T v; the state "before" a chunk is then at its end.
    """
    (B, T, H, K), V = k.shape, v.shape[3]
    C, BK, BV = triton.cdiv(T, L), min(K, STATE_BLOCK), min(V, STATE_BLOCK)
    starts, last = first.new_empty(B, H, C, K, V), first.new_empty(B, H, K, V)
    # Launched on the tensors' own device, which need not be the current one.
    with torch.cuda.device_of(k):
        _states[(B * H, K // BK, V // BV)](
            k, v, g, first, starts, last, T, H, C, K, V, L, BK, BV, reverse, **numbers(dtype), num_warps=STATE_WARPS
        )
    return starts, last


def outputs(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, s: Tensor | None, L: int, dtype: torch.dtype,
    *, reverse: bool = False, within: bool = True,
) -> Tensor:  # fmt: skip
    """(B, T, H, V): (q k^T . D) v + e^b q S in each chunk, in the dtype of sums.

    S (B, H, C, K, V) may have any strides in K and V; None stands for zero. `reverse`: (q k^T . D^T) v + e^{b_L - b} q S.
    Without `within`, only the second term.
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
