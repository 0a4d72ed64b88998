"""Linear attention with one decay per head: states chunk by chunk, outputs of all chunks at once.

Shapes: B batch, T time, H heads, K keys, V values.
Not the default for any shape until it is measured on a GPU.
"""

from typing import Any

import torch
from torch import Tensor

from distseq.kernels.border import once
from distseq.kernels.stacking import Axes, VmapResult, along_heads
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
    @once
    def backward(ctx: Any, do: Tensor, dlast: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        q, k, v, g, last, starts = ctx.saved_tensors
        do, dlast = do.contiguous(), dlast.contiguous()
        # The state's gradient is a recurrence of the same form, in reverse, with queries for keys: dS <- e^g dS + q do^T.
        ends, dstate = states(q, do, g, dlast, ctx.L, v.dtype, reverse=True)
        dq, dk = by_keys(q, k, v, g, do, starts, ends, ctx.L)
        dv = outputs(k, q, do, g, ends, ctx.L, v.dtype, reverse=True)
        dg = by_decay((q * dq - k * dk).sum(3), last, dlast)
        return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype), dg.to(g.dtype), dstate, None

    @staticmethod
    def vmap(info: Any, dims: Axes, *args: Any) -> VmapResult:
        return along_heads(_LinearAttention, info, dims, args, (2, 2, 2, 2, 1, None), (2, 1))


def by_keys(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, do: Tensor, starts: Tensor, ends: Tensor, L: int
) -> tuple[Tensor, Tensor]:
    """dq = (do v^T . D) k + e^b do S^T and dk = (v do^T . D^T) q + e^{b_L - b} v R^T.

    S is the state before a chunk, R the gradient of the state after it.
    """
    # Both have the form of an output, so that the kernel of outputs computes them.
    dq = outputs(do, v, k, g, starts.mT, L, q.dtype)
    return dq, outputs(v, do, q, g, ends.mT, L, q.dtype, reverse=True)


def by_decay(reach_BTH: Tensor, last: Tensor, dlast: Tensor) -> Tensor:
    """dg (B, T, H), the sum of `reach` = q dq - k dk from each step on, plus what the last state adds."""
    # What step j writes reaches step i through g_{j+1} to g_i: q dq counts it at i, - k dk takes it away again at j. The last
    # state acts like a read after the end.
    return reach_BTH.flip(1).cumsum(1).flip(1) + (last * dlast).sum((2, 3))[:, None]


def linear_attention(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor, *, chunk: int = 32
) -> tuple[Tensor, Tensor]:
    """As distseq.kernels.reference.linear_attention, with one decay for each head."""
    o, last, _ = _LinearAttention.apply(*(each.contiguous() for each in (q, k, v, g, state)), length(chunk, v.dtype))
    return o, last
