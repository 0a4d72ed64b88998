"""The public primitives: what each computes, its checks and its states; backends compute them.

Shapes: B batch, T time (T >= 1), H heads, D head size, K keys, V values, N states, G gates, L taps. Any strides are accepted.
A causal primitive returns (y, state). Called again with that state it continues where it stopped; with T = 1 that is a single
step. y has the dtype of the inputs, the state is float32 (float64 for float64 inputs). A ValueError names the argument whose
layout, size or dtype is wrong.
"""

from typing import Any

import torch
from torch import Tensor

from distseq.kernels.backend import accumulator, choose, implementation
from distseq.kernels.border import primitive, promoted, transformed
from distseq.kernels.cells import CELLS, State
from distseq.kernels.eager import dense_rnn as eager
from distseq.kernels.layout import sizes
from distseq.kernels.linear import linear

KeyState = tuple[Tensor, Tensor, Tensor | None]


@primitive
def rnn(
    x: Tensor, r: Tensor, state: State | None = None, *, cell: str = "lstm", bias: Tensor | None = None
) -> tuple[Tensor, State]:
    """h (B, T, H, D) of a nonlinear recurrence in independent heads.

    x (B, T, H, G, D) are the pre-activations W u + b, r (H, G, D, D) the recurrent matrices: the pre-activation of gate g in
    step t is x[:, t, :, g] + h_{t-1} r[:, g]. `cell`: elman, lstm, gru (torch's form; `bias` (H, D) is added to the product of
    gate n, inside the reset) or slstm (Beck et al. 2024). The state is a tuple of the cell's states, each (B, H, D), h first.

    >>> B, T, H, G, D = 2, 5, 3, 4, 8  # an LSTM has 4 gates
    >>> y, (h, c) = rnn(torch.randn(B, T, H, G, D), torch.randn(H, G, D, D))
    >>> y.shape, h.shape, bool((y[:, -1] == h).all())
    (torch.Size([2, 5, 3, 8]), torch.Size([2, 3, 8]), True)
    """
    x, r, bias = promoted(x, r, bias)
    initial = _initial_rnn_state("rnn", {"x": (x, "BTHGD")}, r, state, cell, bias)
    y, after = _implementation("rnn", x, r.shape[-1])(x, r, initial, cell=cell, bias=bias)
    return y, tuple(after)


@primitive
def dense_rnn(
    u: Tensor,
    w: Tensor,
    b: Tensor | None,
    r: Tensor,
    state: State | None = None,
    *,
    cell: str = "lstm",
    bias: Tensor | None = None,
) -> tuple[Tensor, State]:
    """h (B, T, H, D): `rnn` of x = W u + b, for u (B, T, I), w (H G D, I) and b (H G D,), rows in the order (H, G, D).

    The eager backend uses torch's fused kernels (oneDNN, cuDNN) for the shapes for which they are faster. cuDNN keeps the state
    in the dtype of u, not in float32, while it runs.

    >>> H, G, D = 3, 4, 8
    >>> y, state = dense_rnn(torch.randn(2, 5, 6), torch.randn(H * G * D, 6), None, torch.randn(H, G, D, D))
    >>> y.shape
    torch.Size([2, 5, 3, 8])
    """
    u, w, b, r, bias = promoted(u, w, b, r, bias)
    named = {"u": (u, "BTI"), "w": (w, "EI"), "b": (b, "E")}
    initial = _initial_rnn_state("dense_rnn", named, r, state, cell, bias)
    if w.shape[0] != r[..., 0].numel():
        raise ValueError(f"dense_rnn: w must have H G D = {r[..., 0].numel()} rows: got {w.shape[0]}")
    backend = "reference" if transformed() else choose("rnn", u.device, u.dtype, (r.shape[-1],))
    if backend == "eager":
        return eager.dense_rnn(u, w, b, r, initial, cell=cell, bias=bias)
    x = linear(u, w, b).unflatten(-1, r.shape[:3])
    y, after = implementation("rnn", backend)(x, r, initial, cell=cell, bias=bias)
    return y, tuple(after)


