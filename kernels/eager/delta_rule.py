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


class _DeltaRule(torch.autograd.Function):
    """Outputs after y and the last state are intermediates: what backward needs."""

    @staticmethod
    def forward(  # type: ignore[override]
        q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor, state: Tensor, R: int, steps: int
    ) -> tuple[Tensor, ...]:
        begun_NKV, L = state.flatten(0, 1), R * steps
        decay, v_MLV, beta_ML1 = scalar_decay(chunked(g, R)), chunked(v, L), chunked(beta[..., None], L)
        kq_MPK, rows_MPV = (v_MLV.new_empty(len(v_MLV), L + R, each.shape[3]) for each in (k, v))
        k_MLK = chunked(k, L, into=kq_MPK[:, :L])
        chunked(q, R, into=kq_MPK[:, L:])
        seen_MPL, read_MP1, write_ML1 = _of_rows(decay, steps)
        pairs_MPL = torch.bmm(kq_MPK, k_MLK.mT).mul_(seen_MPL)
        one_LL = torch.eye(L, dtype=k_MLK.dtype, device=k.device).expand(len(k_MLK), L, L)
        wy_MLL = torch.linalg.solve_triangular(-beta_ML1 * pairs_MPL[:, :L], one_LL, upper=False, unitriangular=True)
        read_MP1[:, :L] *= beta_ML1
        torch.mul(v_MLV, beta_ML1, out=rows_MPV[:, :L])
        rows_MPV[:, L:] = 0.0
        u_MLV = torch.empty_like(v_MLV)
        states_CNKV = v_MLV.new_empty(len(v_MLV) // len(begun_NKV) + 1, *begun_NKV.shape)
        states_CNKV[0] = begun_NKV
        reads_MPK, written_MLK = kq_MPK * read_MP1, k_MLK * write_ML1
        chunks = by_chunk((rows_MPV, reads_MPK, wy_MLL, u_MLV, written_MLK.mT, decay.read[:, -1:]), len(begun_NKV))
        for before, after, each in zip(states_CNKV[:-1], states_CNKV[1:], chunks, strict=True):
            rows, reads, wy, u, written, kept = each
            torch.bmm(wy, rows.baddbmm_(reads, before)[:, :L], out=u)
            torch.mul(before, kept, out=after).baddbmm_(written, u)
        y = whole(torch.baddbmm(rows_MPV[:, L:], pairs_MPL[:, L:], u_MLV), q.shape[:3], v.dtype)
        last = states_CNKV[-1].view_as(state).clone()
        return y, last, kq_MPK, v_MLV, beta_ML1, *decay, pairs_MPL, wy_MLL, reads_MPK, written_MLK, u_MLV, states_CNKV

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
        kq_MPK, v_MLV, beta_ML1, *decay, pairs_MPL, wy_MLL, reads_MPK, written_MLK, u_MLV, states_CNKV = ctx.saved_tensors
        seen_MPL, read_MP1, write_ML1 = _of_rows(Decay(*decay), ctx.steps)
        (M, L, V), begun_NKV = v_MLV.shape, states_CNKV[0]
        k_MLK, kept_M11 = kq_MPK[:, :L], decay[1][:, -1:]
        drows_MPV = v_MLV.new_empty(M, L + ctx.R, V)
        dy_MRV = drows_MPV[:, L:].zero_() if dy is None else chunked(dy, ctx.R, into=drows_MPV[:, L:])

        # From the last chunk to the first, the gradient of the state in place; reading a state twice while it is in the cache.
        du_MLV, dkq_MPK, dwrite_MLK = torch.bmm(pairs_MPL[:, L:].mT, dy_MRV), torch.empty_like(kq_MPK), torch.empty_like(written_MLK)
        past_M = kept_M11.new_empty(M)
        dstate_NKV = torch.zeros_like(begun_NKV) if dlast is None else dlast.reshape(begun_NKV.shape).clone()
        chunks = (du_MLV, dkq_MPK, dwrite_MLK, past_M, drows_MPV, wy_MLL.mT, u_MLV, reads_MPK.mT, written_MLK, kept_M11)
        for state, each in reversed(list(zip(states_CNKV[:-1], by_chunk(chunks, len(begun_NKV)), strict=True))):
            du, dkq, dwrite, past, drows, wy, u, reads, written, kept = each
            drows[:, :L] = torch.bmm(wy, du.baddbmm_(written, dstate_NKV))
            torch.bmm(u, dstate_NKV.mT, out=dwrite)
            torch.bmm(drows, state.mT, out=dkq)
            if ctx.needs_input_grad[4]:
                torch.sum(state * dstate_NKV, (1, 2), out=past)
            dstate_NKV.mul_(kept).baddbmm_(reads, drows)

        # u = wy beta (v - decayed k^T S), and wy the inverse of I + beta kk: its gradient is -(wy^T du) u^T.
        dpairs_MPL = torch.bmm(drows_MPV, u_MLV.mT)
        pairs_MPL = pairs_MPL * dpairs_MPL
        dkq_MPK *= read_MP1
        reads_MP = (dkq_MPK * kq_MPK).sum(2)
        dwrite_MLK *= write_ML1
        dbeta = (drows_MPV[:, :L] * v_MLV).sum(2).add_(reads_MP[:, :L]).add_(pairs_MPL[:, :L].sum(2))
        dg = None
        if ctx.needs_input_grad[4]:
            pairs_MPL[:, :L] *= beta_ML1
            reads_MP[:, :L] *= beta_ML1[..., 0]
            pairs_MRR = _summed(pairs_MPL[:, L:], 2, ctx.steps) + _summed(_summed(pairs_MPL[:, :L], 2, ctx.steps), 1, ctx.steps)
            reads_MR = reads_MP[:, L:] + _summed(reads_MP[:, :L], 1, ctx.steps)
            writes_MR = _summed((dwrite_MLK * k_MLK).sum(2), 1, ctx.steps)
            dg = scalar_decay_gradient(pairs_MRR, reads_MR, writes_MR, past_M * kept_M11.flatten())
        dpairs_MPL *= seen_MPL
        dpairs_MPL[:, :L] *= beta_ML1
        dkq_MPK[:, :L] *= beta_ML1
        dkq_MPK.baddbmm_(dpairs_MPL, k_MLK)
        dk = dwrite_MLK.baddbmm_(dpairs_MPL.mT, kq_MPK).add_(dkq_MPK[:, :L])
        dv = drows_MPV[:, :L].mul_(beta_ML1)
        found = zip((dkq_MPK[:, L:], dk, dv, dbeta, dg), ctx.shapes, ctx.dtypes, strict=True)
        found = (None if each is None else whole(each, shape, dtype) for each, shape, dtype in found)
        return *found, dstate_NKV.unflatten(0, (ctx.shapes[0][0], -1)), None, None


def _repeated(x: Tensor, dim: int, steps: int) -> Tensor:
    return x if steps == 1 else x.repeat_interleave(steps, dim)


def _summed(x: Tensor, dim: int, steps: int) -> Tensor:
    return x if steps == 1 else x.unflatten(dim, (-1, steps)).sum(dim + 1)


def _of_rows(decay: Decay, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """What a row has of a step (M, P, L) and of the state (M, P, 1), negative where a step takes it from its value; and of a
    step's writing (M, L, 1)."""
    seen_MRL, write_ML1 = _repeated(decay.between, 2, steps), _repeated(decay.write, 1, steps)
    own_MLL, own_ML1 = _repeated(seen_MRL, 1, steps).tril(-1), _repeated(decay.read, 1, steps)
    return torch.cat([own_MLL.neg_(), seen_MRL], 1), torch.cat([-own_ML1, decay.read], 1), write_ML1


def delta_rule(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor, state: Tensor, *, steps: int, chunk: int
) -> tuple[Tensor, Tensor]:
    """A chunk has whole steps of y: `chunk` sub-steps at most, or those of one step."""
    R = max(1, min(chunk // steps, q.shape[1]))
    y, last, *_ = _DeltaRule.apply(q, k, v, beta, g, state, R, steps)  # type: ignore[no-untyped-call]
    return y, last
