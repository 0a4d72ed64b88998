"""The gated delta rule in chunks, by its WY form (Yang et al. 2024; gates: Yang et al. 2025, sub-steps: Siems et al. 2025).

Within a chunk u_i = beta_i (v_i - k_i^T decayed S - sum_{j<i} (k_i^T k_j decayed) u_j): one triangular inverse `wy` for every
chunk at once, then S_{c+1} = decayed S_c + K^T U. Sub-steps are steps of their own whose decay is on the first, read on the last.

B batch, T time, H heads, K keys, V values; M chunks of R reads and L = R steps steps; N = B H.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from distseq.kernels.eager.chunks import Decay, chunked, scalar_decay, scalar_decay_gradient, whole


class _DeltaRule(torch.autograd.Function):
    """Outputs after y and the last state are intermediates: what backward needs."""

    @staticmethod
    def forward(  # type: ignore[override]
        q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor, state: Tensor, R: int, steps: int
    ) -> tuple[Tensor, ...]:
        q_MRK, decay = chunked(q, R), scalar_decay(chunked(g, R))
        k_MLK, v_MLV, beta_ML1 = (chunked(each, R * steps) for each in (k, v, beta[..., None]))
        seen_MRL, read_ML1, write_ML1 = _of_steps(decay, steps)
        kk_MLL = torch.bmm(k_MLK, k_MLK.mT).mul_(seen_MRL.repeat_interleave(steps, 1)).tril_(-1)
        one_LL = torch.eye(R * steps, dtype=k_MLK.dtype, device=k.device).expand_as(kk_MLL)
        wy_MLL = torch.linalg.solve_triangular(beta_ML1 * kk_MLL, one_LL, upper=False, unitriangular=True)
        u_MLV, w_MLK = torch.bmm(wy_MLL, beta_ML1 * v_MLV), torch.bmm(wy_MLL, beta_ML1 * read_ML1 * k_MLK)
        begun_NKV = state.flatten(0, 1)
        states_CNKV = u_MLV.new_empty(len(u_MLV) // len(begun_NKV) + 1, *begun_NKV.shape)
        states_CNKV[0] = begun_NKV
        chunks = (u_MLV, w_MLK, (k_MLK * write_ML1).mT, decay.read[:, -1:])
        for before, after, (u, w, written, kept) in zip(
            states_CNKV[:-1], states_CNKV[1:], _by_chunk(chunks, len(begun_NKV)), strict=True
        ):
            u.baddbmm_(w, before, alpha=-1)
            torch.mul(before, kept, out=after).baddbmm_(written, u)
        qk_MRL = torch.bmm(q_MRK, k_MLK.mT).mul_(seen_MRL)
        y_MRV = torch.bmm(qk_MRL, u_MLV).baddbmm_(q_MRK * decay.read, states_CNKV[:-1].flatten(0, 1))
        last, kept = states_CNKV[-1].view_as(state).clone(), (q_MRK, k_MLK, v_MLV, beta_ML1, *decay)
        return whole(y_MRV, q.shape[:3], v.dtype), last, *kept, kk_MLL, wy_MLL, qk_MRL, u_MLV, states_CNKV

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*output[2:])
        ctx.mark_non_differentiable(*output[2:])
        ctx.set_materialize_grads(False)
        ctx.R, ctx.steps = inputs[6:]
        ctx.shapes, ctx.dtypes = zip(*((each.shape[:3], each.dtype) for each in inputs[:5]), strict=True)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, dy: Tensor | None, dlast: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        q_MRK, k_MLK, v_MLV, beta_ML1, *decay, kk_MLL, wy_MLL, qk_MRL, u_MLV, states_CNKV = ctx.saved_tensors
        seen_MRL, read_ML1, write_ML1 = _of_steps(Decay(*decay), ctx.steps)
        read_MR1, begun_NKV = decay[1], states_CNKV[0]
        read_MLK, written_MLK = k_MLK * read_ML1, k_MLK * write_ML1
        dy_MRV = v_MLV.new_zeros(*q_MRK.shape[:2], v_MLV.shape[2]) if dy is None else chunked(dy, ctx.R)

        # From the last chunk to the first; du and dstates are completed in place.
        du_MLV = torch.bmm(qk_MRL.mT, dy_MRV)
        dstates_CNKV = torch.empty_like(states_CNKV)
        dstates_CNKV[:-1] = torch.bmm((q_MRK * read_MR1).mT, dy_MRV).unflatten(0, (-1, len(begun_NKV)))
        dstates_CNKV[-1] = 0.0 if dlast is None else dlast.view_as(begun_NKV)
        w_MLK = torch.bmm(wy_MLL, beta_ML1 * read_MLK)
        chunks = _by_chunk((du_MLV, w_MLK.mT, written_MLK, read_MR1[:, -1:]), len(begun_NKV))
        for before, after, (du, w, written, kept) in reversed(
            list(zip(dstates_CNKV[:-1], dstates_CNKV[1:], chunks, strict=True))
        ):
            du.baddbmm_(written, after)
            before.addcmul_(after, kept).baddbmm_(w, du, alpha=-1)
        before_MKV, after_MKV = states_CNKV[:-1].flatten(0, 1), dstates_CNKV[1:].flatten(0, 1)

        # u = wy beta error, and wy the inverse of I + beta kk: its gradient is -(wy^T du) u^T.
        dscaled_MLV = torch.bmm(wy_MLL.mT, du_MLV)
        derror_MLV = beta_ML1 * dscaled_MLV
        dread_MLK = torch.bmm(derror_MLV, before_MKV.mT).neg_()
        dwrite_MLK = torch.bmm(u_MLV, after_MKV.mT).mul_(write_ML1)
        dkk_MLL, dqk_MRL = torch.bmm(derror_MLV, u_MLV.mT).neg_(), torch.bmm(dy_MRV, u_MLV.mT)
        dbeta = None
        if ctx.needs_input_grad[3]:
            inside_MLV = torch.baddbmm(v_MLV, kk_MLL, u_MLV, alpha=-1).baddbmm_(read_MLK, before_MKV, alpha=-1)
            dbeta = dscaled_MLV.mul_(inside_MLV).sum(2)
        pairs_MRR = (dqk_MRL * qk_MRL).unflatten(2, (-1, ctx.steps)).sum(3)
        pairs_MRR += (dkk_MLL * kk_MLL).unflatten(2, (-1, ctx.steps)).sum(3).unflatten(1, (-1, ctx.steps)).sum(2)
        dqk_MRL, dkk_MLL = dqk_MRL.mul_(seen_MRL), dkk_MLL.mul_(seen_MRL.repeat_interleave(ctx.steps, 1)).tril_(-1)
        dq_read_MRK = torch.bmm(dy_MRV, before_MKV.mT).mul_(read_MR1)
        dq = torch.baddbmm(dq_read_MRK, dqk_MRL, k_MLK)
        dk = torch.baddbmm(dwrite_MLK, dkk_MLL + dkk_MLL.mT, k_MLK).baddbmm_(dqk_MRL.mT, q_MRK)
        dk.addcmul_(dread_MLK, read_ML1)
        dg = None
        if ctx.needs_input_grad[4]:
            reads_MRK = (dread_MLK.mul_(read_MLK)).unflatten(1, (-1, ctx.steps)).sum(2).addcmul_(dq_read_MRK, q_MRK)
            writes_MRK = dwrite_MLK.mul_(k_MLK).unflatten(1, (-1, ctx.steps)).sum(2)
            past_MK = (before_MKV * after_MKV).sum(2) * read_MR1[:, -1]
            dg = scalar_decay_gradient(pairs_MRR, reads_MRK, writes_MRK, past_MK)
        found = zip((dq, dk, derror_MLV, dbeta, dg), ctx.shapes, ctx.dtypes, strict=True)
        found = (None if each is None else whole(each, shape, dtype) for each, shape, dtype in found)
        return *found, dstates_CNKV[0].unflatten(0, (ctx.shapes[0][0], -1)), None, None


def _of_steps(decay: Decay, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Between reads and steps (M, R, L), and of a step's reading and writing (M, L, 1)."""
    between_MRR, read_MR1, write_MR1 = decay
    return (
        between_MRR.repeat_interleave(steps, 2),
        read_MR1.repeat_interleave(steps, 1),
        write_MR1.repeat_interleave(steps, 1),
    )


def _by_chunk(tensors: tuple[Tensor, ...], N: int) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(each.unflatten(0, (-1, N)) for each in tensors), strict=True)


def delta_rule(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor, state: Tensor, *, steps: int, chunk: int
) -> tuple[Tensor, Tensor]:
    """A chunk has whole steps of y: `chunk` sub-steps at most, or those of one step."""
    R = max(1, min(chunk // steps, q.shape[1]))
    y, last, *_ = _DeltaRule.apply(q, k, v, beta, g, state, R, steps)  # type: ignore[no-untyped-call]
    return y, last
