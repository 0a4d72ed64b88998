"""Nonlinear recurrences in independent heads: launches the kernels, and computes the products outside the loop.

Only h and the cell's other states are stored. Backward first recomputes the pre-activations of all steps by one product, then
runs its kernel, and then computes the gradient of R by another product.

Shapes: B batch, T time, H heads, G gates, D head size, S slots (of distseq.kernels.triton.cells), N states.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from distseq.kernels.backend import accumulator
from distseq.kernels.border import once
from distseq.kernels.cells import CELLS, State
from distseq.kernels.stacking import Axes, VmapResult, along_heads
from distseq.kernels.triton.math import INTERPRETED
from distseq.kernels.triton.rnn_kernels import rnn_backward, rnn_forward

# Samples of a program, and its warps by the bytes of a head: chosen by compiling for sm_90, where no registers spill for D <= 64
# (tests/kernels/test_triton_compile.py). In exact float32 (torch.set_float32_matmul_precision) R is held in parts that take one
# and a half times its size, which at D = 64 leaves room for 8 samples.
ROWS, EXACT_ROWS = 16, {64: 8}
WARPS = {32: 4, 64: 4, 128: 8, 256: 8}
TYPES = {torch.float64: tl.float64, torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}


def _innermost(cell: str, r_HGDE: Tensor, like: Tensor) -> Tensor:
    """R as (H, D, D, S) in the dtype of `like`, with the gates innermost."""
    # gru's third slot, x_n, has no product.
    if cell == "gru":
        r_HGDE = torch.cat([r_HGDE[:, :2], torch.zeros_like(r_HGDE[:, :1]), r_HGDE[:, 2:]], 1)
    # Copied once before the kernel, which then reads whole rows; the gates of an element are neighbours in the product.
    return r_HGDE.permute(0, 2, 3, 1).to(like.dtype).contiguous()


def _shift(bias_HD: Tensor | None, like_BTHD: Tensor) -> Tensor:
    return like_BTHD.new_zeros(like_BTHD.shape[2:]) if bias_HD is None else bias_HD.to(like_BTHD.dtype)


def _settings(cell: str, like: Tensor) -> dict[str, Any]:
    D, dtype = like.shape[-1], like.dtype
    # In the interpreter, products of bfloat16 are wrong, and those of float32 always exact. On a GPU "bf16x6" makes an exact
    # float32 product of six tensor-core products: its three parts of R take fewer registers than the two of "tf32x3".
    operand = accumulator(dtype) if INTERPRETED else dtype
    exact = dtype == torch.float32 and torch.get_float32_matmul_precision() == "highest"
    return {
        "CELL": cell,
        "S": 1 if cell == "elman" else 4,
        "N": len(CELLS[cell].states),
        "D": D,
        "ROWS": EXACT_ROWS.get(D, ROWS) if exact else ROWS,
        "ACC": TYPES[accumulator(dtype)],
        "OPERAND": TYPES[operand],
        "PRECISION": "bf16x6" if exact and not INTERPRETED else "tf32",
        "num_warps": WARPS.get(D * dtype.itemsize, 4),
    }


def _by_head(tensor_BTHX: Tensor) -> Tensor:
    """(H, B T, X), a view of a contiguous (B, T, H, ...)."""
    return tensor_BTHX.flatten(3).flatten(0, 1).transpose(0, 1)


class _Rnn(torch.autograd.Function):
    @staticmethod
    def forward(
        x_BTHGD: Tensor, r_HGDE: Tensor, bias_HD: Tensor | None, initial_NBHD: Tensor, cell: str
    ) -> tuple[Tensor, Tensor, Tensor]:
        """y, the last states, and the states other than h before each step and after the last."""
        # Gates are not stored: they are four times as many numbers as h, and one product of all steps recomputes them.
        x, initial = x_BTHGD.contiguous(), initial_NBHD.contiguous()
        B, T, H, G, D = x.shape
        r_HDDS = _innermost(cell, r_HGDE, x)
        y = x.new_empty(B, T, H, D)
        bias = _shift(bias_HD, y).contiguous()
        kept = initial.new_empty(len(initial) - 1, B, T + 1, H, D)
        last = torch.empty_like(initial)
        settings = _settings(cell, y)
        grid = (H, triton.cdiv(B, settings["ROWS"]))
        with torch.cuda.device_of(x):
            rnn_forward[grid](x, r_HDDS, bias, initial, y, kept, last, B, T, H, G=G, **settings)
        return y, last, kept

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, r, bias, initial, ctx.cell = inputs
        y, _, kept = output
        ctx.save_for_backward(x, r, bias, initial[0], y, kept)
        ctx.mark_non_differentiable(kept)
        ctx.set_materialize_grads(False)

    @staticmethod
    @once
    def backward(ctx: Any, dy_BTHD: Tensor | None, dlast_NBHD: Tensor | None, _: None) -> tuple[Any, ...]:
        x, r, bias, h_BHD, y, kept = ctx.saved_tensors
        B, T, H, D = y.shape
        # h before each step, rounded to the inputs' dtype as the forward kernel did: both must multiply R with the same numbers.
        before = torch.cat([h_BHD[:, None].to(y.dtype), y[:, :-1]], 1)
        if ctx.cell == "gru":
            x = torch.cat([x, _shift(bias, y)[:, None].expand(B, T, H, 1, D)], 3)
        x, r_HDDS = x.contiguous(), _innermost(ctx.cell, r, y)
        a = torch.empty_like(x)
        torch.baddbmm(_by_head(x), _by_head(before), r_HDDS.transpose(2, 3).flatten(2), out=_by_head(a))
        # Contiguous, since the kernel computes addresses from shapes: `y.sum()` sends a gradient with strides of 0.
        dy = torch.zeros_like(y) if dy_BTHD is None else dy_BTHD.contiguous()
        shape = (len(kept) + 1, B, H, D)
        dlast = kept.new_zeros(shape) if dlast_NBHD is None else dlast_NBHD.contiguous()
        dbegun = kept.new_empty(shape)
        settings = _settings(ctx.cell, y)
        grid = (H, triton.cdiv(B, settings["ROWS"]))
        with torch.cuda.device_of(x):
            rnn_backward[grid](a, r_HDDS, before, kept, dy, dlast, dbegun, B, T, H, **settings)
        gates = [0, 1, 3] if ctx.cell == "gru" else slice(None)
        # Not in the kernel: a D x D accumulator for each gate would take all its registers.
        dr = dbias = None
        if ctx.needs_input_grad[1]:
            dr_HDSE = torch.bmm(_by_head(before).transpose(1, 2), _by_head(a)).unflatten(2, (-1, D))
            dr = dr_HDSE.transpose(1, 2)[:, gates].to(r.dtype)
        if ctx.needs_input_grad[2]:
            dbias = a[:, :, :, 3].sum((0, 1), dtype=kept.dtype).to(bias.dtype)
        dx = a[:, :, :, : r.shape[1]] if ctx.needs_input_grad[0] else None
        return dx, dr, dbias, dbegun if ctx.needs_input_grad[3] else None, None

    @staticmethod
    def vmap(info: Any, dims: Axes, *args: Any) -> VmapResult:
        return along_heads(_Rnn, info, dims, args, (2, 0, 0, 2, None), (2, 2))


def rnn(x: Tensor, r: Tensor, state: State, *, cell: str, bias: Tensor | None = None) -> tuple[Tensor, State]:
    """As distseq.kernels.rnn, with checked arguments and a state. Not the default for any shape until measured on a GPU."""
    y, last, _ = _Rnn.apply(x, r, bias, torch.stack(state), cell)
    return y, last.unbind(0)
