"""Linear attention in chunks: all pairs of a chunk at once, and states only between chunks.

Source: Yang et al. 2024, section 4. B batch, T time, H heads, K keys, V values; M chunks of L steps, N = B H.
"""

from typing import Any

import torch
from torch import Tensor

from distseq.kernels.border import once
from distseq.kernels.eager import vector_decay
from distseq.kernels.eager.chunks import (
    by_chunk,
    chunked,
    dots,
    scalar_decay,
    scalar_decay_gradient,
    state_decay_gradient,
    unchunked,
)
from distseq.kernels.stacking import Axes, VmapResult, along_heads, one_by_one


class _LinearAttention(torch.autograd.Function):
    """The outputs after y and the last state are intermediates for backward."""

    @staticmethod
    def forward(q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor, L: int) -> tuple[Tensor, ...]:
        q_MLK, k_MLK, v_MLV, decay = (chunked(each, L) for each in (q, k, v, g))
        if g.dim() == 4:
            # In place: (M, L, K) is as large as the keys.
            decay = decay.exp_()
            a_MLL, read, write = vector_decay.weights(q_MLK, k_MLK, decay)
        else:
            decay, read, write = scalar_decay(decay)  # (M, L, L)
            a_MLL = torch.bmm(q_MLK, k_MLK.mT).mul_(decay)
        initial_NKV = state.flatten(0, 1)
        states_CNKV = v_MLV.new_empty(len(v_MLV) // len(initial_NKV) + 1, *initial_NKV.shape)
        states_CNKV[0] = initial_NKV
        chunks = by_chunk(((k_MLK * write).mT, v_MLV, read[:, -1, :, None]), len(initial_NKV))
        for before, after, (written, v_NLV, kept) in zip(states_CNKV[:-1], states_CNKV[1:], chunks, strict=True):
            torch.mul(before, kept, out=after).baddbmm_(written, v_NLV)
        y_MLV = torch.bmm(a_MLL, v_MLV).baddbmm_(q_MLK * read, states_CNKV[:-1].flatten(0, 1))
        # A copy: a view would keep the states of all chunks alive as long as the caller holds the last one.
        last = states_CNKV[-1].view_as(state).clone()
        return unchunked(y_MLV, v.shape[:3], v.dtype), last, q_MLK, k_MLK, v_MLV, decay, a_MLL, read, write, states_CNKV

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        # The last state too, by which a second derivative finds its way here (distseq.kernels.border.once).
        ctx.save_for_backward(*output[1:])
        ctx.mark_non_differentiable(*output[2:])
        ctx.set_materialize_grads(False)
        ctx.L, ctx.vector, ctx.shape = inputs[5], inputs[3].dim() == 4, inputs[0].shape[:3]
        ctx.dtypes = [each.dtype for each in inputs[:4]]

    @staticmethod
    @once
    def backward(ctx: Any, dy: Tensor | None, dlast: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        _, q_MLK, k_MLK, v_MLV, decay, a_MLL, read, write, states_CNKV = ctx.saved_tensors
        before_MKV, initial_NKV = states_CNKV[:-1].flatten(0, 1), states_CNKV[0]
        dy_MLV = torch.zeros_like(v_MLV) if dy is None else chunked(dy, ctx.L)

        # From the last chunk to the first, the state's gradient is updated in place, and read while it is in the cache.
        dv, dwrite_MLK = torch.bmm(a_MLL.mT, dy_MLV), torch.empty_like(k_MLK)
        past_Mx = read.new_empty(len(read), read.shape[2])
        dstate_NKV = torch.zeros_like(initial_NKV) if dlast is None else dlast.reshape(initial_NKV.shape).clone()
        chunks = (dv, dwrite_MLK, past_Mx, v_MLV, k_MLK * write, (q_MLK * read).mT, dy_MLV, read[:, -1, :, None])
        for state, each in reversed(list(zip(states_CNKV[:-1], by_chunk(chunks, len(initial_NKV)), strict=True))):
            dv_NLV, dwrite, past, v_NLV, written, reads, dy_NLV, kept = each
            dv_NLV.baddbmm_(written, dstate_NKV)
            torch.bmm(v_NLV, dstate_NKV.mT, out=dwrite)
            past.copy_((state * dstate_NKV).sum(2) if ctx.vector else dots(state, dstate_NKV)[:, None])
            dstate_NKV.mul_(kept).baddbmm_(reads, dy_NLV)
        dq = dk = dg = None
        # The pairs serve q, k and g together; the gradient of v needs none of them.
        if any(ctx.needs_input_grad[at] for at in (0, 1, 3)):
            da_MLL = torch.bmm(dy_MLV, v_MLV.mT)
            dread_MLK = torch.bmm(dy_MLV, before_MKV.mT).mul_(read)
            dwrite_MLK.mul_(write)
            if ctx.vector:
                dq, dk, pairs = vector_decay.gradients(da_MLL, q_MLK, k_MLK, decay)
                dq, dk = dq.add_(dread_MLK), dk.add_(dwrite_MLK)
            else:
                dqk_MLL, pairs = da_MLL * decay, da_MLL.mul_(a_MLL)
                dq, dk = torch.baddbmm(dread_MLK, dqk_MLL, k_MLK), torch.baddbmm(dwrite_MLK, dqk_MLL.mT, q_MLK)
            if ctx.needs_input_grad[3]:
                reads_MLK, writes_MLK = dread_MLK.mul_(q_MLK), dwrite_MLK.mul_(k_MLK)
                past_Mx.mul_(read[:, -1])
                if ctx.vector:
                    dg = state_decay_gradient(reads_MLK.add_(pairs), writes_MLK, past_Mx)
                else:
                    dg = scalar_decay_gradient(pairs, reads_MLK.sum(2), writes_MLK.sum(2), past_Mx[:, 0])
        typed = zip((dq, dk, dv, dg), ctx.dtypes, strict=True)
        found = (None if each is None else unchunked(each, ctx.shape, dtype) for each, dtype in typed)
        return *found, dstate_NKV.unflatten(0, (ctx.shape[0], -1)), None

    @staticmethod
    def vmap(info: Any, dims: Axes, *args: Any) -> VmapResult:
        # A vector decay chooses its blocks by the steepest decay of the call (vector_decay._base). Stacked models would share
        # that choice, and the bits of one would depend on the others.
        if args[3].dim() - (dims[3] is not None) == 4:
            return one_by_one(_LinearAttention, info, dims, args, 2)
        return along_heads(_LinearAttention, info, dims, args, (2, 2, 2, 2, 1, None), (2, 1))


def linear_attention(q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor, *, chunk: int) -> tuple[Tensor, Tensor]:
    """As distseq.kernels.linear_attention, with checked arguments. Of a vector decay `chunk` is rounded to a power of two."""
    # Down, because its blocks are halved until they are single steps.
    L = min(chunk, q.shape[1])
    L = 1 << (L.bit_length() - 1) if g.dim() == 4 else L
    y, last, *_ = _LinearAttention.apply(q, k, v, g, state, L)
    return y, last
