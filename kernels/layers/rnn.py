"""Gated recurrent networks as a layer. Shapes: B batch, T time, W width, H heads, G gates, D head size."""

from typing import Any

import torch
from torch import Tensor, nn

from distseq.kernels.cells import CELLS
from distseq.kernels.layers.layer import Layer
from distseq.kernels.linear import Linear
from distseq.kernels.primitives import dense_rnn


class RNN(Layer):
    """A recurrence in `heads` independent blocks, mixed by a projection; `cell`: lstm, gru, elman or slstm.

    ValueError for another cell, or heads that do not divide the width.

    >>> RNN(8, heads=2, cell="gru")
    RNN(
      width=8, heads=2, cell=gru
      (out): Linear(in_features=8, out_features=8, bias=False)
    )
    """

    def __init__(self, width: int, heads: int = 1, cell: str = "lstm") -> None:
        super().__init__(width, heads)
        if cell not in CELLS:
            raise ValueError(f"RNN: cell must be one of {', '.join(CELLS)}: got {cell!r}")
        self.cell, gates = cell, CELLS[cell].gates
        self.weight = nn.Parameter(torch.empty(heads, len(gates), self.size, width))
        self.bias = nn.Parameter(torch.zeros(heads, len(gates), self.size))
        self.recurrent = nn.Parameter(torch.empty(heads, len(gates), self.size, self.size))
        # Only gru has a bias inside its reset; in the other cells a second bias would be the same as the first.
        self.inner = nn.Parameter(torch.zeros(heads, self.size)) if cell == "gru" else None
        # With one head R mixes all units already, and the layer stays a plain recurrent network.
        self.out = Linear(width, width, bias=False) if heads > 1 else nn.Identity()
        # Half of what keeps the variance of the input: gates start in the middle of their range instead of saturated.
        nn.init.normal_(self.weight, std=0.5 * width**-0.5)
        # Orthogonal, so that a gradient keeps its length through many steps (Saxe et al. 2014).
        for matrix in self.recurrent.data.flatten(0, 1):
            nn.init.orthogonal_(matrix)
        # Forget gates start open, or gradients through time would halve in each step (Gers et al. 2000).
        if "f" in gates:
            nn.init.ones_(self.bias.data[:, gates.index("f")])

    def mix(self, x_BTW: Tensor, state: Any, carry: bool) -> tuple[Tensor, Any]:
        h_BTHD, after = dense_rnn(
            x_BTW,
            self.weight.flatten(0, 2),
            self.bias.flatten(),
            self.recurrent,
            state,
            cell=self.cell,
            bias=self.inner,
        )
        return self.out(h_BTHD.flatten(2)), after

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, cell={self.cell}"
