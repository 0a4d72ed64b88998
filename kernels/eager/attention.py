"""Softmax attention by torch's fused kernels.

Shapes: B batch, T queries (at the last T of the S positions), S keys, H heads, D and V the sizes of a key and a value.
"""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, causal: bool, window: int | None) -> Tensor:
    T, S = q.shape[1], k.shape[1]
    q_BHTD, k_BHSD, v_BHSV = (each.transpose(1, 2) for each in (q, k, v))
    # A window as long as all keys bounds nothing, and would cost the fast kernels below.
    if window is not None and window >= S:
        window = None
    # Without a mask torch takes its fastest kernels. is_causal assumes T = S; a single query is at the last position and sees all
    # keys.
    if mask is None and window is None and (not causal or T in (1, S)):
        y = scaled_dot_product_attention(q_BHTD, k_BHSD, v_BHSV, is_causal=causal and T > 1)
        return y.transpose(1, 2)
    seen = _seen(T, S, causal, window, mask, q.device)
    # The softmax of no keys is NaN, and so is its gradient even where the output is replaced. A query that sees no key is given
    # all of them instead, and its output is set to zero.
    some = seen.any(-1, keepdim=True)
    y = scaled_dot_product_attention(q_BHTD, k_BHSD, v_BHSV, attn_mask=seen | ~some)
    return y.masked_fill(~some, 0.0).transpose(1, 2)


def _seen(T: int, S: int, causal: bool, window: int | None, mask: Tensor | None, device: torch.device) -> Tensor:
    """Whether each query sees each key, bool (B or 1, 1, T, S)."""
    # Queries are at the last T of the S positions, after the keys of the state.
    ahead_TS = torch.arange(S, device=device) - torch.arange(S - T, S, device=device)[:, None]
    seen = ahead_TS <= 0 if causal else torch.ones_like(ahead_TS, dtype=torch.bool)
    if window is not None:
        seen = seen & (ahead_TS > -window)
    return seen[None, None] if mask is None else (seen & mask[:, None])[:, None]
