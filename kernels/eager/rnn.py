"""Nonlinear recurrences as a preallocated loop, with hand-written backpropagation through time.

Shapes: B batch, T time, H heads, G gates, D head size (E for the second axis of that size in r), and N the axes of one step:
(B,), or (H, B) with several heads. Buffers are time-major, so that a step is contiguous. The loops themselves are in loops.py.
"""

from typing import Any

import torch
from torch import Tensor

from distseq.kernels.border import once
from distseq.kernels.cells import State
from distseq.kernels.eager.loops import LOOPS
from distseq.kernels.stacking import Axes, VmapResult, along_heads

# Elements of a state in one block of backward: 256 KiB in float32, so that the dozen buffers of a block, 3 MiB, stay in the
# last-level cache. Smaller blocks would save nothing and add calls.
BLOCK = 2**16


def rnn(x: Tensor, r: Tensor, state: State, *, cell: str, bias: Tensor | None = None) -> tuple[Tensor, State]:
    """(h (B, T, H, D), state), as distseq.kernels.rnn. Not differentiable twice."""
    y, *after = _RNN.apply(x, r, bias, cell, 1, *state)
    return y, tuple(after[: len(state)])


class _RNN(torch.autograd.Function):
    """The outputs are y, the states after the last step, then all h (T + 1, N, D) and what the cell's loop keeps for backward."""

    @staticmethod
    def forward(
        x_BTHGD: Tensor, r_HGDE: Tensor, bias_HD: Tensor | None, cell: str, models: int, *state_BHD: Tensor
    ) -> Any:
        B, T, H, _, D = x_BTHGD.shape
        x_TNE = _step_axes(x_BTHGD.to(state_BHD[0].dtype).flatten(3).permute(1, 2, 0, 3), 1)
        r, shift = _matrix(r_HGDE, state_BHD[0].dtype), x_TNE.new_zeros(H, 1, r_HGDE.shape[1] * D)
        if bias_HD is not None:
            shift[:, 0, -D:] = bias_HD
        first, *others = (_step_axes(each.transpose(0, 1), 0) for each in state_BHD)
        h_TND = first.new_empty(T + 1, *first.shape)
        h_TND[0] = first
        after, kept = LOOPS[cell].forward(x_TNE, r, _step_axes(shift, 0), h_TND, tuple(others))
        y_BTHD = h_TND[1:].reshape(T, H, B, D).permute(2, 0, 1, 3).to(x_BTHGD.dtype)
        after = tuple(each.reshape(H, B, D).transpose(0, 1).clone() for each in (h_TND[-1], *after))
        return y_BTHD, *after, h_TND, *kept

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, r, _, ctx.cell, ctx.models, *state = inputs
        ctx.states, ctx.shape, ctx.dtype = len(state), x.shape, x.dtype
        kept = output[1 + len(state) :]
        # The last state of slstm is m, on which nothing depends (distseq.kernels.cells).
        opaque = output[len(state) : 1 + len(state)] if ctx.cell == "slstm" else ()
        ctx.mark_non_differentiable(*opaque, *kept)
        ctx.set_materialize_grads(False)
        # The last h too, by which a second derivative finds its way here (distseq.kernels.border.once).
        ctx.save_for_backward(r, output[1], *kept)

    @staticmethod
    @once
    def backward(ctx: Any, dy_BTHD: Tensor | None, *grads: Tensor | None) -> Any:
        r_HGDE, _, h_TND, *kept = ctx.saved_tensors
        (B, T, H, G, D), N = ctx.shape, h_TND.shape[1:-1]
        wants_r, wants_bias = ctx.needs_input_grad[1:3]
        r = _matrix(r_HGDE, h_TND.dtype).mT.contiguous()
        nothing = h_TND.new_zeros(())
        dy_BTHD = nothing.expand(B, T, H, D) if dy_BTHD is None else dy_BTHD.to(h_TND.dtype)
        dy = _step_axes(dy_BTHD.permute(1, 2, 0, 3), 1).unbind(0)
        dh, *carry = (
            h_TND.new_zeros(*N, D) if each is None else _step_axes(each.transpose(0, 1), 0).clone()
            for each in grads[: ctx.states]
        )
        # y_T is also the last state: both gradients meet before the loop, which adds those of earlier outputs step by step.
        dh += dy[-1]
        before = (nothing.expand(*N, D), *dy[:-1])
        d_TNE = h_TND.new_empty(T, *N, G * D)
        dr, dbias = torch.zeros_like(r.mT, memory_format=torch.contiguous_format), h_TND.new_zeros(*N[:-1], D)
        # Times the models, so that stacked models are cut into the blocks that each would have alone: the sums of dr, and with
        # them its bits, depend on the cut.
        steps = max(1, BLOCK * ctx.models // dh.numel())
        for end in range(T, 0, -steps):
            block = slice(max(0, end - steps), end)
            d, h = d_TNE[block], h_TND[block.start : end + 1]
            last = LOOPS[ctx.cell].backward(d, h, tuple(each[block] for each in kept), before[block], r, dh, carry)
            # The gradient of R as one product over all steps and samples of a block, instead of one for each step.
            if wants_r:
                (dr.addmm_ if H == 1 else dr.baddbmm_)(_rows(h[:-1]).mT, _rows(d))
            if wants_bias:
                dbias += _rows(d)[..., -D:].sum(-2)
            # Last: of gru's gate n, R and the bias get the gradient of the product inside the reset, x gets the one outside.
            if last is not None:
                d[..., -D:] = last
        dx = d_TNE.view(T, H, B, G, D).permute(2, 0, 1, 3, 4).to(ctx.dtype)
        dr_HGDE = dr.view(H, D, G, D).transpose(1, 2).to(r_HGDE.dtype) if wants_r else None
        states = (each.view(H, B, D).transpose(0, 1) for each in (dh, *carry))
        return dx, dr_HGDE, dbias.view(H, D) if wants_bias else None, None, None, *states

    @staticmethod
    def vmap(
        info: Any, dims: Axes, x: Tensor, r: Tensor, bias: Tensor | None, cell: str, models: int, *state: Tensor
    ) -> VmapResult:
        args, ones = (x, r, bias, cell, models * info.batch_size, *state), (1,) * len(state)
        return along_heads(_RNN, info, dims, args, (2, 0, 0, None, None, *ones), (2, *ones))


def _step_axes(tensor: Tensor, heads: int) -> Tensor:
    """The tensor without its axis of heads if there is only one head."""
    # A plain product is cheaper than a batched one of one matrix.
    return tensor.squeeze(heads)


def _matrix(r_HGDE: Tensor, dtype: torch.dtype) -> Tensor:
    """(D, G E), or (H, D, G E)."""
    return _step_axes(r_HGDE.to(dtype).transpose(1, 2).flatten(2), 0)


def _rows(tensor_TND: Tensor) -> Tensor:
    """Time and batch as one axis: (T B, D), or (H, T B, D)."""
    return tensor_TND.movedim(0, -3).flatten(-3, -2)
