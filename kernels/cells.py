"""The cells of nonlinear recurrences: their gates in order, their states, and one step of each.

Shapes: B batch, H heads, G gates, D head size. A step takes the pre-activations of the inputs (B, H, G, D), the recurrent
product h R (B, H, G, D), and the state, a tuple of (B, H, D) that starts with h.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

State = tuple[Tensor, ...]


@dataclass(frozen=True)
class Cell:
    """`gates` and `states`: one letter each, in order. `beginning`: the value of each state before the first step."""

    gates: str
    states: str
    beginning: tuple[float, ...]
    step: Callable[[Tensor, Tensor, State], State]


# Gates are in the order of torch's formulas, i f z o with z for torch's g, so that weights can be copied block by block.
def _elman(x_BHGD: Tensor, product_BHGD: Tensor, state: State) -> State:
    return (torch.tanh(x_BHGD + product_BHGD)[:, :, 0],)


def _lstm(x_BHGD: Tensor, product_BHGD: Tensor, state: State) -> State:
    i, f, z, o = (x_BHGD + product_BHGD).unbind(2)
    c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(z)
    return torch.sigmoid(o) * torch.tanh(c), c


def _gru(x_BHGD: Tensor, product_BHGD: Tensor, state: State) -> State:
    """The form of cuDNN and torch, in which the reset gate multiplies the product h R_n + b_n (Chung et al. 2014)."""
    # Cho et al. (2014) reset h before the product; that needs a second product in each step, after the first one.
    (x_r, x_z, x_n), (p_r, p_z, p_n) = x_BHGD.unbind(2), product_BHGD.unbind(2)
    z = torch.sigmoid(x_z + p_z)
    n = torch.tanh(x_n + torch.sigmoid(x_r + p_r) * p_n)
    return ((1 - z) * n + z * state[0],)


def _slstm(x_BHGD: Tensor, product_BHGD: Tensor, state: State) -> State:
    """Exponential input gate, sigmoid forget gate (Beck et al. 2024, eq. 8 to 17)."""
    i, f, z, o = (x_BHGD + product_BHGD).unbind(2)
    _, c, n, m_before = state
    kept = logsigmoid(f) + m_before
    # m scales c and n alike and cancels in c / n: h does not depend on it, so leaving out its gradient is exact. It keeps both
    # exponents below at 0 or less.
    m = torch.maximum(kept, i).detach()
    forget, enter = torch.exp(kept - m), torch.exp(i - m)
    c = forget * c + enter * torch.tanh(z)
    n = forget * n + enter
    # No clamp of n is needed: starting from m = -inf and n = 0, one of the two factors is 1 in each step, so n >= 1 by induction.
    return torch.sigmoid(o) * c / n, c, n, m


CELLS = {
    "elman": Cell("n", "h", (0.0,), _elman),
    "lstm": Cell("ifzo", "hc", (0.0, 0.0), _lstm),
    "gru": Cell("rzn", "h", (0.0,), _gru),
    "slstm": Cell("ifzo", "hcnm", (0.0, 0.0, 0.0, float("-inf")), _slstm),
}
