"""The gated delta rule in chunks, by its WY form.

Sources: Yang et al. 2024; for gates Yang et al. 2025; for sub-steps Siems et al. 2025. Within a chunk, step i writes
u_i = beta_i (v_i - k_i^T decayed S - sum_{j<i} (k_i^T k_j decayed) u_j). This is a triangular system, whose inverse `wy` is
computed for all chunks at once; then S_{c+1} = decayed S_c + K^T U. Each of the `steps` sub-steps counts as a step: the first
of them decays, and the query reads after the last.

The key of a step and the query of a read act alike on the state and on u, but for the sign. They are therefore rows of one
matrix, keys first, because few large products are faster than twice as many small ones.

B batch, T time, H heads, K keys, V values; M chunks of R reads and L = R * steps steps, P = L + R rows of both, N = B H.
"""

from typing import Any

import torch
from torch import Tensor

from distseq.kernels.border import once
from distseq.kernels.eager.chunks import by_chunk, chunked, scalar_decay, scalar_decay_gradient, unchunked
from distseq.kernels.stacking import Axes, VmapResult, along_heads

# Head sizes from which chunks of 32 steps are faster than chunks of 16. A chunk costs a product with the K x V state, and L^2
# pairs: the larger the state, the more it pays to have fewer chunks.
WIDE = 64


