"""Attention of one query over a few keys each, with the query projected instead of the keys.

With keys and values from the same x_j, a head scores q . W_k x_j = W_k^T q . x_j and sums a_j W_v x_j = W_v sum_j a_j x_j: two
products over Q queries instead of two over Q k keys. A bias of the keys would add the same number to all scores of a query
and vanish in the softmax. x_j = [part | part | ...] is never concatenated, so no gradient is formed for parts that are constant.

Shapes: Q queries, K keys, H heads, D size of a head, P width of a part, W width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from distseq.kernels.linear import Linear


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
        projected_QHP = torch.bmm(q_HQD, self.key.unflatten(0, (self.heads, -1))).transpose(0, 1).split(self.parts, 2)
        pairs = zip(projected_QHP, parts, strict=True)
        score_QHK = sum((torch.bmm(q, part.mT) for q, part in pairs), torch.zeros((), dtype=own.dtype))
        # A finite number instead of -inf, with which a query without keys would be NaN.
        score_QHK = (score_QHK * self.size**-0.5).masked_fill(~valid[:, None], torch.finfo(own.dtype).min)
        a_QHK = score_QHK.softmax(2) * valid[:, None]
        if kept is not None:
            a_QHK = a_QHK * kept
        sums_QHP = torch.cat([torch.bmm(a_QHK, part) for part in parts], 2)
        attended_HQD = torch.bmm(sums_QHP.transpose(0, 1), self.value.unflatten(0, (self.heads, -1)).mT)
        attended = attended_HQD.transpose(0, 1).flatten(1)
        return self.out(torch.relu(self.merge(torch.cat([attended, own], 1))))
