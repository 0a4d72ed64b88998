"""x W^T + b as a batched product, with the same bits for one model as for several together.

Shapes: M models, N rows, I inputs, E outputs.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from distseq.kernels.stacking import Axes, VmapResult, along_heads


class _Linear(torch.autograd.Function):
    # Batched also for one model: a library may split the sums of mm and bmm differently, and a model that is stacked with others
    # must have the bits that it has alone, because replicas must agree whoever computes them (docs/decisions/017).
    @staticmethod
    def forward(x_MNI: Tensor, w_MEI: Tensor, b_ME: Tensor | None) -> Tensor:
        return torch.bmm(x_MNI, w_MEI.mT) if b_ME is None else torch.baddbmm(b_ME[:, None], x_MNI, w_MEI.mT)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    # Once: a second derivative through views of saved tensors would be silently incomplete.
    @once_differentiable
    def backward(ctx: Any, g_MNE: Tensor) -> tuple[Tensor | None, ...]:
        # A gradient may come expanded, with strides of 0, as from `y.sum()`: bits must not depend on its layout.
        (x_MNI, w_MEI), g_MNE = ctx.saved_tensors, g_MNE.contiguous()
        wants_x, wants_w, wants_b = ctx.needs_input_grad
        dx = torch.bmm(g_MNE, w_MEI) if wants_x else None
        dw = torch.bmm(g_MNE.mT, x_MNI) if wants_w else None
        return dx, dw, g_MNE.sum(1) if wants_b else None

    @staticmethod
    def vmap(info: Any, dims: Axes, *args: Any) -> VmapResult:
        return along_heads(_Linear, info, dims, args, (0, 0, 0), (0,))


def linear(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """(..., E) for x (..., I), w (E, I) and b (E,), like torch.nn.functional.linear. Not differentiable twice."""
    y: Tensor = _Linear.apply(x.reshape(1, -1, x.shape[-1]), w[None], None if b is None else b[None])
    return y.view(*x.shape[:-1], len(w))


class Linear(nn.Linear):
    """torch.nn.Linear, computed by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)
