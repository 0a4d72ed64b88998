"""Recurrences that reduce exactly to another primitive: mLSTM and LightNet, both linear attention.

Conventions are those of distseq.kernels.primitives. Shapes: B batch, T time, H heads, K keys, V values. States and sums are
float32, or float64 for float64 inputs.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, pad

from distseq.kernels.backend import accumulator
from distseq.kernels.border import primitive, promoted
from distseq.kernels.cells import State
from distseq.kernels.eager.chunks import LEAST
from distseq.kernels.layout import sizes
from distseq.kernels.primitives import linear_attention, max_scan


@primitive
def mlstm(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, state: State | None = None
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """h (B, T, H, V) of the mLSTM (Beck et al. 2024, eq. 19 to 27), without its output gate.

    S_t = sigmoid(f_t) S_{t-1} + exp(i_t) k_t (v_t, 1)^T and h_t = (q_t S_t)_V / max(|(q_t S_t)_1|, 1), for q, k (B, T, H, K),
    v (B, T, H, V) and pre-activations i and f (B, T, H). Nothing is scaled: divide k by sqrt K first. The state is
    (S exp(-m) (B, H, K, V + 1), m (B, H)), with m_0 = 0. It is linear attention of the values (v, 1), stabilised by m.

    >>> one, v = torch.ones(1, 3, 1, 1), torch.tensor([1.0, 2.0, 6.0]).view(1, 3, 1, 1)
    >>> h, _ = mlstm(one, one, v, torch.zeros(1, 3, 1), torch.full((1, 3, 1), 50.0))
    >>> h.flatten().tolist()  # nothing is forgotten, all is equally strong: the mean so far
    [1.0, 1.5, 3.0]
    """
    memory, before = state if state is not None else (None, None)
    q, k, v, i, f = promoted(q, k, v, i, f)
    named = {"q": (q, "BTHK"), "k": (k, "BTHK"), "v": (v, "BTHV"), "i": (i, "BTH"), "f": (f, "BTH")}
    size = sizes("mlstm", {**named, "state m": (before, "BH")})
    wide = accumulator(v.dtype)
    q_BTHK, k_BTHK, v_BTHV = (each.to(wide) for each in (q, k, v))
    # Logarithms are float64: with gates of 1e4, float32 has an absolute error of 1e-3, which leaves three digits of a weight.
    # m itself may be rounded, since h does not depend on it, but every term must use the same, rounded m.
    # Bounded as a decay: two memories that are both forgotten to 0 must not differ by inf - inf.
    i_BTH, forget_BTH = i.double(), logsigmoid(f.double()).clamp_min(LEAST)
    initial_BH = i_BTH.new_zeros(size["B"], size["H"]) if before is None else before.detach().double()
    # Detached: h does not depend on m, so that the gradient through m is exactly 0.
    m_BTH = max_scan(forget_BTH.detach(), i_BTH.detach(), initial_BH)[0].to(wide)
    # m_t >= log f_t + m_{t-1} and m_t >= i_t, so g and the exponent of k are at most 0, up to rounding.
    g_BTH = forget_BTH + torch.cat([initial_BH[:, None], m_BTH[:, :-1]], 1) - m_BTH
    k_BTHK = k_BTHK * torch.exp(i_BTH - m_BTH).to(wide)[..., None]
    # The normalizer is the memory of a value that is always 1: one more column, instead of a second recurrence.
    y_BTHW, memory = linear_attention(q_BTHK, k_BTHK, pad(v_BTHV, (0, 1), value=1.0), g_BTH.to(wide), memory)
    y_BTHV, norm_BTH1 = y_BTHW.split([size["V"], 1], 3)
    # exp(-m) is the bound 1 of the unscaled normalizer, in the scale of this one.
    h_BTHV = y_BTHV / torch.maximum(norm_BTH1.abs(), torch.exp(-m_BTH)[..., None])
    return h_BTHV.to(v.dtype), (memory, m_BTH[:, -1])


@primitive
def lightnet(q: Tensor, k: Tensor, v: Tensor, state: State | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """o_t = q_t^T sum_{j<=t} softmax_{j<=t}(k)_j v_j^T, with a softmax over time for each key (LightNet, Qin et al. 2024).

    q, k (B, T, H, K), v (B, T, H, V) give o (B, T, H, V) and the state (S (B, H, K, V), z (B, H, K)), where z is the log of
    the sum of exp(k) so far. It is linear attention with keys exp(k - z) and log-decays z_{t-1} - z_t, both exponents <= 0.

    >>> v = torch.tensor([1.0, 2.0, 6.0]).view(1, 3, 1, 1)
    >>> o, _ = lightnet(torch.ones(1, 3, 1, 1), torch.zeros(1, 3, 1, 1), v)
    >>> o.flatten().round(decimals=4).tolist()  # equal keys: the mean so far
    [1.0, 1.5, 3.0]
    """
    memory, before = state if state is not None else (None, None)
    q, k, v = promoted(q, k, v)
    named = {"q": (q, "BTHK"), "k": (k, "BTHK"), "v": (v, "BTHV"), "state z": (before, "BHK")}
    sizes("lightnet", named)
    q_BTHK, k_BTHK, v_BTHV = (each.to(accumulator(v.dtype)) for each in (q, k, v))
    initial_BSHK = k_BTHK[:, :0] if before is None else before.to(k_BTHK.dtype)[:, None]
    # The state's log-sum enters as one more step before the first.
    z_BSHK = torch.cat([initial_BSHK, k_BTHK], 1).logcumsumexp(1)
    z_BTHK = z_BSHK[:, -k.shape[1] :]
    # Without a state z_0 is -inf; the first z stands in for it: a decay of 1, of a state that is 0.
    before_BTHK = torch.cat([z_BSHK[:, :1], z_BTHK[:, :-1]], 1)
    y, memory = linear_attention(q_BTHK, torch.exp(k_BTHK - z_BTHK), v_BTHV, before_BTHK - z_BTHK, memory)
    return y.to(v.dtype), (memory, z_BTHK[:, -1])
