"""Linear attention with one decay for each head: states of chunks one after another, outputs of all chunks at once.

Shapes: B batch, T time, H heads, K keys, V values.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from distseq.kernels.triton.chunks import length, outputs, states


class _LinearAttention(torch.autograd.Function):
    @staticmethod
    def forward(q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor, L: int) -> tuple[Tensor, Tensor, Tensor]:
        starts, last = states(k, v, g, state, L, v.dtype)
        return outputs(q, k, v, g, starts, L, v.dtype).to(v.dtype), last, starts

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        *tensors, ctx.L = inputs
        ctx.mark_non_differentiable(output[2])
        ctx.save_for_backward(*tensors[:4], *output[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, do: Tensor, dlast: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        q, k, v, g, last, starts = ctx.saved_tensors
        do, dlast = do.contiguous(), dlast.contiguous()
        ends, dstate = states(q, do, g, dlast, ctx.L, v.dtype, reverse=True)
        dq, dk, dv, dg = gradients(q, k, v, g, do, starts, ends, last, dlast, ctx.L)
        return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype), dg.to(g.dtype), dstate, None


def gradients(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, do: Tensor, starts: Tensor, ends: Tensor, last: Tensor, dlast: Tensor, L: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of q, k, v and g, given where each chunk starts, S, and the gradients of where each ends, R.

    dq = (do v^T . D) k + e^b do S^T, dk = (v do^T . D^T) q + e^{b_L - b} v R^T and dv = (k q^T . D^T) do + e^{b_L - b} k R
    are outputs again. Every pair (i, j) of query and key decays by all of g_{j+1} to g_i: dg is the reversed sum of
    q dq - k dk, and of the last state's share at the end.
    """
    dtype = v.dtype
    dq = outputs(do, v, k, g, starts.mT, L, dtype)
    dk = outputs(v, do, q, g, ends.mT, L, dtype, reverse=True)
    dv = outputs(k, q, do, g, ends, L, dtype, reverse=True)
    reach_BTH = (q * dq - k * dk).sum(3)
    dg = reach_BTH.flip(1).cumsum(1).flip(1) + (last * dlast).sum((2, 3))[:, None]
    return dq, dk, dv, dg


def linear_attention(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor, *, chunk: int = 32
) -> tuple[Tensor, Tensor]:
    """As distseq.kernels.reference.linear_attention, with one decay for each head."""
    o, last, _ = _LinearAttention.apply(*(each.contiguous() for each in (q, k, v, g, state)), length(chunk))
    return o, last
