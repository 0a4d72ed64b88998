"""Weights of linear attention with a decay for each key, accurate for decays of any strength.

The usual form scales queries by exp(b) and keys by exp(-b) with cumulated log-decays b; exp(-b) overflows where decays are
strong. Here a chunk is halved again and again. The decay between a step in the right half of a block and one in the left half
is a product of two factors: from the right step back to the middle (`read`), and from the middle back to the left step
(`write`). Both are products of decays, hence at most 1. Blocks of `base` steps are not halved: their decays are weak enough to
scale all their queries and keys once, relative to the middle of the block.

M chunks of L steps, L a power of two; K keys; halves of h steps.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

# Largest exponent of a scaling within a block. Two of them meet in a product: exp(80) = 6e34 leaves a factor of 6000 to the
# largest float32.
LARGEST = 40.0


def _base(decay_MLK: Tensor) -> int:
    """The largest block size for which no exponent from the middle of a block exceeds LARGEST; 1 if there is none."""
    # It depends on the data: calls with different batches may use different blocks, and then agree to rounding only, like
    # products of different batch sizes. Equal inputs have equal blocks, so replicas agree bit for bit.
    steepest = -float(decay_MLK.min().log())
    base = decay_MLK.shape[1]
    # `not <`, so that an infinite exponent or NaN also ends at single steps.
    while base > 1 and not steepest * base / 2 < LARGEST:
        base //= 2
    return base


class _Level(NamedTuple):
    """All blocks of one size: which of their steps read (rows) and write (columns), and the factors of q and k."""

    rows: slice
    columns: slice
    q_factor: Tensor  # (M, blocks, rows, K)
    k_factor: Tensor
    size: int


def _levels(decay_MLK: Tensor) -> Iterator[_Level]:
    """Blocks from small to large; a last level, of size 0, has `read` and `write` of the whole chunk."""
    M, L, K = decay_MLK.shape
    base = _base(decay_MLK)
    read, write = decay_MLK.clone(), torch.ones_like(decay_MLK)
    # `read` and `write` hold products within blocks of h steps, at first the step's own decay and none.
    h = 1
    while h < L:
        (left_read, right_read), left_write = read.view(M, -1, 2, h, K).unbind(2), write.view(M, -1, 2, h, K)[:, :, 0]
        if 2 * h == base:
            factor = torch.cat([left_write.reciprocal(), right_read], 2)
            yield _Level(slice(None), slice(None), factor, factor.reciprocal(), base)
        elif h >= base:
            yield _Level(slice(h, None), slice(h), right_read, left_write, 2 * h)
        # Doubling: in a block of twice the size, what the left half writes also decays over the right half, and what the right
        # half reads over the left half. In this order, because the first line needs the right half's product as it was.
        left_write *= right_read[:, :, -1:]
        right_read *= left_read[:, :, -1:]
        h *= 2
    yield _Level(slice(None), slice(None), read[:, None], write[:, None], 0)


def _block(x_MLK: Tensor, size: int, part: slice) -> Tensor:
    return x_MLK.unflatten(1, (-1, size))[:, :, part]


def _square(a_MLL: Tensor, level: _Level) -> Tensor:
    """A view of the level's blocks on the diagonal of a, (M, blocks, rows, columns)."""
    blocks = a_MLL.unflatten(2, (-1, level.size)).unflatten(1, (-1, level.size)).diagonal(dim1=1, dim2=3)
    return blocks[:, level.rows, level.columns].movedim(-1, 1)


def weights(q_MLK: Tensor, k_MLK: Tensor, decay_MLK: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, and `read` and `write` (M, L, K) of the chunk.

    Weights (M, L, L), lower triangular: the sum over keys of q_i k_j times the decays after step j up to i.
    """
    M, L, _ = q_MLK.shape
    a_MLL = q_MLK.new_zeros(M, L, L)
    for level in _levels(decay_MLK):
        if level.size:
            rows = _block(q_MLK, level.size, level.rows) * level.q_factor
            columns = _block(k_MLK, level.size, level.columns) * level.k_factor
            _square(a_MLL, level).copy_(rows @ columns.mT)
    # A step reads what it has just written without any decay.
    a_MLL.diagonal(dim1=1, dim2=2).copy_((q_MLK * k_MLK).sum(2))
    return a_MLL.tril_(), level.q_factor[:, 0], level.k_factor[:, 0]


def gradients(da_MLL: Tensor, q_MLK: Tensor, k_MLK: Tensor, decay_MLK: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """dq and dk (M, L, K), and q dq - k dk of the chunk's pairs (M, L, K), whose reverse-cumsum is dg."""
    # Pairs of a step with itself have no decay. They are left out of the sums, in which they would cancel only to rounding.
    own_ML1 = da_MLL.diagonal(dim1=1, dim2=2)[..., None]
    da_MLL = da_MLL.tril(-1)
    dq_MLK, dk_MLK = torch.zeros_like(q_MLK), torch.zeros_like(k_MLK)
    for level in _levels(decay_MLK):
        if level.size:
            da = _square(da_MLL, level).contiguous()
            rows = _block(q_MLK, level.size, level.rows) * level.q_factor
            columns = _block(k_MLK, level.size, level.columns) * level.k_factor
            _block(dq_MLK, level.size, level.rows).addcmul_(da @ columns, level.q_factor)
            _block(dk_MLK, level.size, level.columns).addcmul_(da.mT @ rows, level.k_factor)
    gained_MLK = q_MLK * dq_MLK - k_MLK * dk_MLK
    return dq_MLK.addcmul_(own_ML1, k_MLK), dk_MLK.addcmul_(own_ML1, q_MLK), gained_MLK
