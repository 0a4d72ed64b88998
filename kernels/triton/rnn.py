"""Nonlinear recurrences in independent heads: a program walks one head and BB samples through time, with one product per step.

The product h R has the gates innermost, so that a thread holds all gates of an element. Only h and the cell's other states are
stored; backward recomputes the pre-activations of all steps by one product outside the kernel, and the gradient by R is one
product after it. What a step reads is loaded a step ahead, for a step is bound by latency.

Shapes: B batch, T time, H heads, G gates, D head size, S slots (of distseq.kernels.triton.cells), N states.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from distseq.kernels.backend import accumulator
from distseq.kernels.cells import CELLS, State
from distseq.kernels.triton.cells import back, step
from distseq.kernels.triton.math import INTERPRETED

# Samples of a program, and its warps by the bytes of a head. On sm_90 no registers spill for D <= 64, except in backward for
# D = 64 in float32 that is exact (torch.set_float32_matmul_precision): R is then held in parts, twice its size.
ROWS = 16
WARPS = {32: 4, 64: 4, 128: 8, 256: 8}
TYPES = {torch.float64: tl.float64, torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}


@triton.jit
def _read(at, mask, D: tl.constexpr, COUNT: tl.constexpr):  # type: ignore[no-untyped-def]
    """Up to four tiles (rows, D) that lie D apart; the first in place of those that are not there."""
    a0 = tl.load(at, mask, other=0.0)
    a1 = a0
    a2 = a0
    a3 = a0
    if COUNT > 1:
        a1 = tl.load(at + D, mask, other=0.0)
        a2 = tl.load(at + 2 * D, mask, other=0.0)
    if COUNT > 3:
        a3 = tl.load(at + 3 * D, mask, other=0.0)
    return a0, a1, a2, a3


@triton.jit
def _apart(a, S: tl.constexpr):  # type: ignore[no-untyped-def]
    """The slots of (rows, D S); the one slot four times where there is one."""
    if S == 1:
        return a, a, a, a
    else:
        even, odd = tl.split(tl.reshape(a, (a.shape[0], a.shape[1] // 4, 2, 2)))
        a0, a2 = tl.split(even)
        a1, a3 = tl.split(odd)
        return a0, a1, a2, a3


@triton.jit
def _through(d0, d1, d2, d3, r, S: tl.constexpr, ACC: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr):  # type: ignore[no-untyped-def]
    """The gradient (rows, D) by the state before, through the product with R.

    It is taken apart and joined so as not to have the layout of a product: the compiler would compute the whole step in that, and
    move every tile that is loaded or stored between threads, with two barriers each.
    """
    joined = d0 if S == 1 else tl.reshape(tl.join(tl.join(d0, d2), tl.join(d1, d3)), (d0.shape[0], r.shape[0]))
    product = tl.dot(joined.to(OPERAND), r, input_precision=PRECISION, out_dtype=ACC)
    even, odd = tl.split(tl.reshape(product, (product.shape[0], product.shape[1] // 2, 2)))
    return tl.reshape(tl.join(even, odd), product.shape)


@triton.jit
def _states(at, mask, apart, COUNT: tl.constexpr):  # type: ignore[no-untyped-def]
    """c, n, m, of which there are COUNT; 0 for the others."""
    c = tl.zeros(mask.shape, at.dtype.element_ty)
    n = c
    m = c
    if COUNT > 0:
        c = tl.load(at, mask, other=0.0)
    if COUNT > 1:
        n = tl.load(at + apart, mask, other=1.0)
        m = tl.load(at + 2 * apart, mask, other=0.0)
    return c, n, m


@triton.jit
def _write(at, mask, apart, c, n, m, COUNT: tl.constexpr):  # type: ignore[no-untyped-def]
    if COUNT > 0:
        tl.store(at, c, mask)
    if COUNT > 1:
        tl.store(at + apart, n, mask)
        tl.store(at + 2 * apart, m, mask)


@triton.jit
def _rnn_forward(
    x_BTHGD, r_HDDS, bias_HD, begun_NBHD, y_BTHD, kept_NBTHD, last_NBHD, B, T, H,
    CELL: tl.constexpr, G: tl.constexpr, S: tl.constexpr, N: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr,
    ACC: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip  # type: ignore[no-untyped-def]
    head = tl.program_id(0)
    row = (tl.program_id(1) * ROWS + tl.arange(0, ROWS))[:, None].to(tl.int64)
    d = tl.arange(0, D)[None, :]
    mask = (row < B) & (d < D)
    r = tl.load(r_HDDS + head * D * D * S + tl.arange(0, D)[:, None] * (D * S) + tl.arange(0, D * S)[None, :])
    r = r.to(OPERAND)
    x_at = x_BTHGD + (row * T * H + head) * (G * D) + d
    y_at = y_BTHD + (row * T * H + head) * D + d
    # Of kept, step t has what was before it, and step T what is last.
    kept_at = kept_NBTHD + (row * (T + 1) * H + head) * D + d
    kept_apart = B.to(tl.int64) * (T + 1) * H * D
    state_at = (row * H + head) * D + d
    apart = B * H * D
    h = tl.load(begun_NBHD + state_at, mask, other=0.0)
    c, n, m = _states(begun_NBHD + state_at + apart, mask, apart, N - 1)
    shift = tl.zeros((ROWS, D), ACC)
    if CELL == "gru":
        shift += tl.load(bias_HD + head * D + d).to(ACC)
    x0, x1, x2, x3 = _read(x_at, mask, D, G)
    for t in range(T):
        _write(kept_at, mask, kept_apart, c, n, m, N - 1)
        x_at += H * G * D
        next0, next1, next2, next3 = _read(x_at, mask & (t + 1 < T), D, G)
        product = tl.dot(h.to(y_BTHD.dtype.element_ty).to(OPERAND), r, input_precision=PRECISION, out_dtype=ACC)
        p0, p1, p2, p3 = _apart(product, S)
        a2 = x2.to(ACC)
        a3 = shift + p3
        if CELL != "gru":
            a2 += p2
            a3 += x3.to(ACC)
        h, c, n, m = step(CELL, x0.to(ACC) + p0, x1.to(ACC) + p1, a2, a3, h, c, n, m)
        tl.store(y_at, h.to(y_BTHD.dtype.element_ty), mask)
        y_at += H * D
        kept_at += H * D
        x0, x1, x2, x3 = next0, next1, next2, next3
    _write(kept_at, mask, kept_apart, c, n, m, N - 1)
    tl.store(last_NBHD + state_at, h, mask)
    _write(last_NBHD + state_at + apart, mask, apart, c, n, m, N - 1)


@triton.jit
def _rnn_backward(
    a_BTHSD, r_HDDS, before_BTHD, kept_NBTHD, dy_BTHD, dlast_NBHD, dbegun_NBHD, B, T, H,
    CELL: tl.constexpr, S: tl.constexpr, N: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr,
    ACC: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip  # type: ignore[no-untyped-def]
    """Gradients by the pre-activations take the pre-activations' place."""
    head = tl.program_id(0)
    row = (tl.program_id(1) * ROWS + tl.arange(0, ROWS))[:, None].to(tl.int64)
    d = tl.arange(0, D)[None, :]
    mask = (row < B) & (d < D)
    r = tl.load(r_HDDS + head * D * D * S + tl.arange(0, D)[None, :] * (D * S) + tl.arange(0, D * S)[:, None])
    r = r.to(OPERAND)
    end = (row * T + T - 1) * H + head
    a_at = a_BTHSD + end * (S * D) + d
    y_at = end * D + d
    kept_at = kept_NBTHD + ((row * (T + 1) + T) * H + head) * D + d
    kept_apart = B.to(tl.int64) * (T + 1) * H * D
    state_at = (row * H + head) * D + d
    apart = B * H * D
    dh = tl.load(dlast_NBHD + state_at, mask, other=0.0)
    dc, dn, _ = _states(dlast_NBHD + state_at + apart, mask, apart, N - 1)
    c_after, n_after, m_after = _states(kept_at, mask, kept_apart, N - 1)
    kept_at -= H * D
    c, n, m = _states(kept_at, mask, kept_apart, N - 1)
    a0, a1, a2, a3 = _read(a_at, mask, D, S)
    dy = tl.load(dy_BTHD + y_at, mask, other=0.0)
    h = dy
    if CELL == "gru":
        h = tl.load(before_BTHD + y_at, mask, other=0.0)
    kind = a_BTHSD.dtype.element_ty
    d0 = tl.zeros((ROWS, D), kind)
    d1 = d0
    d2 = d0
    d3 = d0
    for back_t in range(T):
        dh = (dh + dy.to(ACC)) + _through(d0, d1, d2, d3, r, S, ACC, OPERAND, PRECISION)
        ahead = mask & (back_t + 1 < T)
        kept_at -= H * D
        y_at -= H * D
        c_next, n_next, m_next = _states(kept_at, ahead, kept_apart, N - 1)
        a0_next, a1_next, a2_next, a3_next = _read(a_at - H * S * D, ahead, D, S)
        dy_next = tl.load(dy_BTHD + y_at, ahead, other=0.0)
        h_next = dy_next
        if CELL == "gru":
            h_next = tl.load(before_BTHD + y_at, ahead, other=0.0)
        d0, d1, d2, d3, dh, dc, dn = back(
            CELL, a0.to(ACC), a1.to(ACC), a2.to(ACC), a3.to(ACC), h.to(ACC), c, n, m, c_after, n_after, m_after,
            dh, dc, dn,
        )  # fmt: skip
        d0 = d0.to(kind)
        d1 = d1.to(kind)
        d2 = d2.to(kind)
        d3 = d3.to(kind)
        tl.store(a_at, d0, mask)
        if S > 1:
            tl.store(a_at + D, d1, mask)
            tl.store(a_at + 2 * D, d2, mask)
            tl.store(a_at + 3 * D, d3, mask)
        a_at -= H * S * D
        a0, a1, a2, a3, dy, h = a0_next, a1_next, a2_next, a3_next, dy_next, h_next
        c_after, n_after, m_after = c, n, m
        c, n, m = c_next, n_next, m_next
    dh += _through(d0, d1, d2, d3, r, S, ACC, OPERAND, PRECISION)
    tl.store(dbegun_NBHD + state_at, dh, mask)
    _write(dbegun_NBHD + state_at + apart, mask, apart, dc, dn, tl.zeros_like(dh), N - 1)