class _DeltaRule(torch.autograd.Function):
    """The outputs after y and the last state are intermediates for backward."""

    @staticmethod
    def forward(
        q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor, state: Tensor, R: int, steps: int
    ) -> tuple[Tensor, ...]:
        initial_NKV, L = state.flatten(0, 1), R * steps
        decays = seen_MPL, read_MP1, write_ML1, kept_M11 = _of_rows(chunked(g, R), steps)
        beta_ML1 = chunked(beta[..., None], L)
        kq_MPK, rows_MPV = (beta_ML1.new_empty(len(beta_ML1), L + R, each.shape[3]) for each in (k, v))
        k_MLK = chunked(k, L, into=kq_MPK[:, :L])
        chunked(q, R, into=kq_MPK[:, L:])
        chunked(v, L, into=rows_MPV[:, :L])
        # A read has no value of its own to correct: its row starts from 0 and becomes y.
        rows_MPV[:, L:] = 0.0
        pairs_MPL = torch.bmm(kq_MPK, k_MLK.mT).mul_(seen_MPL)
        # The inverse itself, although solving is said to be better: it serves forward, backward and every right-hand side as a
        # batched product, while a solve of each would run one by one. The system is unit triangular and only L steps wide.
        one_LL = torch.eye(L, dtype=k_MLK.dtype, device=k.device).expand(len(k_MLK), L, L)
        wy_MLL = torch.linalg.solve_triangular(-beta_ML1 * pairs_MPL[:, :L], one_LL, upper=False, unitriangular=True)
        reads_MPK, written_MLK = kq_MPK * read_MP1, k_MLK * write_ML1
        u_MLV = v.new_empty(len(k_MLK), L, v.shape[3], dtype=k_MLK.dtype)
        states_CNKV = u_MLV.new_empty(len(u_MLV) // len(initial_NKV) + 1, *initial_NKV.shape)
        states_CNKV[0] = initial_NKV
        chunks = by_chunk(
            (rows_MPV, reads_MPK, wy_MLL * beta_ML1.mT, u_MLV, written_MLK.mT, kept_M11), len(initial_NKV)
        )
        for before, after, each in zip(states_CNKV[:-1], states_CNKV[1:], chunks, strict=True):
            rows, reads, scaled, u, written, kept = each
            torch.bmm(scaled, rows.baddbmm_(reads, before)[:, :L], out=u)
            torch.mul(before, kept, out=after).baddbmm_(written, u)
        # From here on the row of a step is u / beta, and that of a read is y.
        rows_MPV.baddbmm_(pairs_MPL, u_MLV)
        y, last = unchunked(rows_MPV[:, L:], q.shape[:3], v.dtype), states_CNKV[-1].view_as(state).clone()
        within = (pairs_MPL, wy_MLL, reads_MPK, written_MLK, rows_MPV, u_MLV)
        return y, last, kq_MPK, beta_ML1, *decays, *within, states_CNKV

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        # The last state too, by which a second derivative finds its way here (distseq.kernels.border.once).
        ctx.save_for_backward(*output[1:])
        ctx.mark_non_differentiable(*output[2:])
        ctx.set_materialize_grads(False)
        ctx.R, ctx.steps = inputs[6:]
        ctx.shapes, ctx.dtypes = zip(*((each.shape[:3], each.dtype) for each in inputs[:5]), strict=True)

    @staticmethod
    @once
    def backward(ctx: Any, dy: Tensor | None, dlast: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        _, kq_MPK, beta_ML1, seen_MPL, read_MP1, write_ML1, kept_M11, *saved = ctx.saved_tensors
        pairs_MPL, wy_MLL, reads_MPK, written_MLK, rows_MPV, u_MLV, states_CNKV = saved
        L, initial_NKV, with_decay = u_MLV.shape[1], states_CNKV[0], ctx.needs_input_grad[4]
        drows_MPV = torch.empty_like(rows_MPV)
        dy_MRV = drows_MPV[:, L:].zero_() if dy is None else chunked(dy, ctx.R, into=drows_MPV[:, L:])

        # From the last chunk to the first, the state's gradient is updated in place. What needs a chunk's state is computed in
        # this loop too, while that state is in the cache.
        du_MLV, derror_MLV = torch.bmm(pairs_MPL[:, L:].mT, dy_MRV), torch.empty_like(u_MLV)
        dkq_MPK, dwrite_MLK = torch.empty_like(kq_MPK), torch.empty_like(written_MLK)
        past_M = kept_M11.new_empty(len(kept_M11))
        dstate_NKV = torch.zeros_like(initial_NKV) if dlast is None else dlast.reshape(initial_NKV.shape).clone()
        found = (du_MLV, derror_MLV, drows_MPV, dkq_MPK, dwrite_MLK, past_M)
        chunks = by_chunk((*found, beta_ML1, wy_MLL.mT, u_MLV, reads_MPK.mT, written_MLK, kept_M11), len(initial_NKV))
        for state, each in reversed(list(zip(states_CNKV[:-1], chunks, strict=True))):
            du, derror, drows, dkq, dwrite, past, beta, wy, u, reads, written, kept = each
            torch.bmm(wy, du.baddbmm_(written, dstate_NKV), out=derror)
            torch.mul(derror, beta, out=drows[:, :L])
            torch.bmm(u, dstate_NKV.mT, out=dwrite)
            torch.bmm(drows, state.mT, out=dkq)
            if with_decay:
                torch.sum(state * dstate_NKV, (1, 2), out=past)
            dstate_NKV.mul_(kept).baddbmm_(reads, drows)

        # u = wy beta (v - decayed k^T S), where wy is the inverse of I + beta k k^T. The gradient of that matrix is therefore
        # -(wy^T du) u^T, and that of beta has the factor u / beta, which is in `rows`: dividing by a beta of 0 is never needed.
        # The row of a step in `drows` is the gradient of v.
        dpairs_MPL, dg = torch.bmm(drows_MPV, u_MLV.mT), None
        dbeta = derror_MLV.mul_(rows_MPV[:, :L]).sum(2)
        dkq_MPK *= read_MP1
        dwrite_MLK *= write_ML1
        if with_decay:
            pairs_MPL, reads_MP = pairs_MPL * dpairs_MPL, (dkq_MPK * kq_MPK).sum(2)
            pairs_MRL = _summed(pairs_MPL[:, :L], 1, ctx.steps) + pairs_MPL[:, L:]
            reads_MR = _summed(reads_MP[:, :L], 1, ctx.steps) + reads_MP[:, L:]
            writes_MR = _summed((dwrite_MLK * kq_MPK[:, :L]).sum(2), 1, ctx.steps)
            pairs_MRR, past_M = _summed(pairs_MRL, 2, ctx.steps), past_M.mul_(kept_M11.flatten())
            dg = scalar_decay_gradient(pairs_MRR, reads_MR, writes_MR, past_M)
        dkq_MPK.baddbmm_(dpairs_MPL.mul_(seen_MPL), kq_MPK[:, :L])
        dk = dwrite_MLK.baddbmm_(dpairs_MPL.mT, kq_MPK).add_(dkq_MPK[:, :L])
        grads = zip((dkq_MPK[:, L:], dk, drows_MPV[:, :L], dbeta, dg), ctx.shapes, ctx.dtypes, strict=True)
        unchunked_grads = (None if each is None else unchunked(each, shape, dtype) for each, shape, dtype in grads)
        return *unchunked_grads, dstate_NKV.unflatten(0, (ctx.shapes[0][0], -1)), None, None

    @staticmethod
    def vmap(info: Any, dims: Axes, *args: Any) -> VmapResult:
        return along_heads(_DeltaRule, info, dims, args, (2, 2, 2, 2, 2, 1, None, None), (2, 1))


# Most layers have one sub-step, for which neither copies nor sums are made.
def _repeated(x: Tensor, dim: int, steps: int) -> Tensor:
    return x if steps == 1 else x.repeat_interleave(steps, dim)


def _summed(x: Tensor, dim: int, steps: int) -> Tensor:
    return x if steps == 1 else x.unflatten(dim, (-1, steps)).sum(dim + 1)


def _of_rows(g_MR: Tensor, steps: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Decays of a chunk: `seen` (M, P, L), by which rows see steps, and `read` (M, P, 1), by which they see the state, both
    negative in rows of steps, which subtract what they see from their value; and `write` (M, L, 1) and `kept` (M, 1, 1), by
    which the state after the chunk has the steps and the state before."""
    between_MRR, read_MR1, write_MR1 = scalar_decay(g_MR)
    seen_MRL, own_ML1 = _repeated(between_MRR, 2, steps), _repeated(read_MR1, 1, steps)
    own_MLL = _repeated(seen_MRL, 1, steps).tril(-1)
    seen_MPL, read_MP1 = torch.cat([own_MLL.neg_(), seen_MRL], 1), torch.cat([-own_ML1, read_MR1], 1)
    return seen_MPL, read_MP1, _repeated(write_MR1, 1, steps), read_MR1[:, -1:]


def delta_rule(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor, state: Tensor, *, steps: int, chunk: int | None
) -> tuple[Tensor, Tensor]:
    """As distseq.kernels.delta_rule, with checked arguments. A chunk has at most `chunk` sub-steps, but at least one step."""
    # About equal chunks: with 33 steps in chunks of 32, nearly half of the computation would be filling.
    T, most = q.shape[1], chunk or (32 if max(state.shape[2:]) >= WIDE else 16)
    R = -(-T // -(-T // max(1, most // steps)))
    y, last, *_ = _DeltaRule.apply(q, k, v, beta, g, state, R, steps)
    return y, last
