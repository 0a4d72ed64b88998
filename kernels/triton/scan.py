"""The diagonal linear recurrence: one program per sample and block of channels steps through time.

Shapes: B batch, T time, D channels (all axes after T as one). Strides are passed on, so that an expanded `a` is not copied.
Not the default for any shape until it is measured on a GPU.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from distseq.kernels.backend import accumulator
from distseq.kernels.border import once
from distseq.kernels.stacking import Axes, VmapResult, along_heads

# Channels and warps of a program, and steps loaded ahead of the one computed. Small blocks make many programs, and loads ahead
# hide the latency of memory, which dominates a step of one multiply-add. Not tuned on a GPU yet.
BLOCK, WARPS, STAGES = 64, 1, 8
ACC = {torch.float32: tl.float32, torch.float64: tl.float64}


@triton.jit
def _scan_forward(
    a, x, state, h, after, T, D, a_b, a_t, a_d, x_b, x_t, x_d,
    BLOCK: tl.constexpr, STAGES: tl.constexpr, REVERSE: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    b, d = (tl.program_id(0) // tl.cdiv(D, BLOCK)).to(tl.int64), tl.program_id(0) % tl.cdiv(D, BLOCK) * BLOCK
    d = d + tl.arange(0, BLOCK)
    inside = d < D
    a, x, h = a + b * a_b + d * a_d, x + b * x_b + d * x_d, h + b * T * D + d
    h_D = tl.load(state + b * D + d, mask=inside, other=0).to(ACC)
    for step in tl.range(0, T, num_stages=STAGES):
        t = T - 1 - step if REVERSE else step
        a_D = tl.load(a + t * a_t, mask=inside, other=0).to(ACC)
        h_D = a_D * h_D + tl.load(x + t * x_t, mask=inside, other=0).to(ACC)
        tl.store(h + t * D, h_D, mask=inside)
    tl.store(after + b * D + d, h_D, mask=inside)


@triton.jit
def _scan_backward(
    a, h, state, dh, dafter, da, dx, dstate, T, D, a_b, a_t, a_d, dh_b, dh_t, dh_d,
    BLOCK: tl.constexpr, STAGES: tl.constexpr, REVERSE: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """The same recurrence from the other end: dx_t = l_t = dh_t + a_{t+1} l_{t+1}, and da_t = l_t h_{t-1}."""
    b, d = (tl.program_id(0) // tl.cdiv(D, BLOCK)).to(tl.int64), tl.program_id(0) % tl.cdiv(D, BLOCK) * BLOCK
    d = d + tl.arange(0, BLOCK)
    inside = d < D
    a, dh = a + b * a_b + d * a_d, dh + b * dh_b + d * dh_d
    h, dx, da = h + b * T * D + d, dx + b * T * D + d, da + b * T * D + d
    initial_D = tl.load(state + b * D + d, mask=inside, other=0).to(ACC)
    carry_D = tl.load(dafter + b * D + d, mask=inside, other=0).to(ACC)
    for step in tl.range(0, T, num_stages=STAGES):
        t = step if REVERSE else T - 1 - step
        before = t + 1 if REVERSE else t - 1
        # The first step of the scan has no step before it: it read the initial state.
        kept = inside & (step < T - 1)
        h_D = tl.load(h + before * D, mask=kept, other=0).to(ACC)
        h_D = tl.where(kept, h_D, initial_D)
        carry_D += tl.load(dh + t * dh_t, mask=inside, other=0).to(ACC)
        tl.store(dx + t * D, carry_D, mask=inside)
        tl.store(da + t * D, carry_D * h_D, mask=inside)
        carry_D *= tl.load(a + t * a_t, mask=inside, other=0).to(ACC)
    tl.store(dstate + b * D + d, carry_D, mask=inside)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(a: Tensor, x: Tensor, state: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
        B, T, D = x.shape
        h, after, acc = x.new_empty(B, T, D), torch.empty_like(state), ACC[accumulator(x.dtype)]
        with torch.cuda.device_of(x):
            _scan_forward[(B * triton.cdiv(D, BLOCK),)](
                a, x, state, h, after, T, D, *a.stride(), *x.stride(), BLOCK, STAGES, reverse, acc, num_warps=WARPS
            )
        return h, after

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        a, _, state, ctx.reverse = inputs
        ctx.save_for_backward(a, state, output[0])

    @staticmethod
    @once
    def backward(ctx: Any, dh: Tensor, dafter: Tensor) -> tuple[Tensor | None, ...]:
        a, state, h = ctx.saved_tensors
        B, T, D = h.shape
        da, dx, dstate = h.new_empty(h.shape, dtype=a.dtype), torch.empty_like(h), torch.empty_like(state)
        with torch.cuda.device_of(h):
            _scan_backward[(B * triton.cdiv(D, BLOCK),)](
                a, h, state, dh, dafter.contiguous(), da, dx, dstate, T, D, *a.stride(), *dh.stride(),
                BLOCK, STAGES, ctx.reverse, ACC[accumulator(h.dtype)], num_warps=WARPS,
            )  # fmt: skip
        return da, dx, dstate, None

    @staticmethod
    def vmap(info: Any, dims: Axes, *args: Any) -> VmapResult:
        return along_heads(_Scan, info, dims, args, (2, 2, 1, None), (2, 1))


def scan(a: Tensor, x: Tensor, state: Tensor, *, reverse: bool = False) -> tuple[Tensor, Tensor]:
    """As distseq.kernels.reference.scan, of real numbers."""
    # All channels as one axis: programs take blocks of it, whatever axes it is made of.
    shape = x.shape
    flat_BTD = (*shape[:2], shape[2:].numel())
    h, after = _Scan.apply(
        a.expand(shape).reshape(flat_BTD), x.reshape(flat_BTD), state.flatten(1).contiguous(), reverse
    )
    return h.view(shape), after.view(state.shape)
