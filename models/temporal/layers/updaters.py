"""From a node's memory and waiting message to its new memory: gated and plain recurrent cells, and attention over a mailbox.

Shapes: R rows, d width, F features, G gates, S slots.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from distseq.kernels import rnn
from distseq.kernels.cells import CELLS
from distseq.kernels.linear import Linear, linear
from distseq.models.temporal.layers.attention import Attention
from distseq.models.temporal.options import Options

# Takes [own | other] (R, 2 d), what `constant` has returned (R, ...), and the new memory (R, d), which it fills.
Step = Callable[[Tensor, Tensor, Tensor], None]
NAMES = {"gru": "gru", "rnn": "elman"}  # of the cells in distseq.kernels.cells
# Fewest rows of a product. Libraries have other algorithms for very few (seen at one to three), whose sums round differently: a
# row would depend on how many others are computed beside it.
LEAST = 8


def filled(*each: Tensor) -> list[Tensor]:
    """Matrices with rows of zeros below, where they have fewer than LEAST."""
    return [nn.functional.pad(one, (0, 0, 0, max(0, LEAST - len(one)))) for one in each]


class RecurrentUpdater(nn.Module):
    """s' = cell(m, s) with the message m = [s | other | f | phi], or a two-layer perceptron of it (message="mlp").

    The cells are those of distseq.kernels.rnn, of one step.
    """

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.cell, d = NAMES[options.updater], options.width
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
        rows = len(own)
        if rows < LEAST:
            own, other, rest = filled(own, other, rest)
        x = self._entered(self.enter(torch.cat([own, other, rest], 1)))
        x_BTHGD = x.view(len(x), 1, 1, -1, own.shape[1])
        return rnn(x_BTHGD, self.recurrent, (own[:, None],), cell=self.cell, bias=self.inner)[0][:rows, 0, 0]

    @property
    def _plain_gru(self) -> bool:
        return self.inner is not None and self.second is None

    def constant(self, rest: Tensor) -> Tensor:
        """What [f | phi] (R, F + time) and biases add to the products of a step: the part that needs no memory."""
        found = linear(rest, self.enter.weight[:, -rest.shape[1] :], self.enter.bias)
        if not self._plain_gru:
            return found
        assert self.inner is not None
        return torch.cat([found, self.inner.expand(len(rest), -1)], 1)

    def stepper(self) -> Step:
        """`forward`, without gradient, as a function of both ends [own | other] (R, 2 d), of what `constant` has returned, and of
        where to put the new memory (R, d).

        Of plain operations on matrices laid out once: a level of mode exact has few rows, for which the border around
        distseq.kernels.rnn takes ten times as long as the step itself.
        """
        d, cell = self.recurrent.shape[-1], CELLS[self.cell].step
        ends_to_x = self.enter.weight[:, : 2 * d].mT.contiguous()
        own_to_gates = self.recurrent[0].transpose(0, 1).reshape(d, -1)
        if self._plain_gru:
            return _gru_stepper(ends_to_x, own_to_gates)
        # The second bias of a GRU is inside its reset, on the last gate only.
        inner = own_to_gates.new_zeros(own_to_gates.shape[1])
        if self.inner is not None:
            inner[-d:] = self.inner[0]

        def step(ends: Tensor, constant: Tensor, out: Tensor) -> None:
            own = ends[:, :d]
            x = self._entered(torch.addmm(constant, ends, ends_to_x)).view(len(ends), 1, -1, d)
            product = torch.addmm(inner, own, own_to_gates).view_as(x)
            out.copy_(cell(x, product, (own[:, None],))[0][:, 0])

        return step

    def _entered(self, x: Tensor) -> Tensor:
        """The gates' inputs from what `enter` has returned."""
        return x if self.second is None or self.gates is None else self.gates(self.second(torch.relu(x)))


def _gru_stepper(ends_to_x: Tensor, own_to_gates: Tensor) -> Step:
    """A GRU's step as one product: the gates r and z add x and the recurrent product, n needs them apart."""
    d = len(own_to_gates)
    to_all = torch.cat([ends_to_x, ends_to_x.new_zeros(2 * d, d)], 1)
    to_all[:d, : 2 * d] += own_to_gates[:, : 2 * d]
    to_all[:d, 3 * d :] = own_to_gates[:, 2 * d :]

    def step(ends: Tensor, constant: Tensor, out: Tensor) -> None:
        x, recurrent = torch.addmm(constant, ends, to_all).split([3 * d, d], 1)
        r, z = x[:, : 2 * d].sigmoid_().split(d, 1)
        n = torch.addcmul(x[:, 2 * d :], r, recurrent).tanh_()
        torch.lerp(n, ends[:, :d], z, out=out)

    return step


class MailboxUpdater(nn.Module):
    """s' = norm(attention of s over the mails [s_src | s_dst | f | phi(age)] in its slots) (APAN).

    The age of a mail is counted from the newest in the slots, not from the time of a query, so that a node has one memory.
    """

    def __init__(self, options: Options) -> None:
        super().__init__()
        parts = (2 * options.width, options.features, options.time_width)
        self.attention = Attention(options.width, options.time_width, parts, options.heads)
        self.norm = nn.LayerNorm(options.width)
        # Rows of norm 1, like those of gated cells: with sqrt(d) the head begins far from saying nothing, and learns late.
        nn.init.constant_(self.norm.weight, options.width**-0.5)

    def forward(
        self, own: Tensor, zero: Tensor, mail: Tensor, features: Tensor, encoding: Tensor, valid: Tensor
    ) -> Tensor:
        """(R, d) from memory (R, d), phi(0), and mail (R, S, 2 d), features, encodings (R, S, ...) and valid (R, S)."""
        return self.norm(self.attention(own, zero, (mail, features, encoding), valid))
