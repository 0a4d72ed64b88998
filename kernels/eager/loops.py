"""The loops over time of each recurrent cell, forward and backward, for distseq.kernels.eager.rnn.

Shapes: T time, D head size, E = gates * D, and N the axes that one step spans: (B,), or (H, B) with several heads. Backward
processes blocks of steps that fit into the cache, the last one first. Whatever does not depend on later steps is computed for
a whole block at once, which leaves one product and two to five operations for each step.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class Loop:
    """`forward(x_TNE, r, shift, h, states)` writes h_1 to h_T into h (T + 1, N, D), whose first entry is given.

    It returns the other states after the last step, and the tensors (T, ...) that backward needs. r is (D, E) or (H, D, E);
    `shift` is added to h r inside the cell.

    `backward(d_TNE, h, kept, before, r, dh, carry)` writes the gradient of x_t + h_{t-1} r into d, for a block whose states are
    h and whose tensors from forward are `kept`. `dh` and `carry` are the gradients of the states after the block, and are
    changed in place to those of the states before it. before[t] is the gradient that h_{t-1} gets from outside. r is transposed.
    It returns the gradient of x's last gate if that differs from d's, else None.
    """

    forward: Callable[[Tensor, Tensor, Tensor, Tensor, Tensors], tuple[Tensors, Tensors]]
    backward: Callable[
        [Tensor, Tensor, Tensors, Sequence[Tensor], Tensor, Tensor, Sequence[Tensor]],
        Tensor | None,
    ]


def _added(base: Tensor, left: Tensor, right: Tensor, out: Tensor) -> None:
    """out = base + left right."""
    # One call, which also adds the gradient from outside or the input: most of a small step is the cost of its calls.
    (torch.addmm if left.dim() == 2 else torch.baddbmm)(base, left, right, out=out)


# Preallocated, with every step written to its place: appending to a list and stacking would copy all states once more.
def _states(first: Tensor, T: int) -> Tensor:
    """A buffer of T + 1 states, the first of which is given."""
    states = first.new_empty(T + 1, *first.shape)
    states[0] = first
    return states


def _steps(*tensors: Tensor) -> Iterator[Tensors]:
    """The steps of all tensors, in parallel."""
    # unbind makes all views in one call, instead of one call in each step for each of some ten tensors.
    return zip(*(tensor.unbind(0) for tensor in tensors), strict=True)


def _backwards(*tensors: Tensor | Sequence[Tensor]) -> Iterator[Tensors]:
    return zip(
        *(tensor.unbind(0)[::-1] if isinstance(tensor, Tensor) else tensor[::-1] for tensor in tensors), strict=True
    )


def _elman_forward(x: Tensor, r: Tensor, shift: Tensor, h: Tensor, states: Tensors) -> tuple[Tensors, Tensors]:
    for x_t, before, after in _steps(x, h[:-1], h[1:]):
        _added(x_t, before, r, after)
        after.tanh_()
    return (), ()


def _elman_backward(
    d: Tensor, h: Tensor, kept: Tensors, before: Sequence[Tensor], r: Tensor, dh: Tensor, carry: Sequence[Tensor]
) -> None:
    torch.addcmul(h.new_ones(()), h[1:], h[1:], value=-1, out=d)
    for d_t, dy in _backwards(d, before):
        d_t.mul_(dh)
        _added(dy, d_t, r, dh)


def _lstm_forward(x: Tensor, r: Tensor, shift: Tensor, h: Tensor, states: Tensors) -> tuple[Tensors, Tensors]:
    D, c = h.shape[-1], _states(states[0], len(x))
    gates, tanh_c = x.new_empty(x.shape), h.new_empty(h[1:].shape)
    views = (gates, gates[..., : 2 * D], *gates.split(D, -1))
    for x_t, all_t, i_f, i, f, z, o, h_before, h_t, c_before, c_t, tanh_t in _steps(
        x, *views, h[:-1], h[1:], c[:-1], c[1:], tanh_c
    ):
        _added(x_t, h_before, r, all_t)
        i_f.sigmoid_()
        z.tanh_()
        o.sigmoid_()
        torch.mul(f, c_before, out=c_t)
        c_t.addcmul_(i, z)
        torch.tanh(c_t, out=tanh_t)
        torch.mul(o, tanh_t, out=h_t)
    return (c[-1],), (gates, c[:-1], tanh_c)


def _lstm_backward(
    d: Tensor, h: Tensor, kept: Tensors, before: Sequence[Tensor], r: Tensor, dh: Tensor, carry: Sequence[Tensor]
) -> None:
    (gates, c, tanh_c), (dc,), D = kept, carry, h.shape[-1]
    i, f, z, o = gates.split(D, -1)
    d_i, d_f, d_z, d_o = d.split(D, -1)
    # d holds, for the whole block, the factors of dc and dh that do not depend on later steps: of dc in the gates i, f and z, of
    # dh in the gate o. sigmoid' = s (1 - s) and tanh' = 1 - t^2 of the values that forward has kept.
    torch.addcmul(gates, gates, gates, value=-1, out=d)
    d_i.mul_(z)
    d_f.mul_(c)
    # d_z takes another form than the sigmoids: it held z (1 - z), which is overwritten.
    torch.mul(z, z, out=d_z)
    torch.addcmul(i, i, d_z, value=-1, out=d_z)
    d_o.mul_(tanh_c)
    into_c = tanh_c.square()
    torch.addcmul(o, o, into_c, value=-1, out=into_c)
    d_ifz = d[..., : 3 * D].unflatten(-1, (3, D))
    wide_dc = dc.unsqueeze(-2)
    for d_t, ifz_t, o_t, f_t, into_t, dy in _backwards(d, d_ifz, d_o, f, into_c, before):
        dc.addcmul_(dh, into_t)
        ifz_t.mul_(wide_dc)
        o_t.mul_(dh)
        dc.mul_(f_t)
        _added(dy, d_t, r, dh)


def _gru_forward(x: Tensor, r: Tensor, shift: Tensor, h: Tensor, states: Tensors) -> tuple[Tensors, Tensors]:
    D = h.shape[-1]
    gates, n = x.new_empty(x.shape), h.new_empty(h[1:].shape)
    both, x_both, x_n = gates[..., : 2 * D], x[..., : 2 * D], x[..., 2 * D :]
    for x_rz, x_t, all_t, rz, reset, z, q, n_t, before, after in _steps(
        x_both, x_n, gates, both, *gates.split(D, -1), n, h[:-1], h[1:]
    ):
        _added(shift, before, r, all_t)
        rz.add_(x_rz).sigmoid_()
        torch.addcmul(x_t, reset, q, out=n_t)
        n_t.tanh_()
        # (1 - z) n + z h' in one operation.
        torch.lerp(n_t, before, z, out=after)
    return (), (gates, n)


def _gru_backward(
    d: Tensor, h: Tensor, kept: Tensors, before: Sequence[Tensor], r: Tensor, dh: Tensor, carry: Sequence[Tensor]
) -> Tensor:
    (gates, n), D = kept, h.shape[-1]
    reset, z, q = gates.split(D, -1)
    d_r, d_z, d_q = d.split(D, -1)
    d_rz = d[..., : 2 * D]
    torch.addcmul(gates[..., : 2 * D], gates[..., : 2 * D], gates[..., : 2 * D], value=-1, out=d_rz)
    # The gradient of gate n's pre-activation, divided by dh. That of q is smaller by the reset, and takes its place for R.
    d_n = torch.addcmul(n.new_ones(()), n, n, value=-1)
    d_n.addcmul_(d_n, z, value=-1)
    torch.mul(d_n, reset, out=d_q)
    d_r.mul_(q).mul_(d_n)
    d_z.mul_(h[:-1] - n)
    wide = d.unflatten(-1, (3, D))
    for d_t, wide_t, z_t, n_t, dy in _backwards(d, wide, z, d_n, before):
        wide_t.mul_(dh.unsqueeze(-2))
        n_t.mul_(dh)
        torch.addcmul(dy, dh, z_t, out=dh)
        _added(dh, d_t, r, dh)
    return d_n


def _slstm_forward(x: Tensor, r: Tensor, shift: Tensor, h: Tensor, states: Tensors) -> tuple[Tensors, Tensors]:
    """c and n are stored as one tensor (2, D), since the forget gate multiplies both."""
    D, both, m = h.shape[-1], _states(torch.stack(states[:2], -2), len(x)), states[2].clone()
    gates, forget = x.new_empty(x.shape), h.new_empty(h[1:].shape)
    views = (gates, *gates.split(D, -1), forget, forget.unsqueeze(-2))
    c, n = both[1:].unbind(-2)
    for x_t, all_t, i, f, z, o, forget_t, wide_t, h_before, h_t, both_before, both_t, c_t, n_t in _steps(
        x, *views, h[:-1], h[1:], both[:-1], both[1:], c, n
    ):
        _added(x_t, h_before, r, all_t)
        logsigmoid(f, out=forget_t)  # type: ignore[call-arg]
        forget_t.add_(m)
        torch.maximum(forget_t, i, out=m)
        forget_t.sub_(m).exp_()
        i.sub_(m).exp_()
        z.tanh_()
        o.sigmoid_()
        torch.mul(both_before, wide_t, out=both_t)
        c_t.addcmul_(i, z)
        n_t.add_(i)
        torch.div(c_t, n_t, out=h_t)
        h_t.mul_(o)
    return (c[-1], n[-1], m), (gates, forget, both[:-1], n)


def _slstm_backward(
    d: Tensor, h: Tensor, kept: Tensors, before: Sequence[Tensor], r: Tensor, dh: Tensor, carry: Sequence[Tensor]
) -> None:
    """Gates i, f and z get gradients from c, gates i and f also from n. m is a constant, except in the state before the block."""
    (gates, forget, both, n), D = kept, h.shape[-1]
    enter, f, z, o = gates.split(D, -1)
    d_ifz = d[..., : 3 * D].unflatten(-1, (3, D))
    # The derivative of log sigmoid(f) is sigmoid(-f); written as 1 - sigmoid(f) it would cancel for large f.
    open_f = torch.sigmoid(-f).mul_(forget)
    of_c = torch.stack([enter * z, open_f * both[..., 0, :], enter - enter * z * z], -2)
    of_n = torch.stack([enter, open_f * both[..., 1, :]], -2)
    into = torch.stack([o / n, -h[1:] / n], -2)
    d_o = d[..., 3 * D :]
    torch.addcmul(h[1:], h[1:], o, value=-1, out=d_o)
    d_both = torch.stack(tuple(carry[:2]), -2)
    dc, dn = d_both.split(1, -2)
    for d_t, ifz_t, o_t, c_t, n_t, into_t, forget_t, dy in _backwards(
        d, d_ifz, d_o, of_c, of_n, into, forget.unsqueeze(-2), before
    ):
        d_both.addcmul_(dh.unsqueeze(-2), into_t)
        torch.mul(c_t, dc, out=ifz_t)
        ifz_t[..., :2, :].addcmul_(n_t, dn)
        o_t.mul_(dh)
        d_both.mul_(forget_t)
        _added(dy, d_t, r, dh)
    # c and n stand for c e^m and n e^m, so that the m of a state given by the caller has the gradient dc c + dn n. Within the
    # sequence m is detached.
    for own, found in zip(carry, (*d_both.unbind(-2), (d_both * both[0]).sum(-2)), strict=True):
        own.copy_(found)


LOOPS = {
    "elman": Loop(_elman_forward, _elman_backward),
    "lstm": Loop(_lstm_forward, _lstm_backward),
    "gru": Loop(_gru_forward, _gru_backward),
    "slstm": Loop(_slstm_forward, _slstm_backward),
}
