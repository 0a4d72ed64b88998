"""Linear attention's weights within a chunk where each key has its own decay, finite and accurate for any decay.

M chunks of L steps, L a power of two; K keys; halves of h steps. No exponential of a positive number and no difference of
cumulated decays: blocks are halved. What the right half of a block reads of the left decays from the reader back to the middle
(`read`) and from there back to the writer (`write`), both products of decays, <= 1, made by doubling. Blocks of `base` steps
are not halved: their decays are so weak that one scaling, by read/write from their middle and its inverse, serves all pairs.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

LARGEST = 40.0  # exp(2 * 40) times ordinary numbers is finite in float32


def _base(decay_MLK: Tensor) -> int:
    """The largest block size for which no exponent from the middle of a block exceeds LARGEST; 1 where none is.

    It depends on the data: two calls whose batches differ may take different blocks, which agree to rounding, as products of
    different batch sizes do. For equal inputs it is equal, so replicas agree in every bit.
    """
    steepest = -float(decay_MLK.min().log())
    base = decay_MLK.shape[1]
    while base > 1 and not steepest * base / 2 < LARGEST:
        base //= 2
    return base


class _Level(NamedTuple):
    """Rows read, columns are written; factors scale q and k. For a base, rows and columns are the whole block."""

    rows: slice
    columns: slice
    q_factor: Tensor  # (M, blocks, rows, K)
    k_factor: Tensor
    size: int


def _levels(decay_MLK: Tensor) -> Iterator[_Level]:
    """From small blocks to large ones; at the end `read` and `write` are those of the chunk, yielded as a last level."""
    M, L, K = decay_MLK.shape
    base = _base(decay_MLK)
    read, write = decay_MLK.clone(), torch.ones_like(decay_MLK)
    h = 1
    while h < L:
        (left_read, right_read), left_write = read.view(M, -1, 2, h, K).unbind(2), write.view(M, -1, 2, h, K)[:, :, 0]
        if 2 * h == base:
            factor = torch.cat([left_write.reciprocal(), right_read], 2)
            yield _Level(slice(None), slice(None), factor, factor.reciprocal(), base)
        elif h >= base:
            yield _Level(slice(h, None), slice(h), right_read, left_write, 2 * h)
        left_write *= right_read[:, :, -1:]
        right_read *= left_read[:, :, -1:]
        h *= 2
    yield _Level(slice(None), slice(None), read[:, None], write[:, None], 0)


def _block(x_MLK: Tensor, size: int, part: slice) -> Tensor:
    return x_MLK.unflatten(1, (-1, size))[:, :, part]


def _square(a_MLL: Tensor, level: _Level) -> Tensor:
    """The level's blocks on the diagonal of a, as a view (M, blocks, rows, columns)."""
    blocks = a_MLL.unflatten(2, (-1, level.size)).unflatten(1, (-1, level.size)).diagonal(dim1=1, dim2=3)
    return blocks[:, level.rows, level.columns].movedim(-1, 1)


def weights(q_MLK: Tensor, k_MLK: Tensor, decay_MLK: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(sum_K q_i k_j prod of the decays after j up to i, lower triangular (M, L, L); read, write (M, L, K) of the chunk)."""
    M, L, _ = q_MLK.shape
    a_MLL = q_MLK.new_zeros(M, L, L)
    for level in _levels(decay_MLK):
        if level.size:
            rows = _block(q_MLK, level.size, level.rows) * level.q_factor
            columns = _block(k_MLK, level.size, level.columns) * level.k_factor
            _square(a_MLL, level).copy_(rows @ columns.mT)
    a_MLL.diagonal(dim1=1, dim2=2).copy_((q_MLK * k_MLK).sum(2))
    return a_MLL.tril_(), level.q_factor[:, 0], level.k_factor[:, 0]


def gradients(da_MLL: Tensor, q_MLK: Tensor, k_MLK: Tensor, decay_MLK: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """dq, dk, and what a decay before all steps up to t would gain by pairs of the chunk (M, L, K),
    whose reverse-cumsum is dg.

    A step's own term has no decay: it is kept out of the sums, where it would cancel only to rounding.
    """
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
