"""The selective scan, which stores states between chunks only and recomputes the others.

Shapes: B batch, T time, L steps of a chunk, D channels, N states. Time comes first and D last, so that a step is contiguous.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from distseq.kernels.backend import accumulator
from distseq.kernels.border import once
from distseq.kernels.stacking import Axes, VmapResult, one_by_one

# Steps of a chunk: longer chunks do not fit into the cache, shorter ones store more states between chunks.
STEPS = 16


def selective_scan(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    u_BTD, dt_BTD, A_DN, B_BTN, C_BTN, D_D = (each.to(accumulator(each.dtype)) for each in (u, dt, A, B, C, D))
    y_BTD, after, _ = _Selective.apply(dt_BTD * u_BTD, dt_BTD, A_DN, B_BTN, C_BTN, state)
    return torch.addcmul(y_BTD, u_BTD, D_D).to(u.dtype), after


class _Selective(torch.autograd.Function):
    """h_t = exp(dt_t A) h_{t-1} + x_t B_t, y_t = C_t h_t. Backward: lam_t = g_t C_t + exp(dt_{t+1} A) lam_{t+1}."""

    @staticmethod
    def forward(
        x_BTD: Tensor, dt_BTD: Tensor, A_DN: Tensor, B_BTN: Tensor, C_BTN: Tensor, state_BDN: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        x_TB1D, dt_TB1D, A_ND, B_TBN1, C_TBN1 = _timed(x_BTD, dt_BTD, A_DN, B_BTN, C_BTN)
        parts = _parts(len(x_TB1D))
        initial_CBND = x_BTD.new_empty(len(parts) + 1, len(state_BDN), *A_ND.shape)
        initial_CBND[0] = state_BDN.transpose(1, 2)
        y_TB1D = torch.empty_like(x_TB1D)
        # Of one chunk, and used again by all: (T, B, N, D) would be N times the input.
        decay_LBND, h_LBND = (x_BTD.new_empty(parts[0].stop, *initial_CBND.shape[1:]) for _ in range(2))
        for at, part in enumerate(parts):
            decay, h = decay_LBND[: part.stop - part.start], h_LBND[: part.stop - part.start]
            _states(dt_TB1D[part], x_TB1D[part], A_ND, B_TBN1[part], initial_CBND[at], decay, h)
            y_TB1D[part] = C_TBN1[part].mT @ h
            initial_CBND[at + 1] = h[-1]
        return y_TB1D[:, :, 0].transpose(0, 1), initial_CBND[-1].transpose(1, 2).contiguous(), initial_CBND

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(output[2])
        ctx.save_for_backward(*inputs, output[2])
        ctx.set_materialize_grads(False)

    @staticmethod
    @once
    def backward(ctx: Any, g_BTD: Tensor | None, g_after: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        x_BTD, dt_BTD, A_DN, B_BTN, C_BTN, _, initial_CBND = ctx.saved_tensors
        x_TB1D, dt_TB1D, A_ND, B_TBN1, C_TBN1 = _timed(x_BTD, dt_BTD, A_DN, B_BTN, C_BTN)
        g_TB1D = (torch.zeros_like(x_BTD) if g_BTD is None else g_BTD).transpose(0, 1)[:, :, None].contiguous()
        d_x, d_dt, d_A, d_B, d_C = (torch.empty_like(each) for each in (x_TB1D, dt_TB1D, A_ND, B_TBN1, C_TBN1))
        d_A.zero_()
        parts = _parts(len(x_TB1D))
        # The gradient that passes from the states after a chunk to those before it.
        carry_BND = torch.zeros_like(initial_CBND[0]) if g_after is None else g_after.transpose(1, 2)
        decay_LBND, h_LBND, lam_LBND = (x_BTD.new_empty(parts[0].stop, *initial_CBND.shape[1:]) for _ in range(3))
        for at, part in reversed(list(enumerate(parts))):
            decay, h, lam = (each[: part.stop - part.start] for each in (decay_LBND, h_LBND, lam_LBND))
            # Computed once more from the state before the chunk: a second forward pass costs less than storing N times the input.
            _states(dt_TB1D[part], x_TB1D[part], A_ND, B_TBN1[part], initial_CBND[at], decay, h)
            torch.mul(g_TB1D[part], C_TBN1[part], out=lam)
            lam[-1] += carry_BND
            decays, lams = decay.unbind(), lam.unbind()
            for step in range(len(lams) - 2, -1, -1):
                lams[step].addcmul_(decays[step + 1], lams[step + 1])
            carry_BND = decay[0] * lam[0]
            d_x[part] = B_TBN1[part].mT @ lam
            d_B[part] = lam @ x_TB1D[part].mT
            d_C[part] = h @ g_TB1D[part].mT
            # The gradient of dt_t A, which takes the place of the decay: a buffer less of the largest size.
            decay[0].mul_(initial_CBND[at])
            decay[1:].mul_(h[:-1])
            decay.mul_(lam)
            torch.sum(torch.mul(decay, A_ND, out=h), 2, keepdim=True, out=d_dt[part])
            d_A += torch.mul(decay, dt_TB1D[part], out=h).sum((0, 1))
        wanted = (
            d_x[:, :, 0].transpose(0, 1),
            d_dt[:, :, 0].transpose(0, 1),
            d_A.T,
            d_B[..., 0].transpose(0, 1),
            d_C[..., 0].transpose(0, 1),
            carry_BND.transpose(1, 2),
        )
        return tuple(each if need else None for each, need in zip(wanted, ctx.needs_input_grad, strict=True))

    @staticmethod
    def vmap(info: Any, dims: Axes, *args: Any) -> VmapResult:
        # The channels of a model share its B and C, so that models cannot be stacked along the channels.
        return one_by_one(_Selective, info, dims, args, 2)


def _timed(x_BTD: Tensor, dt_BTD: Tensor, A_DN: Tensor, B_BTN: Tensor, C_BTN: Tensor) -> Iterator[Tensor]:
    """(T, B, 1, D) twice, (N, D), (T, B, N, 1) twice."""
    yield from (each.transpose(0, 1)[:, :, None].contiguous() for each in (x_BTD, dt_BTD))
    yield A_DN.T.contiguous()
    yield from (each.transpose(0, 1)[..., None].contiguous() for each in (B_BTN, C_BTN))


# The first chunk is the longest, which sizes the buffers that all of them share.
def _parts(T: int) -> list[slice]:
    return [slice(begin, min(begin + STEPS, T)) for begin in range(0, T, STEPS)]


def _states(
    dt_LB1D: Tensor, x_LB1D: Tensor, A_ND: Tensor, B_LBN1: Tensor, h_BND: Tensor, decay: Tensor, out: Tensor
) -> None:
    """Write the decays and states (L, B, N, D) of a chunk that starts from h."""
    torch.mul(dt_LB1D, A_ND, out=decay).exp_()
    torch.mul(x_LB1D, B_LBN1, out=out)
    for decay_BND, h_next in zip(decay.unbind(), out.unbind(), strict=True):
        h_BND = h_next.addcmul_(decay_BND, h_BND)
