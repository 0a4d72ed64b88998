"""The steps of the cells of distseq.kernels.cells, and their gradients, as device functions.

A cell uses one slot (elman) or four: i, f, z, o (lstm, slstm), or r, z, x_n and q = h R_n + b_n, which the reset multiplies
(gru). a0 to a3 are the pre-activations of the slots. All tensors are (rows, D); states that a cell does not have pass through.
"""

import triton
import triton.language as tl

from distseq.kernels.triton.math import logsigmoid, sigmoid, tanh


@triton.jit
def step(CELL: tl.constexpr, a0, a1, a2, a3, h, c, n, m):
    """The states (h, c, n, m) after a step."""
    # CELL is a compile-time constant: only one branch is in the program.
    if CELL == "elman":
        h = tanh(a0)
    elif CELL == "lstm":
        c = sigmoid(a1) * c + sigmoid(a0) * tanh(a2)
        h = sigmoid(a3) * tanh(c)
    elif CELL == "gru":
        z = sigmoid(a1)
        h = (1.0 - z) * tanh(a2 + sigmoid(a0) * a3) + z * h
    else:
        kept = logsigmoid(a1) + m
        m = tl.maximum(kept, a0)
        forget = tl.exp(kept - m)
        enter = tl.exp(a0 - m)
        c = forget * c + enter * tanh(a2)
        n = forget * n + enter
        h = sigmoid(a3) * c / n
    return h, c, n, m


@triton.jit
def back(CELL: tl.constexpr, a0, a1, a2, a3, h, c, n, m, c_after, n_after, m_after, dh, dc, dn):
    """Gradients of a0 to a3, then of h, c and n before the step, given those after it.

    The gradient of h is without its part through the pre-activations, which the caller adds.
    """
    # m is a constant: slstm's h does not depend on it. Gates are recomputed from the pre-activations, since loading four more
    # tiles in each step would cost more than computing them.
    d0 = dh
    d1 = dh
    d2 = dh
    d3 = dh
    if CELL == "elman":
        h_after = tanh(a0)
        d0 = dh * (1.0 - h_after * h_after)
        dh = tl.zeros_like(dh)
    elif CELL == "lstm":
        i = sigmoid(a0)
        f = sigmoid(a1)
        z = tanh(a2)
        o = sigmoid(a3)
        bent = tanh(c_after)
        dc += dh * o * (1.0 - bent * bent)
        d0 = dc * z * i * (1.0 - i)
        d1 = dc * c * f * (1.0 - f)
        d2 = dc * i * (1.0 - z * z)
        d3 = dh * bent * o * (1.0 - o)
        dc *= f
        dh = tl.zeros_like(dh)
    elif CELL == "gru":
        r = sigmoid(a0)
        z = sigmoid(a1)
        new = tanh(a2 + r * a3)
        d1 = dh * (h - new) * z * (1.0 - z)
        d2 = dh * (1.0 - z) * (1.0 - new * new)
        d3 = d2 * r
        d0 = d3 * a3 * (1.0 - r)
        dh *= z
    else:
        forget = tl.exp(logsigmoid(a1) + m - m_after)
        enter = tl.exp(a0 - m_after)
        z = tanh(a2)
        o = sigmoid(a3)
        mean = c_after / n_after
        dc += dh * o / n_after
        dn -= dh * o * mean / n_after
        d0 = (dc * z + dn) * enter
        d1 = (dc * c + dn * n) * forget * sigmoid(-a1)
        d2 = dc * enter * (1.0 - z * z)
        d3 = dh * mean * o * (1.0 - o)
        dc *= forget
        dn *= forget
        dh = tl.zeros_like(dh)
    return d0, d1, d2, d3, dh, dc, dn
