"""Cells of nonlinear recurrences: gates in their order, states, and one step.

Shapes: B batch, H heads, G gates, D head size. A step takes the inputs' pre-activations (B, H, G, D), the recurrent product
h R (B, H, G, D), and the state, each (B, H, D), whose first is h.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

State = tuple[Tensor, ...]


@dataclass(frozen=True)
class Cell:
    """`beginning`: what each state is before the first step."""

    gates: str
    states: str
    beginning: tuple[float, ...]
    step: Callable[[Tensor, Tensor, State], State]


def _elman(x_BHGD: Tensor, product_BHGD: Tensor, state: State) -> State:
    return (torch.tanh(x_BHGD + product_BHGD)[:, :, 0],)


def _lstm(x_BHGD: Tensor, product_BHGD: Tensor, state: State) -> State:
    i, f, z, o = (x_BHGD + product_BHGD).unbind(2)
    c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(z)
    return torch.sigmoid(o) * torch.tanh(c), c


def _gru(x_BHGD: Tensor, product_BHGD: Tensor, state: State) -> State:
    """The form of cuDNN and torch: the reset gate multiplies the product (Chung et al. 2014, with the bias inside)."""
    (x_r, x_z, x_n), (p_r, p_z, p_n) = x_BHGD.unbind(2), product_BHGD.unbind(2)
    z = torch.sigmoid(x_z + p_z)
    n = torch.tanh(x_n + torch.sigmoid(x_r + p_r) * p_n)
    return ((1 - z) * n + z * state[0],)


def _slstm(x_BHGD: Tensor, product_BHGD: Tensor, state: State) -> State:
    """Exponential input gate, sigmoid forget gate (Beck et al. 2024, eq. 8 to 17). h does not depend on m: it has no gradient."""
    i, f, z, o = (x_BHGD + product_BHGD).unbind(2)
    _, c, n, m_before = state
    kept = logsigmoid(f) + m_before
    m = torch.maximum(kept, i).detach()
    forget, enter = torch.exp(kept - m), torch.exp(i - m)
    c = forget * c + enter * torch.tanh(z)
    n = forget * n + enter
    return torch.sigmoid(o) * c / n, c, n, m


CELLS = {
    "elman": Cell("n", "h", (0.0,), _elman),
    "lstm": Cell("ifzo", "hc", (0.0, 0.0), _lstm),
    "gru": Cell("rzn", "h", (0.0,), _gru),
    "slstm": Cell("ifzo", "hcnm", (0.0, 0.0, 0.0, float("-inf")), _slstm),
}