def _innermost(cell: str, r_HGDE: Tensor, like: Tensor) -> Tensor:
    """(H, D, D, S) in the dtype of `like`: gru's third slot, x_n, has no product."""
    if cell == "gru":
        r_HGDE = torch.cat([r_HGDE[:, :2], torch.zeros_like(r_HGDE[:, :1]), r_HGDE[:, 2:]], 1)
    return r_HGDE.permute(0, 2, 3, 1).to(like.dtype).contiguous()


def _shift(bias_HD: Tensor | None, like_BTHD: Tensor) -> Tensor:
    return like_BTHD.new_zeros(like_BTHD.shape[2:]) if bias_HD is None else bias_HD.to(like_BTHD.dtype)


def _settings(cell: str, like: Tensor) -> dict[str, Any]:
    D, dtype = like.shape[-1], like.dtype
    # In the interpreter a product of bfloat16 is wrong. "tf32x3" is float32's product of three of tensor cores.
    operand = accumulator(dtype) if INTERPRETED else dtype
    exact = torch.get_float32_matmul_precision() == "highest"
    return {
        "CELL": cell,
        "S": 1 if cell == "elman" else 4,
        "N": len(CELLS[cell].states),
        "D": D,
        "ROWS": ROWS,
        "ACC": TYPES[accumulator(dtype)],
        "OPERAND": TYPES[operand],
        "PRECISION": "tf32x3" if exact and dtype == torch.float32 else "tf32",
        "num_warps": WARPS.get(D * dtype.itemsize, 4),
    }


