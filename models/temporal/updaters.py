"""From a node's memory and waiting message to its new memory: gated and plain recurrent cells, and attention over a mailbox.

Shapes: R rows, d width, F features, G gates, S slots.
"""

import torch
from torch import Tensor, nn

from distseq.kernels import rnn
from distseq.kernels.linear import Linear, linear
from distseq.models.temporal.attention import Attention
from distseq.models.temporal.options import Options

CELLS = {"gru": "gru", "rnn": "elman"}


class RecurrentUpdater(nn.Module):
    """s' = cell(m, s) with the message m = [s | other | f | phi], or a two-layer perceptron of it (message="mlp").

    The cells are those of distseq.kernels.rnn, of one step.
    """

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.cell, d = CELLS[options.updater], options.width
        gates = 3 if self.cell == "gru" else 1
        raw = 2 * d + options.features + options.time_width
        # The first linear map of a raw message: of the perceptron if there is one, else of the cell.
        self.enter = Linear(raw, d if options.message == "mlp" else gates * d)
        self.second = Linear(d, d) if options.message == "mlp" else None
        self.gates = Linear(d, gates * d) if options.message == "mlp" else None
        self.recurrent = nn.Parameter(torch.empty(1, gates, d, d))
        self.inner = nn.Parameter(torch.zeros(1, d)) if self.cell == "gru" else None
        # Orthogonal, so that memory keeps its length through many updates (Saxe et al. 2014).
        for matrix in self.recurrent.data.flatten(0, 1):
            nn.init.orthogonal_(matrix)

    def forward(self, own: Tensor, other: Tensor, rest: Tensor) -> Tensor:
        """(R, d) from memory and the other endpoint's memory (R, d) and [f | phi] (R, F + time)."""
        return self._step(self.enter(torch.cat([own, other, rest], 1)), own)

    def constant(self, rest: Tensor) -> Tensor:
        """What [f | phi] adds to the first linear map: the part of a step that needs no memory."""
        return linear(rest, self.enter.weight[:, -rest.shape[1] :], self.enter.bias)

    def step(self, own: Tensor, other: Tensor, constant: Tensor) -> Tensor:
        """`forward` from what `constant` has returned."""
        ends = torch.cat([own, other], 1)
        return self._step(torch.addmm(constant, ends, self.enter.weight[:, : ends.shape[1]].mT), own)

    def _step(self, x: Tensor, own: Tensor) -> Tensor:
        if self.second is not None and self.gates is not None:
            x = self.gates(self.second(torch.relu(x)))
        x_BTHGD = x.view(len(x), 1, 1, -1, own.shape[1])
        return rnn(x_BTHGD, self.recurrent, (own[:, None],), cell=self.cell, bias=self.inner)[0][:, 0, 0]


class MailboxUpdater(nn.Module):
    """s' = norm(attention of s over the mails [s_src | s_dst | f | phi(age)] in its slots) (APAN).

    The age of a mail is counted from the newest in the slots, not from the time of a query, so that a node has one memory.
    """

    def __init__(self, options: Options) -> None:
        super().__init__()
        parts = (2 * options.width, options.features, options.time_width)
        self.attention = Attention(options.width, options.time_width, parts, options.heads)
        self.norm = nn.LayerNorm(options.width)

    def forward(
        self, own: Tensor, zero: Tensor, mail: Tensor, features: Tensor, encoding: Tensor, valid: Tensor
    ) -> Tensor:
        """(R, d) from memory (R, d), phi(0), and mail (R, S, 2 d), features, encodings (R, S, ...) and valid (R, S)."""
        return self.norm(self.attention(own, zero, (mail, features, encoding), valid))
