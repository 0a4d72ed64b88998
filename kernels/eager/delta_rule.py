"""The gated delta rule in chunks, by its WY form (Yang et al. 2024; gates: Yang et al. 2025, sub-steps: Siems et al. 2025).

Within a chunk u_i = beta_i (v_i - k_i^T decayed S - sum_{j<i} (k_i^T k_j decayed) u_j): one triangular inverse `wy` for every
chunk at once, then S_{c+1} = decayed S_c + K^T U. Sub-steps are steps of their own whose decay is on the first, read on the last.

B batch, T time, H heads, K keys, V values; M chunks of R reads and L = R steps steps, N = B H;
P = L + R rows that read the state.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from distseq.kernels.eager.chunks import Decay, by_chunk, chunked, scalar_decay, scalar_decay_gradient, whole
from distseq.kernels.stacking import Axes, Found, along_heads


class _DeltaRule(torch.autograd.Function):
    """Outputs after y and the last state are intermediates: what backward needs."""

    @staticmethod
    def forward(
        q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor, state: Tensor, R: int, steps: int
    ) -> tuple[Tensor, ...]:
        q_MRK, decay = chunked(q, R), scalar_decay(chunked(g, R))
        k_MLK, v_MLV, beta_ML1 = (chunked(each, R * steps) for each in (k, v, beta[..., None]))
        seen_MRL, read_ML1, write_ML1 = _of_steps(decay, steps)
        kk_MLL = torch.bmm(k_MLK, k_MLK.mT).mul_(_repeated(seen_MRL, 1, steps)).tril_(-1)
        one_LL = torch.eye(R * steps, dtype=k_MLK.dtype, device=k.device).expand_as(kk_MLL)
        wy_MLL = torch.linalg.solve_triangular(beta_ML1 * kk_MLL, one_LL, upper=False, unitriangular=True)
        scaled_MLL = wy_MLL * beta_ML1.mT
        w_MLK = torch.bmm((scaled_MLL * read_ML1.mT).neg_(), k_MLK)
        reads_MPK = torch.cat([w_MLK, q_MRK * decay.read], 1)
        # Rows of u, then of y: what they have without the state, to which the state's part is added.
        rows_MPV = torch.cat([torch.bmm(scaled_MLL, v_MLV), v_MLV.new_zeros(*q_MRK.shape[:2], v.shape[3])], 1)
        begun_NKV = state.flatten(0, 1)
        states_CNKV = v_MLV.new_empty(len(v_MLV) // len(begun_NKV) + 1, *begun_NKV.shape)
        states_CNKV[0] = begun_NKV
        chunks = by_chunk((rows_MPV, reads_MPK, (k_MLK * write_ML1).mT, decay.read[:, -1:]), len(begun_NKV))
        for before, after, (rows, reads, written, kept) in zip(states_CNKV[:-1], states_CNKV[1:], chunks, strict=True):
            rows.baddbmm_(reads, before)
            torch.mul(before, kept, out=after).baddbmm_(written, rows[:, : R * steps])
        u_MLV, y_MRV = rows_MPV[:, : R * steps], rows_MPV[:, R * steps :]
        qk_MRL = torch.bmm(q_MRK, k_MLK.mT).mul_(seen_MRL)
        y = whole(torch.baddbmm(y_MRV, qk_MRL, u_MLV), q.shape[:3], v.dtype)
        last, chunked_inputs = states_CNKV[-1].view_as(state).clone(), (q_MRK, k_MLK, v_MLV, beta_ML1, *decay)
        return y, last, *chunked_inputs, kk_MLL, wy_MLL, qk_MRL, reads_MPK, rows_MPV, states_CNKV

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*output[2:])
        ctx.mark_non_differentiable(*output[2:])
        ctx.set_materialize_grads(False)
        ctx.R, ctx.steps = inputs[6:]
        ctx.shapes, ctx.dtypes = zip(*((each.shape[:3], each.dtype) for each in inputs[:5]), strict=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor | None, dlast: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        q_MRK, k_MLK, v_MLV, beta_ML1, *decay, kk_MLL, wy_MLL, qk_MRL, reads_MPK, rows_MPV, states_CNKV = (
            ctx.saved_tensors
        )
        seen_MRL, read_ML1, write_ML1 = _of_steps(Decay(*decay), ctx.steps)
        L, read_MR1, begun_NKV = k_MLK.shape[1], decay[1], states_CNKV[0]
        written_MLK, u_MLV = k_MLK * write_ML1, rows_MPV[:, :L]
        dy_MRV = v_MLV.new_zeros(*q_MRK.shape[:2], v_MLV.shape[2]) if dy is None else chunked(dy, ctx.R)

        # From the last chunk to the first, the gradient of the state in place; reading a state twice while it is in the cache.
        du_MLV, dwrite_MLK = torch.bmm(qk_MRL.mT, dy_MRV), torch.empty_like(k_MLK)
        past_M11 = k_MLK.new_empty(len(k_MLK), 1, 1)
        drows_MPV = torch.cat([du_MLV, dy_MRV], 1)
        dstate_NKV = torch.zeros_like(begun_NKV) if dlast is None else dlast.reshape(begun_NKV.shape).clone()
        chunks = (du_MLV, dwrite_MLK, past_M11, drows_MPV, u_MLV, reads_MPK.mT, written_MLK, read_MR1[:, -1:])
        for state, each in reversed(list(zip(states_CNKV[:-1], by_chunk(chunks, len(begun_NKV)), strict=True))):
            du, dwrite, past, drows, u, reads, written, kept = each
            drows[:, :L] = du.baddbmm_(written, dstate_NKV)
            torch.bmm(u, dstate_NKV.mT, out=dwrite)
            torch.bmm(state.flatten(1)[:, None], dstate_NKV.flatten(1)[..., None], out=past)
            dstate_NKV.mul_(kept).baddbmm_(reads, drows)
        before_MKV = states_CNKV[:-1].flatten(0, 1)

        # u = wy beta (v - decayed k^T S), and wy the inverse of I + beta kk: its gradient is -(wy^T du) u^T.
        dscaled_MLV = torch.bmm(wy_MLL.mT, du_MLV)
        derror_MLV = beta_ML1 * dscaled_MLV
        drows_MPV[:, :L] = dscaled_MLV
        from_state_MPK = torch.bmm(drows_MPV, before_MKV.mT)
        dread_MLK, dq_read_MRK = from_state_MPK[:, :L].mul_(read_ML1), from_state_MPK[:, L:].mul_(read_MR1)
        dwrite_MLK.mul_(write_ML1)
        dkk_MLL, dqk_MRL = torch.bmm(derror_MLV, u_MLV.mT).neg_(), torch.bmm(dy_MRV, u_MLV.mT)
        pairs_MRR = _summed(dqk_MRL * qk_MRL, 2, ctx.steps)
        pairs_MRR += _summed(_summed(dkk_MLL * kk_MLL, 2, ctx.steps), 1, ctx.steps)
        dqk_MRL, dkk_MLL = dqk_MRL.mul_(seen_MRL), dkk_MLL.mul_(_repeated(seen_MRL, 1, ctx.steps)).tril_(-1)
        dq = torch.baddbmm(dq_read_MRK, dqk_MRL, k_MLK)
        writes_ML = (dwrite_MLK * k_MLK).sum(2)
        dk = dwrite_MLK.baddbmm_(dkk_MLL + dkk_MLL.mT, k_MLK).baddbmm_(dqk_MRL.mT, q_MRK)
        dk.addcmul_(dread_MLK, beta_ML1, value=-1)
        reads_ML = dread_MLK.mul_(k_MLK).sum(2)
        dbeta = torch.baddbmm(v_MLV, kk_MLL, u_MLV, alpha=-1).mul_(dscaled_MLV).sum(2).sub_(reads_ML)
        dg = None
        if ctx.needs_input_grad[4]:
            reads_MR = dq_read_MRK.mul_(q_MRK).sum(2).sub_(_summed(reads_ML * beta_ML1[..., 0], 1, ctx.steps))
            writes_MR = _summed(writes_ML, 1, ctx.steps)
            past_M = past_M11.flatten() * read_MR1[:, -1, 0]
            dg = scalar_decay_gradient(pairs_MRR, reads_MR, writes_MR, past_M)
        formed = zip((dq, dk, derror_MLV, dbeta, dg), ctx.shapes, ctx.dtypes, strict=True)
        found = (None if each is None else whole(each, shape, dtype) for each, shape, dtype in formed)
        return *found, dstate_NKV.unflatten(0, (ctx.shapes[0][0], -1)), None, None

    @staticmethod
    def vmap(info: Any, dims: Axes, *args: Any) -> Found:
        return along_heads(_DeltaRule, info, dims, args, (2, 2, 2, 2, 2, 1, None, None), (2, 1))


def _repeated(x: Tensor, dim: int, steps: int) -> Tensor:
    return x if steps == 1 else x.repeat_interleave(steps, dim)


def _summed(x: Tensor, dim: int, steps: int) -> Tensor:
    return x if steps == 1 else x.unflatten(dim, (-1, steps)).sum(dim + 1)


def _of_steps(decay: Decay, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Between reads and steps (M, R, L), and of a step's reading and writing (M, L, 1)."""
    return _repeated(decay.between, 2, steps), _repeated(decay.read, 1, steps), _repeated(decay.write, 1, steps)


def delta_rule(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor, state: Tensor, *, steps: int, chunk: int
) -> tuple[Tensor, Tensor]:
    """A chunk has whole steps of y: `chunk` sub-steps at most, or those of one step."""
    R = max(1, min(chunk // steps, q.shape[1]))
    y, last, *_ = _DeltaRule.apply(q, k, v, beta, g, state, R, steps)
    return y, last