@primitive
def scan(
    a: Tensor, x: Tensor, state: Tensor | None = None, *, reverse: bool = False, reset: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """h_t = a_t h_{t-1} + x_t for x (B, T, ...), elementwise, real or complex. h has the shape of x, the state has it without T.

    `a` broadcasts to the shape of x, or is time-invariant (...). `reset` (B, T) bool: the state is dropped before such a step
    (a_t = 0). `reverse`: from the last step to the first; the state given is then the one after the last step, and the state
    returned the one of the first.

    >>> h, state = scan(torch.tensor(0.5), torch.ones(1, 3))
    >>> h.tolist(), state.tolist()
    ([[1.0, 1.5, 1.75]], [1.75])
    >>> scan(torch.tensor(0.5), torch.ones(1, 1), state)[0].tolist()
    [[1.875]]
    """
    if x.dim() < 2:
        raise ValueError(f"scan: x must be (B, T, ...): got shape {tuple(x.shape)}")
    a, x = promoted(a, x)
    rest = "abcdefgh"[: x.dim() - 2]
    sizes("scan", {"x": (x, "BT" + rest), "state": (state, "B" + rest)})
    # Expanded, not copied: a time-invariant factor stays as small as it is, and its gradient is summed over time by autograd.
    a = a.expand(1, 1, *a.shape) if a.dim() == x.dim() - 2 else a
    if a.dim() != x.dim() or any(own not in (1, size) for own, size in zip(a.shape, x.shape, strict=True)):
        raise ValueError(f"scan: a must broadcast to x of shape {tuple(x.shape)}: got shape {tuple(a.shape)}")
    sizes("scan", {"a": (a, "ij" + rest)})
    if a.is_complex():
        x = x.to(a.dtype if x.dtype not in (torch.float64, torch.complex128) else torch.complex128)
    if reset is not None:
        if reset.shape != x.shape[:2] or reset.dtype != torch.bool:
            raise ValueError(f"scan: reset must be bool {tuple(x.shape[:2])}: got {reset.dtype} {tuple(reset.shape)}")
        # where, not a product: a factor of inf or NaN must be forgotten too.
        a = torch.where(reset.view(*reset.shape, *(1,) * len(rest)), torch.zeros((), dtype=a.dtype, device=a.device), a)
    initial = _single_state(x, x.shape[:1] + x.shape[2:], state)
    y, after = _implementation("scan", x)(a, x, initial, reverse=reverse)
    return y, after


@primitive
def max_scan(f: Tensor, i: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """m_t = max(f_t + m_{t-1}, i_t) for f, i (B, T, ...), computed without a loop.

    >>> max_scan(torch.tensor([[-1.0, -1.0, -1.0]]), torch.tensor([[3.0, 0.0, 5.0]]))[0].tolist()
    [[3.0, 2.0, 5.0]]
    """
    # With F = cumsum f, m_t - F_t = max(m_{t-1} - F_{t-1}, i_t - F_t): a cumulative maximum of i - F.
    f, i = promoted(f, i)
    rest = "abcdefgh"[: i.dim() - 2]
    sizes("max_scan", {"i": (i, "BT" + rest), "f": (f, "BT" + rest), "state": (state, "B" + rest)})
    total = torch.cumsum(f.to(accumulator(f.dtype)), 1)
    m = torch.cummax(i - total, 1).values
    # The state needs no F of its own: it is m_0, and F_0 is 0.
    m = total + (m if state is None else torch.maximum(m, state[:, None]))
    return m.to(i.dtype), m[:, -1]


@primitive
def selective_scan(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """y_t = C_t h_t + D u_t of h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t (Mamba, Gu and Dao 2023); y (B, T, D).

    u and dt (B, T, D), dt > 0; A (D, N), A < 0; B and C (B, T, N); D (D,); the state h (B, D, N). The states of all T steps
    are never in memory at once.

    >>> one = torch.ones(1, 3, 1)
    >>> y, h = selective_scan(one, one, torch.tensor([[0.5]]).log(), one, one)
    >>> y.flatten().tolist(), h.tolist()
    ([1.0, 1.5, 1.75], [[[1.75]]])
    """
    u, dt, A, B, C, D = promoted(u, dt, A, B, C, D)
    named = {"u": (u, "BTD"), "dt": (dt, "BTD"), "A": (A, "DN"), "B": (B, "BTN"), "C": (C, "BTN"), "D": (D, "D")}
    size = sizes("selective_scan", {**named, "state": (state, "BDN")})
    initial = _single_state(u, (size["B"], size["D"], size["N"]), state)
    # Backends always get tensors: one case less in each of their forward and backward passes.
    skip = torch.zeros_like(A[:, 0]) if D is None else D
    y, after = _implementation("selective_scan", u)(u, dt, A, B, C, skip, initial)
    return y, after


@primitive
def linear_attention(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None = None, state: Tensor | None = None, *, chunk: int = 32
) -> tuple[Tensor, Tensor]:
    """o_t = q_t^T S_t of S_t = diag(exp g_t) S_{t-1} + k_t v_t^T; o (B, T, H, V).

    q, k (B, T, H, K), v (B, T, H, V), state S (B, H, K, V). Log-decays g <= 0: None, one for each head (B, T, H), or one for
    each key (B, T, H, K). Nothing is scaled. `chunk`: the number of steps that are computed together.

    >>> one, v = torch.ones(1, 3, 1, 1), torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)
    >>> o, S = linear_attention(one, one, v)
    >>> o.flatten().tolist(), S.tolist()
    ([1.0, 3.0, 6.0], [[[[6.0]]]])
    """
    q, k, v, g = promoted(q, k, v, g)
    decay = "BTHK" if g is not None and g.dim() == 4 else "BTH"
    named = {"q": (q, "BTHK"), "k": (k, "BTHK"), "v": (v, "BTHV"), "g": (g, decay), "state": (state, "BHKV")}
    size = sizes("linear_attention", named)
    _check_positive("linear_attention", chunk=chunk)
    initial = _single_state(v, (size["B"], size["H"], size["K"], size["V"]), state)
    g = initial.new_zeros(size["B"], size["T"], size["H"]) if g is None else g
    # The Triton kernels scale whole rows by their decay, which a decay for each key does not allow.
    plain = "its decay is one for each key" if g.dim() == 4 else None
    run = _implementation("linear_attention", v, size["K"], size["V"], plain=plain)
    y, after = run(q, k, v, g, initial, chunk=chunk)
    return y, after


@primitive
def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor | None = None,
    state: Tensor | None = None,
    *,
    steps: int = 1,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    """o_t = q_t^T S_t of S <- exp(g_t) S, then `steps` times S <- S + beta k (v - S^T k)^T (Yang et al. 2024; Siems et al. 2025).

    q (B, T, H, K), g (B, T, H) <= 0 or None. k, v and beta have `steps` sub-steps for each step: (B, T steps, H, K),
    (B, T steps, H, V) and (B, T steps, H). State S (B, H, K, V), o (B, T, H, V). beta in (0, 2) and |k| = 1 keep it stable;
    beta > 1 gives negative eigenvalues. `chunk`: sub-steps of a chunk; None leaves the choice to the backend.

    >>> one, v = torch.ones(1, 3, 1, 1), torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)
    >>> delta_rule(one, one, v, torch.full((1, 3, 1), 1.0))[0].flatten().tolist()  # replaces the value at the key
    [1.0, 2.0, 3.0]
    >>> delta_rule(one, one, v, torch.full((1, 3, 1), 0.5))[0].flatten().tolist()  # goes half the way
    [0.5, 1.25, 2.125]
    """
    _check_positive("delta_rule", steps=steps, chunk=1 if chunk is None else chunk)
    q, k, v, beta, g = promoted(q, k, v, beta, g)
    inner = {"k": (k, "BSHK"), "v": (v, "BSHV"), "beta": (beta, "BSH")}
    size = sizes("delta_rule", {"q": (q, "BTHK"), **inner, "g": (g, "BTH"), "state": (state, "BHKV")})
    if size["S"] != size["T"] * steps:
        raise ValueError(f"delta_rule: k must have T * steps = {size['T']} * {steps} steps: got {size['S']}")
    initial = _single_state(v, (size["B"], size["H"], size["K"], size["V"]), state)
    g = initial.new_zeros(size["B"], size["T"], size["H"]) if g is None else g
    run = _implementation("delta_rule", v, size["K"], size["V"])
    y, after = run(q, k, v, beta, g, initial, steps=steps, chunk=chunk)
    return y, after


@primitive
def prefix_softmax(s: Tensor, v: Tensor, state: State | None = None, *, chunk: int = 32) -> tuple[Tensor, State]:
    """o_t = sum_{i<=t} exp(s_i) v_i / sum_{i<=t} exp(s_i) (Aaren, Feng et al. 2024) for s (B, T, H), v (B, T, H, V).

    The state is (log of the denominator (B, H), o (B, H, V)). Where no score so far is above -inf, o is zero.

    >>> v = torch.tensor([1.0, 2.0, 6.0]).view(1, 3, 1, 1)
    >>> prefix_softmax(torch.zeros(1, 3, 1), v)[0].flatten().round(decimals=4).tolist()  # equal scores: the mean so far
    [1.0, 1.5, 3.0]
    """
    s, v = promoted(s, v)
    log, mean = state if state is not None else (None, None)
    named = {"s": (s, "BTH"), "v": (v, "BTHV"), "state log": (log, "BH"), "state mean": (mean, "BHV")}
    size = sizes("prefix_softmax", named)
    _check_positive("prefix_softmax", chunk=chunk)
    shape = (size["B"], size["H"])
    initial = (
        (_initial(v, shape, float("-inf")), _initial(v, (*shape, size["V"])))
        if state is None
        else _cast_states(v, state)
    )
    y, after = _implementation("prefix_softmax", v)(s, v, initial, chunk=chunk)
    return y, tuple(after)


@primitive
def short_conv(x: Tensor, w: Tensor, state: Tensor | None = None, *, dilation: int = 1) -> tuple[Tensor, Tensor]:
    """y_t = sum_l w[:, l] x_{t - (L-1-l) dilation} in each channel, for x (B, T, D) and w (D, L).

    The state is the last (L-1) dilation inputs (B, (L-1) dilation, D).

    >>> y, inputs = short_conv(torch.tensor([2.0, 4.0, 6.0]).view(1, 3, 1), torch.tensor([[0.5, 0.5]]))
    >>> y.flatten().tolist(), inputs.tolist()
    ([1.0, 3.0, 5.0], [[[6.0]]])
    """
    _check_positive("short_conv", dilation=dilation)
    x, w = promoted(x, w)
    reach = (w.shape[-1] - 1) * dilation
    initial = _initial_inputs("short_conv", x, {"w": (w, "DL")}, state, reach)
    y, after = _implementation("short_conv", x)(x, w, initial, dilation=dilation)
    return y, after


@primitive
def fft_conv(x: Tensor, k: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """y_t = sum_{l<L} k[:, l] x_{t-l} in each channel, by FFT, for x (B, T, D), k (D, L). The state is the last L-1 inputs.

    >>> y, inputs = fft_conv(torch.tensor([2.0, 4.0, 6.0]).view(1, 3, 1), torch.tensor([[0.5, 0.25]]))
    >>> y.flatten().round(decimals=4).tolist()
    [1.0, 2.5, 4.0]
    """
    x, k = promoted(x, k)
    initial = _initial_inputs("fft_conv", x, {"k": (k, "DL")}, state, k.shape[-1] - 1)
    y, after = _implementation("fft_conv", x)(x, k, initial)
    return y, after


@primitive
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: KeyState | None = None,
    *,
    causal: bool = True,
    window: int | None = None,
    key_mask: Tensor | None = None,
) -> tuple[Tensor, KeyState | None]:
    """softmax(q k^T / sqrt D) v in each head, for q and k (B, T, H, D) and v (B, T, H, V).

    `causal`: a query sees the keys up to its own position, at most the last `window` of them. The state is (keys, values, mask)
    of all positions that may still be seen; the mask is None if no key was ever masked. Not causal: a query sees all keys, and
    there is no state. `key_mask` (B, T) bool: keys that are False are never seen; a query that sees no key gives zeros.

    >>> zero, v = torch.zeros(1, 3, 1, 1), torch.tensor([1.0, 2.0, 6.0]).view(1, 3, 1, 1)
    >>> attention(zero, zero, v)[0].flatten().tolist()  # equal scores: the mean so far
    [1.0, 1.5, 3.0]
    >>> attention(zero, zero, v, window=2)[0].flatten().tolist()
    [1.0, 1.5, 4.0]
    """
    q, k, v = promoted(q, k, v)
    keys, values, mask = state if state is not None else (None, None, None)
    named = {"q": (q, "BTHD"), "k": (k, "BTHD"), "v": (v, "BTHV"), "state keys": (keys, "BSHD")}
    size = sizes(
        "attention", {**named, "state values": (values, "BSHV")} if keys is not None and keys.shape[1] else named
    )
    if not causal and (state is not None or window is not None):
        raise ValueError(f"attention: only causal attention has a {'state' if state is not None else 'window'}")
    if window is not None:
        _check_positive("attention", window=window)
    for name, each in (("key_mask", key_mask), ("state mask", mask)):
        if each is not None and each.dtype != torch.bool:
            raise ValueError(f"attention: {name} must be bool: got {each.dtype}")
    if key_mask is not None and key_mask.shape != q.shape[:2]:
        raise ValueError(
            f"attention: key_mask must be (B, T) = {tuple(q.shape[:2])}: got shape {tuple(key_mask.shape)}"
        )
    if key_mask is not None or mask is not None:
        # Keys that came before the first mask were all seen.
        seen = keys.shape[:2] if keys is not None else (size["B"], 0)
        before = q.new_ones(seen, dtype=torch.bool) if mask is None else mask
        mask = torch.cat([before, q.new_ones(q.shape[:2], dtype=torch.bool) if key_mask is None else key_mask], 1)
    keys = k if keys is None else torch.cat([keys, k], 1)
    values = v if values is None else torch.cat([values, v], 1)
    y = _implementation("attention", q)(q, keys, values, mask, causal=causal, window=window)
    if not causal:
        return y, None
    # window - 1: the next query sees its own key too, which is not here yet.
    drop = 0 if window is None else max(0, keys.shape[1] - (window - 1))
    return y, (keys[:, drop:], values[:, drop:], None if mask is None else mask[:, drop:])


def _initial_rnn_state(op: str, inputs: Any, r: Tensor, state: State | None, cell: str, bias: Tensor | None) -> State:
    """The state before the first step. Checks the arguments of a recurrence; `inputs` are given as name -> (tensor, layout)."""
    if cell not in CELLS:
        raise ValueError(f"{op}: cell must be one of {', '.join(CELLS)}: got {cell!r}")
    if bias is not None and cell != "gru":
        raise ValueError(f"{op}: bias is for cell gru only; add that of {cell} to {'x' if op == 'rnn' else 'b'}")
    kind = CELLS[cell]
    named = {f"state {name}": (each, "BHD") for name, each in zip(kind.states, state or (), strict=False)}
    size = sizes(op, {**inputs, "r": (r, "HGDD"), "bias": (bias, "HD"), **named})
    if size["G"] != len(kind.gates):
        raise ValueError(f"{op}: {cell} has {len(kind.gates)} gates ({kind.gates}): got G = {size['G']}")
    if state is not None and len(state) != len(kind.states):
        raise ValueError(f"{op}: the state of {cell} is ({', '.join(kind.states)}): got {len(state)} tensors")
    like = next(iter(inputs.values()))[0]
    shape = (size["B"], size["H"], size["D"])
    return (
        tuple(_initial(like, shape, value) for value in kind.beginning) if state is None else _cast_states(like, state)
    )


def _implementation(op: str, like: Tensor, *heads: int, plain: str | None = None) -> Any:
    """The backend's function. `plain`: a reason, other than sizes, why Triton cannot compute this call."""
    backend = "reference" if transformed() else choose(op, like.device, like.dtype, heads, plain)
    return implementation(op, backend)


def _initial(like: Tensor, shape: Any, value: float = 0.0) -> Tensor:
    return torch.full(tuple(shape), value, dtype=accumulator(like.dtype), device=like.device)


def _single_state(like: Tensor, shape: Any, state: Tensor | None) -> Tensor:
    """A state of one tensor; zeros if none is given."""
    return _initial(like, shape) if state is None else _cast_states(like, (state,))[0]


def _cast_states(like: Tensor, state: State) -> State:
    return tuple(each.to(accumulator(like.dtype)) for each in state)


def _initial_inputs(op: str, x: Tensor, named: Any, state: Tensor | None, reach: int) -> Tensor:
    size = sizes(op, {"x": (x, "BTD"), **named})
    shape = (size["B"], reach, size["D"])
    if state is not None and tuple(state.shape) != shape:
        raise ValueError(f"{op}: state must be the last inputs, of shape {shape}: got {tuple(state.shape)}")
    return _single_state(x, shape, state)


def _check_positive(op: str, **numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{op}: {name} must be at least 1: got {number}")
