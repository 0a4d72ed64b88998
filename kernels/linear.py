"""x W^T + b as one batched product, so that a model has the same bits alone and beside others.

Shapes: M models, N rows, I inputs, E outputs.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from distseq.kernels.stacking import Axes, Found, along_heads


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(x_MNI: Tensor, w_MEI: Tensor, b_ME: Tensor | None) -> Tensor:
        return torch.bmm(x_MNI, w_MEI.mT) if b_ME is None else torch.baddbmm(b_ME[:, None], x_MNI, w_MEI.mT)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_MNE: Tensor) -> tuple[Tensor | None, ...]:
        (x_MNI, w_MEI), g_MNE = ctx.saved_tensors, g_MNE.contiguous()
        wants_x, wants_w, wants_b = ctx.needs_input_grad
        dx = torch.bmm(g_MNE, w_MEI) if wants_x else None
        dw = torch.bmm(g_MNE.mT, x_MNI) if wants_w else None
        return dx, dw, g_MNE.sum(1) if wants_b else None

    @staticmethod
    def vmap(info: Any, dims: Axes, *args: Any) -> Found:
        return along_heads(_Linear, info, dims, args, (0, 0, 0), (0,))


def linear(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """x (..., I) with w (E, I) and b (E,), as torch.nn.functional.linear: (..., E). Not differentiable twice."""
    y: Tensor = _Linear.apply(x.reshape(1, -1, x.shape[-1]), w[None], None if b is None else b[None])
    return y.view(*x.shape[:-1], len(w))


class Linear(nn.Linear):
    """torch.nn.Linear by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)
