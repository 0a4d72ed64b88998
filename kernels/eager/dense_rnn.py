"""A recurrence with its input projection, by torch's fused kernels where they are faster than our loop.

Shapes: B batch, T time, I inputs, H heads, G gates, D head size, E = H * G * D.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from distseq.kernels.cells import State
from distseq.kernels.eager.rnn import rnn
from distseq.kernels.linear import linear

# Cells that cuDNN has. It fuses all steps of a dense recurrence, which no kernel of ours does on a GPU.
CUDNN: dict[str, Callable[..., tuple[Tensor, ...]]] = {"elman": torch.rnn_tanh, "lstm": torch.lstm, "gru": torch.gru}


def dense_rnn(
    u: Tensor, w: Tensor, b: Tensor | None, r: Tensor, state: State, *, cell: str, bias: Tensor | None = None
) -> tuple[Tensor, State]:
    """(h (B, T, H, D), state), as distseq.kernels.dense_rnn."""
    H, G, D, _ = r.shape
    # Time-major before the product: its result, larger than u by the number of gates, then needs no transposition.
    u_TBI = u.transpose(0, 1).contiguous()
    if fused(cell, H, u.device.type, u.dtype):
        return _torch(u_TBI, w, b, r, state, cell, bias)
    x_TBHGD = linear(u_TBI, w, b).unflatten(-1, (H, G, D))
    return rnn(x_TBHGD.transpose(0, 1), r, state, cell=cell, bias=bias)


def fused(cell: str, heads: int, device: str, dtype: torch.dtype) -> bool:
    """Whether torch's own kernel is used: for one head, cuDNN's cells on cuda, and on a CPU the LSTM in float32."""
    # oneDNN trains no other cell and no other precision. Its LSTM is at least as fast as our loop to within noise, and several
    # times as fast where B * D is small; for GRU and Elman our loop is faster than torch's modules (docs/benchmarks.md).
    return heads == 1 and (cell in CUDNN if device == "cuda" else cell == "lstm" and dtype == torch.float32)


def _torch(
    u_TBI: Tensor, w: Tensor, b: Tensor | None, r: Tensor, state: State, cell: str, bias: Tensor | None
) -> tuple[Tensor, State]:
    """The recurrence by torch's kernel."""
    E = w.shape[0]
    # torch adds a bias to each of its two products. The second is zero here, except for gru's gate n, whose bias is reset.
    inside = w.new_zeros(E) if bias is None else torch.cat([w.new_zeros(E - bias.shape[1]), bias[0]])
    weights = [w, r[0].mT.flatten(0, 1), w.new_zeros(E) if b is None else b, inside]
    initial = [each.to(u_TBI.dtype).transpose(0, 1).contiguous() for each in state]
    y_TBD, *after = CUDNN[cell](
        u_TBI, initial if cell == "lstm" else initial[0], weights, True, 1, 0.0, torch.is_grad_enabled(), False, False
    )
    return y_TBD.transpose(0, 1).unsqueeze(2), tuple(each.to(state[0].dtype).transpose(0, 1) for each in after)
