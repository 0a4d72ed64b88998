"""Attention of one query over a few keys each, with the query projected instead of the keys.

With keys and values from the same x_j, a head scores q . W_k x_j = W_k^T q . x_j and sums a_j W_v x_j = W_v sum_j a_j x_j: two
products over Q queries instead of two over Q k keys. A bias of the keys would add the same number to all scores of a query
and vanish in the softmax. x_j = [part | part | ...] is never concatenated, so no gradient is formed for parts that are constant.

Shapes: Q queries, K keys, H heads, D size of a head, P width of x or of a part, W width.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distseq.kernels.border import once
from distseq.kernels.linear import Linear


class _Attend(torch.autograd.Function):
    """Sums (Q, H, P) of the keys' x, weighted by softmax(q . x); a query without a valid key gets zeros.

    The parts of x are put side by side once: products of so few rows cost a library more for each matrix than for its numbers, so
    that three parts would take three times as long. Backward, only parts that want a gradient are multiplied.
    """

    @staticmethod
    def forward(
        ctx: Any, scale: float, q_QHP: Tensor, valid_QK: Tensor, kept_QHK: Tensor | None, *parts: Tensor
    ) -> Tensor:
        x_QKP = torch.cat(parts, 2)
        # Keys times queries, not queries times keys: x is read in the order in which it lies (1.7 times as fast).
        score_QHK = torch.bmm(x_QKP, q_QHP.mT).mT * scale
        # A finite number instead of -inf, with which a query without keys would be NaN.
        score_QHK.masked_fill_(~valid_QK[:, None], torch.finfo(score_QHK.dtype).min)
        a_QHK = score_QHK.softmax(2) * valid_QK[:, None]
        weights_QHK = a_QHK if kept_QHK is None else a_QHK * kept_QHK
        sums_QHP = torch.bmm(weights_QHK, x_QKP)
        # The sums too, by which a second derivative finds its way here (distseq.kernels.border.once).
        ctx.save_for_backward(q_QHP, x_QKP, a_QHK, weights_QHK, kept_QHK, sums_QHP)
        ctx.scale, ctx.widths = scale, [part.shape[2] for part in parts]
        return sums_QHP

    @staticmethod
    @once
    def backward(ctx: Any, g_QHP: Tensor) -> tuple[Tensor | None, ...]:
        q_QHP, x_QKP, a_QHK, weights_QHK, kept_QHK, _ = ctx.saved_tensors
        g_QHP = g_QHP.contiguous()
        da_QHK = torch.bmm(x_QKP, g_QHP.mT).mT
        da_QHK = da_QHK if kept_QHK is None else da_QHK * kept_QHK
        ds_QHK = ctx.scale * a_QHK * (da_QHK - (a_QHK * da_QHK).sum(2, keepdim=True))
        dq_QHP = torch.bmm(ds_QHK, x_QKP) if ctx.needs_input_grad[1] else None
        found: list[Tensor | None] = []
        # Both ways into x at once: through the sums and through the scores.
        both_Q2HK = torch.cat([weights_QHK, ds_QHK], 1)
        cuts = zip(g_QHP.split(ctx.widths, 2), q_QHP.split(ctx.widths, 2), strict=True)
        for wanted, (g, q) in zip(ctx.needs_input_grad[4:], cuts, strict=True):
            found.append(torch.bmm(both_Q2HK.mT, torch.cat([g, q], 1)) if wanted else None)
        return None, dq_QHP, None, None, *found


class Attention(nn.Module):
    """out = W_2 relu(W_1 [attended | own]) for queries with `own` (Q, W) and `constant` (C,) behind it, over K keys each."""

    def __init__(self, width: int, constant: int, parts: Sequence[int], heads: int) -> None:
        super().__init__()
        self.parts, self.heads, self.size = [part for part in parts if part], heads, width // heads
        keys = sum(self.parts)
        self.query = Linear(width + constant, width, bias=False)
        # As two matrices with all heads' rows one below the other.
        self.key = nn.Parameter(torch.empty(width, keys))
        self.value = nn.Parameter(torch.empty(width, keys))
        self.merge, self.out = Linear(2 * width, width), Linear(width, width)
        # As TGN does: torch's default shrinks embeddings in each layer, and a model would say nothing for a hundred steps.
        for matrix in (self.query.weight, self.key, self.value, self.merge.weight, self.out.weight):
            nn.init.xavier_normal_(matrix)

    def forward(
        self, own: Tensor, constant: Tensor, parts: Sequence[Tensor], valid: Tensor, kept: Tensor | None = None
    ) -> Tensor:
        """(Q, W). parts: (Q, K, P) each. valid: (Q, K) bool. kept: (Q, H, K) factors of dropout on the weights.

        A query without a valid key attends to nothing: the attended part is 0.
        """
        parts = [part for part in parts if part.shape[-1]]
        q_HQD = (
            self.query(torch.cat([own, constant.expand(len(own), -1)], 1))
            .unflatten(1, (self.heads, -1))
            .transpose(0, 1)
        )
        projected_QHP = torch.bmm(q_HQD, self.key.unflatten(0, (self.heads, -1))).transpose(0, 1).contiguous()
        sums_QHP: Tensor = _Attend.apply(self.size**-0.5, projected_QHP, valid, kept, *parts)
        attended_HQD = torch.bmm(sums_QHP.transpose(0, 1), self.value.unflatten(0, (self.heads, -1)).mT)
        attended = attended_HQD.transpose(0, 1).flatten(1)
        return self.out(torch.relu(self.merge(torch.cat([attended, own], 1))))
