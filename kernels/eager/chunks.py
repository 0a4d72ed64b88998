"""Helpers of the chunked primitives: chunk layout, states between chunks, scalar decays.

B batch, T time, H heads; C chunks of L steps; M = C B H chunks of all samples and heads, N = B H; K keys, V values.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from distseq.kernels.backend import accumulator


def chunked(x: Tensor, L: int, filling: float = 0.0, into: Tensor | None = None) -> Tensor:
    """A copy of x (B, T, H, ...) as (M, L, ...), in the accumulator's dtype. Steps beyond T are `filling`.

    `into`: a view to write the copy to.
    """
    # Chunks come first, then samples and heads: the loop over chunks then gets contiguous views for its batched products.
    B, T, H, *rest = x.shape
    full, shape = T // L, (-(-T // L), B, H, L, *rest)
    chunks = x.new_empty(shape, dtype=accumulator(x.dtype)) if into is None else into.view(shape)
    # Whole chunks as one copy and the rest as another, instead of padding x first, which would copy it twice.
    by_time = chunks.transpose(0, 1).transpose(2, 3)  # (B, C, L, H, ...)
    by_time[:, :full] = x[:, : full * L].unflatten(1, (full, L))
    by_time[:, full:, : T - full * L] = x[:, full * L :].unsqueeze(1)
    by_time[:, full:, T - full * L :] = filling
    return chunks.flatten(0, 2)


def unchunked(x: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """The inverse of `chunked`: x (M, L, ...) as (B, T, H, ...) for `shape` = (B, T, H), without the filling."""
    B, T, H = shape
    by_time = x.unflatten(0, (-1, B, H)).transpose(0, 1).transpose(2, 3)
    return by_time.to(dtype).flatten(1, 2)[:, :T].contiguous()


def by_chunk(tensors: Iterable[Tensor], N: int) -> Iterator[tuple[Tensor, ...]]:
    """Views (N, ...) of each chunk in turn, from tensors (C N, ...)."""
    return zip(*(each.unflatten(0, (-1, N)) for each in tensors), strict=True)


def carried(added: Tensor, kept: Tensor, initial: Tensor, reverse: bool = False) -> Tensor:
    """The states (C + 1, N, ...) between chunks: s_0 = initial and s_{c+1} = kept_c s_c + added_c.

    In reverse, s_C = initial and s_c = kept_c s_{c+1} + added_c. added and kept (M, ...), initial (N, ...).
    """
    # Written into one tensor of all states, which later products take whole, instead of stacked at the end.
    steps = list(zip(added.unflatten(0, (-1, len(initial))), kept.unflatten(0, (-1, len(initial))), strict=True))
    states = added.new_empty(len(steps) + 1, *initial.shape)
    states[-1 if reverse else 0] = initial
    views = states.unbind(0)
    for c in reversed(range(len(steps))) if reverse else range(len(steps)):
        before, after = (c + 1, c) if reverse else (c, c + 1)
        torch.addcmul(steps[c][0], steps[c][1], views[before], out=views[after])
    return states


# Log-decays below it are raised to it, which changes no result: exp(-1000) is 0 in float64 too. Sums of the raised ones keep the
# digits of others beside them, which a -1e15 would round away, and a -inf has no difference to another.
LEAST = -1e3


class Decay(NamedTuple):
    """Products of decays within chunks, all at most 1."""

    between: Tensor  # (M, L, L) lower triangular: over the steps after j up to i, by which i reads what j wrote
    read: Tensor  # (M, L, 1 or K): from the start of the chunk up to a step, by which it reads the state before
    write: (
        Tensor  # (M, L, 1 or K): from a step to the end of the chunk, by which the state after it has what was written
    )


def scalar_decay(g_ML: Tensor) -> Decay:
    """The decays of a chunk, from one log-decay g <= 0 per step."""
    # Sums are float64, since their differences are what counts: where small log-decays follow large ones, float32 sums have
    # rounded the small ones away.
    b_ML = g_ML.double().clamp_min(LEAST).cumsum(1)
    exponents = (b_ML[:, :, None] - b_ML[:, None], b_ML[..., None], (b_ML[:, -1:] - b_ML)[..., None])
    between, read, write = (each.to(g_ML.dtype).exp_() for each in exponents)
    return Decay(between.tril_(), read, write)


def scalar_decay_gradient(pairs_MLL: Tensor, read_ML: Tensor, write_ML: Tensor, past_M: Tensor) -> Tensor:
    """dg (M, L): for each step t, the sum of all terms that decay over it, each term times its gradient.

    `pairs`: what step i reads of what step j wrote. `read`: what step i reads of the state before the chunk. `write`: what the
    state after the chunk has of step j. `past`: what it has of the state before the chunk.
    """
    # The usual identity dg = reverse-cumsum(q dq - k dk) adds all terms and lets those cancel that do not span t, to rounding.
    # Here only the terms that span t are added, so a decay to 0 has a gradient of exactly 0.
    from_t_MLL = torch.ones_like(pairs_MLL[0]).triu() @ pairs_MLL  # [t, j]: over i >= t
    return from_t_MLL.tril_(-1).sum(2) + state_decay_gradient(read_ML, write_ML, past_M)


def state_decay_gradient(read_MLx: Tensor, write_MLx: Tensor, past_Mx: Tensor) -> Tensor:
    """The terms that span step t from or to another chunk: reads at t or later, writes before t, and the state throughout."""
    dg_MLx = read_MLx.flip(1).cumsum(1).flip(1) + past_Mx[:, None]
    dg_MLx[:, 1:] += write_MLx[:, :-1].cumsum(1)
    return dg_MLx


def dots(x: Tensor, y: Tensor) -> Tensor:
    """(M,): the dot product of each pair of x and y (M, ...)."""
    # As a batched product, which makes no tensor of the elementwise products.
    return torch.bmm(x.flatten(1)[:, None], y.flatten(1)[..., None]).flatten()
