"""The scan h_t = a_t h_{t-1} + x_t: one operation per step, or chunks where steps are small.

Shapes: B batch, T time, C chunks, L steps of a chunk; all other axes are elementwise. `a` may have size 1 where x does not.
"""

from typing import Any

import torch
from torch import Tensor

from distseq.kernels.backend import accumulator
from distseq.kernels.border import once
from distseq.kernels.stacking import Axes, with_models_axis

# Elements of a step below which its time is that of the call, not of the arithmetic: chunks then do C steps in one call. The
# measurements are in `chunk`.
SMALL = 4096
# Steps below which chunks do not pay: they cost three passes of L operations in place of one of T = C L.
SHORT = 32


def scan(a: Tensor, x: Tensor, state: Tensor, *, reverse: bool = False) -> tuple[Tensor, Tensor]:
    wide = accumulator(x.dtype)
    h, after = _Scan.apply(a.to(wide), x.to(wide), state, reverse, 1)
    return h.to(x.dtype), after


class _Scan(torch.autograd.Function):
    """Its backward is the same scan in the other direction: lam_t = g_t + conj(a_{t+1}) lam_{t+1}.

    Then dx = lam and da_t = lam_t conj(h_{t-1}).
    """

    @staticmethod
    def forward(a: Tensor, x: Tensor, state: Tensor, reverse: bool, models: int) -> tuple[Tensor, Tensor]:
        h = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        run(a.resolve_conj(), x.resolve_conj(), state.resolve_conj(), h, reverse, models)
        return h, h[:, 0 if reverse else -1].clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        a, _, state, ctx.reverse, ctx.models = inputs
        ctx.save_for_backward(a, state, output[0])
        ctx.set_materialize_grads(False)

    @staticmethod
    @once
    def backward(ctx: Any, g: Tensor | None, g_after: Tensor | None) -> tuple[Tensor | None, ...]:
        a, state, h = ctx.saved_tensors
        g = torch.zeros_like(h) if g is None else g.resolve_conj()
        steps, last = h.shape[1] - 1, 0 if ctx.reverse else -1
        # Slices of all steps but the first, and of the step before each of them, in the order of the scan.
        here, before = (slice(0, -1), slice(1, None)) if ctx.reverse else (slice(1, None), slice(0, -1))
        # Resolved, because a lazily conjugated tensor would be conjugated anew in each of the T operations.
        a_conj = a.resolve_conj().conj_physical().expand(-1, steps + 1, *a.shape[2:])
        lam = torch.empty(h.shape, dtype=h.dtype, device=h.device)
        lam[:, last] = g[:, last] if g_after is None else g[:, last] + g_after
        if steps:
            run(a_conj[:, here], g[:, before], lam[:, last], lam[:, before], not ctx.reverse, ctx.models)
        first = -1 if ctx.reverse else 0
        d_a = None
        if ctx.needs_input_grad[0]:
            product = torch.empty(h.shape, dtype=h.dtype, device=h.device)
            product[:, first] = lam[:, first] * state.conj()
            torch.mul(lam[:, here], h[:, before].conj(), out=product[:, here])
            d_a = product.sum_to_size(a.shape)
        d_state = a_conj[:, first] * lam[:, first] if ctx.needs_input_grad[2] else None
        return d_a, lam if ctx.needs_input_grad[1] else None, d_state, None, None

    @staticmethod
    def vmap(
        info: Any, dims: Axes, a: Tensor, x: Tensor, state: Tensor, reverse: bool, models: int
    ) -> tuple[tuple[Tensor, ...], Axes]:
        """All axes but those of samples and time are elementwise; the models become one more of them."""
        # `models` goes along, because the cut into chunks depends on the size of one model's step: see `run`.
        a, x = (with_models_axis(each, dim, 2, info.batch_size) for each, dim in zip((a, x), dims, strict=False))
        return _Scan.apply(
            a, x, with_models_axis(state, dims[2], 1, info.batch_size), reverse, models * info.batch_size
        ), (2, 1)


def chunk(T: int, size: int) -> int:
    """The length of a chunk, or 1 for no chunks, for T steps of `size` elements."""
    # Measured: the time of a loop under autograd divided by ours (one thread, AVX2, float32, forward and backward, T = 1024, two
    # runs). From 2048 to 4096 elements, the two ways differ as much as two runs do.
    #     size              16       256       512      1024      2048      3072      4096      8192     16384
    #     no chunks    2.3 2.4   2.5 2.8   2.3 2.7   2.4 2.4   3.0 2.6   2.4 2.7   2.2 2.1   1.9 2.9   2.0 2.7
    #     32 steps    12.1 13.7  8.6 8.7   6.9 8.6   5.4 4.2   2.3 3.5   2.8 2.0   1.9 2.1   1.4 1.9   1.3 2.2
    # The square root of T: with C chunks of L steps there are about 3 L + C operations, and neither may be large.
    return 1 if size >= SMALL or T < SHORT else max(2, round(T**0.5))


def run(a: Tensor, x: Tensor, h: Tensor, out: Tensor, reverse: bool, models: int) -> None:
    """Write out_t = a_t out_{t-1} + x_t, starting from h, forward in time or in reverse."""
    # The size of one model's step: a model must have the same chunks, and so the same bits, alone and stacked with others.
    T = x.shape[1]
    a, L = a.expand(-1, T, *a.shape[2:]), chunk(T, out[:, 0].numel() // models)
    rest = T % L if L > 1 else T
    # The steps that do not fill a chunk come last in the order of the scan.
    chunks, others = (slice(rest, T), slice(0, rest)) if reverse else (slice(0, T - rest), slice(T - rest, T))
    if rest < T:
        h = _chunks(a[:, chunks], x[:, chunks], h, out[:, chunks], L, reverse)
    a_steps, x_steps, h_steps = (_ordered(each[:, others], 1, reverse) for each in (a, x, out))
    _steps(a_steps, x_steps, h, h_steps)


def _ordered(tensor: Tensor, axis: int, reverse: bool) -> tuple[Tensor, ...]:
    views = tensor.unbind(axis)
    return views[::-1] if reverse else views


def _steps(a: tuple[Tensor, ...], x: tuple[Tensor, ...], h: Tensor, out: tuple[Tensor, ...]) -> None:
    for a_t, x_t, h_t in zip(a, x, out, strict=True):
        h = torch.addcmul(x_t, a_t, h, out=h_t)


def _chunks(a: Tensor, x: Tensor, h: Tensor, out: Tensor, L: int, reverse: bool) -> Tensor:
    """The scan of whole chunks. Returns the last state."""
    # First the product of each chunk's factors, and its last state if it started from zero; from these the states before the
    # chunks; then the steps. Each operation works on step l of all chunks, (B, C, ...).
    a_steps, x_steps, h_steps = (_ordered(each.unflatten(1, (-1, L)), 2, reverse) for each in (a, x, out))
    product, end = a_steps[0].clone(), x_steps[0].clone()
    for a_l, x_l in zip(a_steps[1:], x_steps[1:], strict=True):
        product.mul_(a_l)
        torch.addcmul(x_l, a_l, end, out=end)
    initial = torch.empty_like(end)
    products, ends, states = (_ordered(each, 1, reverse) for each in (product, end, initial))
    states[0].copy_(h)
    _steps(products[:-1], ends[:-1], states[0], states[1:])
    _steps(a_steps, x_steps, initial, h_steps)
    return out[:, 0 if reverse else -1]
