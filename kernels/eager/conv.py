"""Causal depthwise convolutions with hand-written backward: shifted sums for few taps, FFT for many.

Shapes: B batch, T time, D channels, L taps, S = T + reach inputs including earlier ones, F frequencies of n points.
"""

from typing import Any

import torch
from torch import Tensor

from distseq.kernels.border import once
from distseq.kernels.stacking import Axes, VmapResult, along_heads


def short_conv(x: Tensor, w: Tensor, state: Tensor, *, dilation: int = 1) -> tuple[Tensor, Tensor]:
    x_BSD = torch.cat([state, x.to(state.dtype)], 1)
    y, _ = _Shifted.apply(x_BSD, w.to(x_BSD.dtype), dilation)
    # The last inputs, also if the sequence is shorter than the reach of the taps: then older ones stay.
    return y.to(x.dtype), x_BSD[:, x.shape[1] :]


def fft_conv(x: Tensor, k: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    x_BSD = torch.cat([state, x.to(state.dtype)], 1)
    y, *_ = _Spectral.apply(x_BSD, k.to(x_BSD.dtype))
    return y.to(x.dtype), x_BSD[:, x.shape[1] :]


class _Shifted(torch.autograd.Function):
    """One multiply-add over the whole sequence for each tap."""

    # Faster than conv1d with groups, which transposes its input to (B, D, T). One thread, (8, 512, 256), float32, two runs: 3.9
    # and 2.3 times at 4 taps, 2.1 and 1.9 at 16, 1.3 and 1.3 at 128.
    @staticmethod
    def forward(x_BSD: Tensor, w_DL: Tensor, dilation: int) -> tuple[Tensor, Tensor]:
        # Taps first: the weights of one tap, over all channels, are then contiguous like the channels of a step.
        w_LD = w_DL.T.contiguous()
        T = x_BSD.shape[1] - (len(w_LD) - 1) * dilation
        y_BTD = x_BSD[:, :T] * w_LD[0]
        for tap, w_D in enumerate(w_LD[1:].unbind(), 1):
            y_BTD.addcmul_(x_BSD[:, tap * dilation : tap * dilation + T], w_D)
        return y_BTD, w_LD

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x_BSD, w_DL, ctx.dilation = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(x_BSD, output[1], w_DL)

    @staticmethod
    @once
    def backward(ctx: Any, g_BTD: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x_BSD, w_LD, _ = ctx.saved_tensors
        g_BTD, T = g_BTD.contiguous(), g_BTD.shape[1]
        taps = [slice(tap * ctx.dilation, tap * ctx.dilation + T) for tap in range(len(w_LD))]
        # A frozen reservoir or the first layer of a model needs only one of the two.
        d_x = d_w = None
        if ctx.needs_input_grad[0]:
            d_x = torch.zeros_like(x_BSD)
            for tap, w_D in zip(taps, w_LD.unbind(), strict=True):
                d_x[:, tap].addcmul_(g_BTD, w_D)
        if ctx.needs_input_grad[1]:
            # One buffer for all taps, instead of a new tensor of the sequence's size for each.
            product = torch.empty_like(x_BSD[:, :T])
            d_w = torch.stack([torch.mul(g_BTD, x_BSD[:, tap], out=product).sum((0, 1)) for tap in taps], 1)
        return d_x, d_w, None

    @staticmethod
    def vmap(info: Any, dims: Axes, *args: Any) -> VmapResult:
        return along_heads(_Shifted, info, dims, args, (2, 0, None), (2,))


class _Spectral(torch.autograd.Function):
    """A product of spectra of n >= S points."""

    # n = S is enough, though a convolution without wrap-around has S + L - 1 points: what wraps falls on the first L - 1 outputs,
    # which belong to the state and are cut off, and in backward on points that no gradient is taken from.
    @staticmethod
    def forward(x_BSD: Tensor, k_DL: Tensor) -> tuple[Tensor, ...]:
        n = points(x_BSD.shape[1])
        x_BFD, k_FD = torch.fft.rfft(x_BSD, n, 1), torch.fft.rfft(k_DL.T.contiguous(), n, 0)
        y_BTD = torch.fft.irfft(x_BFD * k_FD, n, 1)[:, k_DL.shape[1] - 1 : x_BSD.shape[1]].contiguous()
        # The last output is empty, but differentiable: by it a second derivative finds its way here without y being kept
        # (distseq.kernels.border.once).
        return y_BTD, x_BFD, k_FD, y_BTD.new_empty(0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.taps, ctx.n = inputs[1].shape[1], points(inputs[0].shape[1])
        ctx.mark_non_differentiable(*output[1:3])
        ctx.save_for_backward(*output[1:])
        # No zeros of the size of the spectra for outputs that have no gradient.
        ctx.set_materialize_grads(False)

    @staticmethod
    @once
    def backward(ctx: Any, g_BTD: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if g_BTD is None:
            return None, None
        (x_BFD, k_FD, _), n, before, T = ctx.saved_tensors, ctx.n, ctx.taps - 1, g_BTD.shape[1]
        g_BFD = torch.fft.rfft(g_BTD, n, 1)
        d_x = d_k = None
        if ctx.needs_input_grad[1]:
            # Lag j of the correlation of x with g is tap L - 1 - j.
            lags_LD = torch.fft.irfft((g_BFD.conj() * x_BFD).sum(0), n, 0)[: ctx.taps]
            d_k = lags_LD.flip(0).T
        if ctx.needs_input_grad[0]:
            lags_BnD = torch.fft.irfft(g_BFD.mul_(k_FD.conj()), n, 1)
            d_x = torch.cat([lags_BnD[:, n - before :], lags_BnD[:, :T]], 1)
        return d_x, d_k

    @staticmethod
    def vmap(info: Any, dims: Axes, *args: Any) -> VmapResult:
        return along_heads(_Spectral, info, dims, args, (2, 0), (2,))


def points(least: int) -> int:
    """The smallest 2^i or 3 * 2^i that is at least `least`: lengths at which FFTs are fast."""
    # With powers of two alone, a sequence just beyond one would cost twice as much.
    power = 1 << (least - 1).bit_length()
    return power * 3 // 4 if least <= power * 3 // 4 else power
