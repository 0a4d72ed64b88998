"""Dropout of several blocks of a batch in one pass, each block's mask drawn from a generator of its own.

The masks are those that a pass for each block draws after seeding torch's generator (on a CPU, bit for bit), so that a row may be
computed either way. What is drawn otherwise, or for a tensor whose first dimension is not the batch, is not seen here; the caller
notices it, and computes block by block (distseq.gradients.blocks).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

# torch's own constant of alpha dropout: -scale * alpha of SELU.
ALPHA = 1.7580993408473766


class BlockDropout(TorchFunctionMode):
    """While it is entered, dropout draws the mask of samples begin .. end - 1 from their block's own generator.

    seeds: one per block of the pass; edges: (blocks + 1,) positions of the blocks among its samples. `unseen` becomes True when
    dropout was asked for that cannot be drawn block by block.
    """

    def __init__(self, seeds: Sequence[int], edges: Sequence[int], device: torch.device) -> None:
        super().__init__()
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        self._edges, self.unseen = edges, False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        dropout = DROPOUTS.get(func)
        found = None if dropout is None else dropout(self, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {})) if found is None else found

    def noise(self, x: Tensor, p: float, *, channels: bool) -> Tensor | None:
        """Ones with probability 1 - p, else zeros, of the shape of `x` (B, ...), or of (B, C, 1, ...) with `channels`.

        None if the first dimension of `x` is not the batch of the pass.
        """
        if x.dim() == 0 or x.shape[0] != self._edges[-1]:
            self.unseen = True
            return None
        # In the memory layout of `x`: a pass for one block draws in that order.
        mask = x.new_empty((*x.shape[:2], *(1,) * (x.dim() - 2))) if channels else torch.empty_like(x)
        for generator, begin, end in zip(self._generators, self._edges, self._edges[1:], strict=False):
            mask[begin:end].bernoulli_(1 - p, generator=generator)
        return mask


def _dropped(mode: BlockDropout, x: Tensor, p: float, inplace: bool, channels: bool, alpha: bool) -> Tensor | None:
    """Dropout by torch's own arithmetic; None where torch's own function shall answer, because it draws nothing or refuses."""
    if not isinstance(x, Tensor) or not 0 < p < 1 or not x.numel() or not x.is_floating_point():
        return None
    noise = mode.noise(x.detach(), p, channels=channels)
    if noise is None:
        return None
    if not alpha:
        noise.div_(1 - p)
        return x.mul_(noise) if inplace else x * noise
    a = 1 / math.sqrt((ALPHA * ALPHA * p + 1) * (1 - p))
    shift = noise.add(-1).mul_(ALPHA * a).add_(ALPHA * a * p)
    noise.mul_(a)
    return x.mul_(noise).add_(shift) if inplace else (x * noise).add_(shift)


def _function(
    dims: tuple[int, ...] = (), *, channels: bool = False, alpha: bool = False
) -> Callable[..., Tensor | None]:
    """A stand-in for a function of torch.nn.functional; `dims`: numbers of dimensions of a batch, () = any."""

    def stand_in(
        mode: BlockDropout, input: Tensor, p: float = 0.5, training: bool = not alpha, inplace: bool = False
    ) -> Tensor | None:
        if not training:
            return None
        if dims and input.dim() not in dims:
            # A single sample without a batch.
            mode.unseen = True
            return None
        return _dropped(mode, input, p, inplace, channels, alpha)

    return stand_in


def _builtin(inplace: bool, *, channels: bool = False, alpha: bool = False) -> Callable[..., Tensor | None]:
    """A stand-in for a function of torch itself."""

    def stand_in(mode: BlockDropout, input: Tensor, p: float, train: bool) -> Tensor | None:
        return _dropped(mode, input, p, inplace, channels, alpha) if train else None

    return stand_in


def _attention(
    mode: BlockDropout,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor | None:
    """Scaled dot-product attention with dropout, which torch draws inside of one call: the same arithmetic, step by step."""
    if not 0 < dropout_p < 1:
        return None
    if enable_gqa:
        key, value = (each.repeat_interleave(query.shape[-3] // each.shape[-3], -3) for each in (key, value))
    scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None:
        hidden = attn_mask.dtype == torch.bool
        scores = scores.masked_fill(~attn_mask, -math.inf) if hidden else scores + attn_mask
    # As torch does: a query that may look at nothing gets zeros, not NaN.
    weights = torch.softmax(scores, -1).masked_fill((scores == -math.inf).all(-1, keepdim=True), 0.0)
    dropped = _dropped(mode, weights, dropout_p, False, False, False)
    return None if dropped is None else dropped @ value


DROPOUTS: dict[Any, Callable[..., Tensor | None]] = {
    F.dropout: _function(),
    F.dropout1d: _function((3,), channels=True),
    F.dropout2d: _function((4,), channels=True),
    F.dropout3d: _function((5,), channels=True),
    F.alpha_dropout: _function(alpha=True),
    F.feature_alpha_dropout: _function((3, 4, 5), channels=True, alpha=True),
    F.scaled_dot_product_attention: _attention,
    torch.dropout: _builtin(False),
    torch.dropout_: _builtin(True),
    torch.feature_dropout: _builtin(False, channels=True),
    torch.feature_dropout_: _builtin(True, channels=True),
    torch.alpha_dropout: _builtin(False, alpha=True),
    torch.alpha_dropout_: _builtin(True, alpha=True),
    torch.feature_alpha_dropout: _builtin(False, channels=True, alpha=True),
    torch.feature_alpha_dropout_: _builtin(True, channels=True, alpha=True),
}