def _by_head(tensor_BTHX: Tensor) -> Tensor:
    """(H, B T, X), a view of a contiguous (B, T, H, ...)."""
    return tensor_BTHX.flatten(3).flatten(0, 1).transpose(0, 1)


class _Rnn(torch.autograd.Function):
    @staticmethod
    def forward(
        x_BTHGD: Tensor, r_HGDE: Tensor, bias_HD: Tensor | None, begun_NBHD: Tensor, cell: str
    ) -> tuple[Tensor, Tensor, Tensor]:
        """y, the last states, and the states other than h before each step and after the last."""
        x, begun = x_BTHGD.contiguous(), begun_NBHD.contiguous()
        B, T, H, G, D = x.shape
        r_HDDS = _innermost(cell, r_HGDE, x)
        y = x.new_empty(B, T, H, D)
        bias = _shift(bias_HD, y).contiguous()
        kept = begun.new_empty(len(begun) - 1, B, T + 1, H, D)
        last = torch.empty_like(begun)
        grid = (H, triton.cdiv(B, ROWS))
        with torch.cuda.device_of(x):
            _rnn_forward[grid](x, r_HDDS, bias, begun, y, kept, last, B, T, H, G=G, **_settings(cell, y))
        return y, last, kept

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, r, bias, begun, ctx.cell = inputs
        y, _, kept = output
        ctx.save_for_backward(x, r, bias, begun[0], y, kept)
        ctx.mark_non_differentiable(kept)
        ctx.set_materialize_grads(False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_BTHD: Tensor | None, dlast_NBHD: Tensor | None, _: None) -> tuple[Any, ...]:
        x, r, bias, h_BHD, y, kept = ctx.saved_tensors
        B, T, H, D = y.shape
        before = torch.cat([h_BHD[:, None].to(y.dtype), y[:, :-1]], 1)
        if ctx.cell == "gru":
            x = torch.cat([x, _shift(bias, y)[:, None].expand(B, T, H, 1, D)], 3)
        x, r_HDDS = x.contiguous(), _innermost(ctx.cell, r, y)
        a = torch.empty_like(x)
        torch.baddbmm(_by_head(x), _by_head(before), r_HDDS.transpose(2, 3).flatten(2), out=_by_head(a))
        dy = torch.zeros_like(y) if dy_BTHD is None else dy_BTHD.contiguous()
        shape = (len(kept) + 1, B, H, D)
        dlast = kept.new_zeros(shape) if dlast_NBHD is None else dlast_NBHD.contiguous()
        dbegun = kept.new_empty(shape)
        grid = (H, triton.cdiv(B, ROWS))
        with torch.cuda.device_of(x):
            _rnn_backward[grid](a, r_HDDS, before, kept, dy, dlast, dbegun, B, T, H, **_settings(ctx.cell, y))
        gates = [0, 1, 3] if ctx.cell == "gru" else slice(None)
        dr = dbias = None
        if ctx.needs_input_grad[1]:
            dr_HDSE = torch.bmm(_by_head(before).transpose(1, 2), _by_head(a)).unflatten(2, (-1, D))
            dr = dr_HDSE.transpose(1, 2)[:, gates].to(r.dtype)
        if ctx.needs_input_grad[2]:
            dbias = a[:, :, :, 3].sum((0, 1), dtype=kept.dtype).to(bias.dtype)
        dx = a[:, :, :, : r.shape[1]] if ctx.needs_input_grad[0] else None
        return dx, dr, dbias, dbegun if ctx.needs_input_grad[3] else None, None


def rnn(x: Tensor, r: Tensor, state: State, *, cell: str, bias: Tensor | None = None) -> tuple[Tensor, State]:
    """As distseq.kernels.rnn, checked, with a state. Not measured on a GPU yet: the default for no shape."""
    y, last, _ = _Rnn.apply(x, r, bias, torch.stack(state), cell)
    return y, last.unbind(0)
