"""The kernels of rnn: a program steps one head of ROWS samples through time, with one product per step.

The columns of the product h R are ordered with the gates innermost, so that a thread holds all gates of an element. A step's
time is latency, so its inputs are loaded one step in advance.

Shapes: B batch, T time, H heads, G gates, D head size, S slots (of distseq.kernels.triton.cells), N states.
"""

import triton
import triton.language as tl

from distseq.kernels.triton.cells import back, step


@triton.jit
def _read(at, mask, D: tl.constexpr, COUNT: tl.constexpr):
    """Four tiles (rows, D), D apart; if COUNT is less, the first one stands in for those that do not exist."""
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
def _apart(a, S: tl.constexpr):
    """The four slots of a product (rows, D S); with S = 1 the same slot four times."""
    if S == 1:
        return a, a, a, a
    else:
        even, odd = tl.split(tl.reshape(a, (a.shape[0], a.shape[1] // 4, 2, 2)))
        a0, a2 = tl.split(even)
        a1, a3 = tl.split(odd)
        return a0, a1, a2, a3


@triton.jit
def _through(d0, d1, d2, d3, r, S: tl.constexpr, ACC: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr):
    """The gradient (rows, D) of the previous h through the product with R, given with its even columns before the odd ones."""
    # Restoring the order of the columns costs nothing, and the result no longer has the layout of a product. Otherwise the
    # compiler would compute the whole step in that layout, and move every tile that is loaded or stored between threads, with
    # two barriers each.
    joined = d0 if S == 1 else tl.reshape(tl.join(tl.join(d0, d2), tl.join(d1, d3)), (d0.shape[0], r.shape[0]))
    product = tl.dot(joined.to(OPERAND), r, input_precision=PRECISION, out_dtype=ACC)
    halves = tl.reshape(product, (product.shape[0], 2, product.shape[1] // 2))
    return tl.reshape(tl.permute(halves, (0, 2, 1)), product.shape)


@triton.jit
def _states(at, mask, apart, COUNT: tl.constexpr):
    """The states c, n and m, of which COUNT exist; the others are 0."""
    c = tl.zeros(mask.shape, at.dtype.element_ty)
    n = c
    m = c
    if COUNT > 0:
        c = tl.load(at, mask, other=0.0)
    if COUNT > 1:
        # 1 in rows beyond the batch, which are computed too: h divides by n.
        n = tl.load(at + apart, mask, other=1.0)
        m = tl.load(at + 2 * apart, mask, other=0.0)
    return c, n, m


@triton.jit
def _write(at, mask, apart, c, n, m, COUNT: tl.constexpr):
    if COUNT > 0:
        tl.store(at, c, mask)
    if COUNT > 1:
        tl.store(at + apart, n, mask)
        tl.store(at + 2 * apart, m, mask)


@triton.jit
def _tile(B, ROWS: tl.constexpr, D: tl.constexpr):
    """The program's samples (rows, 1), the columns of a head (1, D), and a mask of those that exist."""
    row = (tl.program_id(1) * ROWS + tl.arange(0, ROWS))[:, None].to(tl.int64)
    d = tl.arange(0, D)[None, :]
    return row, d, (row < B) & (d < D)


@triton.jit
def rnn_forward(
    x_BTHGD, r_HDDS, bias_HD, initial_NBHD, y_BTHD, kept_NBTHD, last_NBHD, B, T, H,
    CELL: tl.constexpr, G: tl.constexpr, S: tl.constexpr, N: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr,
    ACC: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0)
    row, d, mask = _tile(B, ROWS, D)
    # R stays in registers or shared memory for all T steps; loading it again in each would take longer than the step.
    r = tl.load(r_HDDS + head * D * D * S + tl.arange(0, D)[:, None] * (D * S) + tl.arange(0, D * S)[None, :])
    r = r.to(OPERAND)
    x_at = x_BTHGD + (row * T * H + head) * (G * D) + d
    y_at = y_BTHD + (row * T * H + head) * D + d
    # Entry t of `kept` holds the states before step t, entry T the last ones.
    kept_at = kept_NBTHD + (row * (T + 1) * H + head) * D + d
    kept_apart = B.to(tl.int64) * (T + 1) * H * D
    state_at = (row * H + head) * D + d
    apart = B * H * D
    h = tl.load(initial_NBHD + state_at, mask, other=0.0)
    c, n, m = _states(initial_NBHD + state_at + apart, mask, apart, N - 1)
    shift = tl.zeros((ROWS, D), ACC)
    if CELL == "gru":
        shift += tl.load(bias_HD + head * D + d).to(ACC)
    x0, x1, x2, x3 = _read(x_at, mask, D, G)
    for t in range(T):
        _write(kept_at, mask, kept_apart, c, n, m, N - 1)
        # The loop reads one step ahead; after the last step it reads that one again, instead of beyond the tensor.
        x_at += tl.where(t + 1 < T, H, 0) * (G * D)
        next0, next1, next2, next3 = _read(x_at, mask, D, G)
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
def rnn_backward(
    a_BTHSD, r_HDDS, before_BTHD, kept_NBTHD, dy_BTHD, dlast_NBHD, dbegun_NBHD, B, T, H,
    CELL: tl.constexpr, S: tl.constexpr, N: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr,
    ACC: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Replaces the pre-activations a_BTHSD by their gradients, and writes the gradient of the first states."""
    # In place, since a tensor of four gates is the largest here.
    head = tl.program_id(0)
    row, d, mask = _tile(B, ROWS, D)
    # The even columns, then the odd ones: see _through, which restores their order after the product.
    column = tl.arange(0, D) % (D // 2) * 2 + tl.arange(0, D) // (D // 2)
    r = tl.load(r_HDDS + head * D * D * S + column[None, :] * (D * S) + tl.arange(0, D * S)[:, None])
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
        # Before the first step, that one is read again, instead of before the tensor.
        ahead = tl.where(back_t + 1 < T, H, 0) * D
        kept_at -= ahead
        y_at -= ahead
        c_next, n_next, m_next = _states(kept_at, mask, kept_apart, N - 1)
        a0_next, a1_next, a2_next, a3_next = _read(a_at - ahead * S, mask, D, S)
        dy_next = tl.load(dy_BTHD + y_at, mask, other=0.0)
        h_next = dy_next
        if CELL == "gru":
            h_next = tl.load(before_BTHD + y_at, mask, other=0.0)
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
        a_at -= ahead * S
        a0, a1, a2, a3, dy, h = a0_next, a1_next, a2_next, a3_next, dy_next, h_next
        c_after, n_after, m_after = c, n, m
        c, n, m = c_next, n_next, m_next
    dh += _through(d0, d1, d2, d3, r, S, ACC, OPERAND, PRECISION)
    tl.store(dbegun_NBHD + state_at, dh, mask)
    _write(dbegun_NBHD + state_at + apart, mask, apart, dc, dn, tl.zeros_like(dh), N - 1)
