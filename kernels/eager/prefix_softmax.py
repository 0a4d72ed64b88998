"""Prefix softmax (Aaren, Feng et al. 2024) in chunks, with one mean carried between them.

The weight of step j in the mean up to step i is exp(s_j - log-sum up to i). B batch, T time, H heads, V values; M chunks of L
steps, C chunks of a sample and head, N = B H.
"""

from typing import Any

import torch
from torch import Tensor

from distseq.kernels.border import once
from distseq.kernels.cells import State
from distseq.kernels.eager.chunks import carried, chunked, unchunked
from distseq.kernels.stacking import Axes, VmapResult, along_heads


class _PrefixSoftmax(torch.autograd.Function):
    """The outputs after y and the state are intermediates for backward."""

    @staticmethod
    def forward(s: Tensor, v: Tensor, log: Tensor, mean: Tensor, L: int) -> tuple[Tensor, ...]:
        # Logarithms are float64: scores of 1e4 have absolute errors of 1e-3 in float32, which leaves three digits of a weight.
        # The state enters as one more step, whose score is its log-sum and whose value is its mean.
        s_ML, v_MLV = chunked(s.double(), L, float("-inf")), chunked(v, L)
        scores_NS = torch.cat(
            [log.flatten()[:, None].double(), s_ML.unflatten(0, (-1, log.numel())).transpose(0, 1).flatten(1)], 1
        )
        logs_NS = scores_NS.logcumsumexp(1)
        log_ML = logs_NS[:, 1:].unflatten(1, (-1, L)).transpose(0, 1).flatten(0, 1)
        before_M1 = logs_NS[:, :-1:L].T.reshape(-1, 1)
        # Where no score so far is above -inf, all weights are exp(-inf) = 0, and so is the mean, instead of 0 / 0.
        log_ML = log_ML.clamp_min(torch.finfo(log_ML.dtype).min)
        exponents = (
            s_ML[:, None] - log_ML[..., None],
            (before_M1 - log_ML)[..., None],
            (s_ML - log_ML[:, -1:])[..., None],
        )
        w_MLL, kept_ML1, enter_ML1 = (each.to(v_MLV.dtype).exp_() for each in exponents)
        # Above the diagonal the exponents are positive and may have become inf; tril_ writes zeros there instead of multiplying.
        w_MLL = w_MLL.tril_()
        means_CNV = carried(torch.bmm(w_MLL[:, -1:], v_MLV)[:, 0], kept_ML1[:, -1], mean.flatten(0, 1))
        y_MLV = torch.bmm(w_MLL, v_MLV).addcmul_(kept_ML1, means_CNV[:-1].flatten(0, 1)[:, None])
        after = logs_NS[:, -1].view_as(log).to(log.dtype), means_CNV[-1].view_as(mean).clone()
        return unchunked(y_MLV, v.shape[:3], v.dtype), *after, v_MLV, y_MLV, w_MLL, kept_ML1, enter_ML1, means_CNV

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        # The last mean too, by which a second derivative finds its way here (distseq.kernels.border.once).
        ctx.save_for_backward(*output[2:])
        ctx.mark_non_differentiable(*output[3:])
        ctx.set_materialize_grads(False)
        ctx.L, ctx.shape, ctx.dtypes = inputs[4], inputs[0].shape, [each.dtype for each in inputs[:2]]

    @staticmethod
    @once
    def backward(
        ctx: Any, dy: Tensor | None, dlog: Tensor | None, dmean: Tensor | None, *_: None
    ) -> tuple[Tensor | None, ...]:
        """dv_j = sum_{i>=j} w_ij dy_i and ds_j = v_j dv_j - sum_{i>=j} w_ij (dy_i y_i)."""
        # Both sums have the same weights, so that [dy, dy y] goes through one product.
        _, v_MLV, y_MLV, w_MLL, kept_ML1, enter_ML1, means_CNV = ctx.saved_tensors
        dy_MLV = torch.zeros_like(v_MLV) if dy is None else chunked(dy, ctx.L)
        both_MLW = torch.cat([dy_MLV, (dy_MLV * y_MLV).sum(2, keepdim=True)], 2)
        ending_NV = torch.zeros_like(means_CNV[0]) if dmean is None else dmean.flatten(0, 1)
        ending_NW = torch.cat([ending_NV, (ending_NV * means_CNV[-1]).sum(1, keepdim=True)], 1)
        if dlog is not None:
            ending_NW[:, -1] -= dlog.flatten()
        later_CNW = carried(torch.bmm(kept_ML1.mT, both_MLW)[:, 0], kept_ML1[:, -1], ending_NW, reverse=True)
        got_MLW = torch.bmm(w_MLL.mT, both_MLW).addcmul_(enter_ML1, later_CNW[1:].flatten(0, 1)[:, None])
        dv_MLV, share_ML = got_MLW[..., :-1], got_MLW[..., -1]
        ds_ML = (v_MLV * dv_MLV).sum(2).sub_(share_ML)
        dmean_NV, share_N = later_CNW[0, :, :-1], later_CNW[0, :, -1]
        dlog_N = (means_CNV[0] * dmean_NV).sum(1).sub_(share_N)
        ds, dv = (unchunked(each, ctx.shape, dtype) for each, dtype in zip((ds_ML, dv_MLV), ctx.dtypes, strict=True))
        B = ctx.shape[0]
        return ds, dv, dlog_N.unflatten(0, (B, -1)), dmean_NV.unflatten(0, (B, -1)), None

    @staticmethod
    def vmap(info: Any, dims: Axes, *args: Any) -> VmapResult:
        return along_heads(_PrefixSoftmax, info, dims, args, (2, 2, 1, 1, None), (2, 1, 1))


def prefix_softmax(s: Tensor, v: Tensor, state: State, *, chunk: int) -> tuple[Tensor, State]:
    y, log, mean, *_ = _PrefixSoftmax.apply(s, v, *state, min(chunk, s.shape[1]))
    return y, (log, mean)
