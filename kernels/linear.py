"""x W^T + b as a batched product, with the same bits for one model as for several together.

Shapes: M models, N rows, I inputs, E outputs.
"""

from typing import Any

import torch
from torch import Tensor, nn

from distseq.kernels.border import transformed, without_autocast
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

    # Of operations that can be differentiated again, from the inputs themselves: second derivatives are right.
    @staticmethod
    def backward(ctx: Any, g_MNE: Tensor) -> tuple[Tensor | None, ...]:
        # A gradient may come expanded, with strides of 0, as from `y.sum()`: bits must not depend on its layout.
        (x_MNI, w_MEI), g_MNE = ctx.saved_tensors, g_MNE.contiguous()
        wants_x, wants_w, wants_b = ctx.needs_input_grad
        with without_autocast(g_MNE):
            dx = torch.bmm(g_MNE, w_MEI) if wants_x else None
            dw = torch.bmm(g_MNE.mT, x_MNI) if wants_w else None
            return dx, dw, g_MNE.sum(1) if wants_b else None

    @staticmethod
    def vmap(info: Any, dims: Axes, *args: Any) -> VmapResult:
        return along_heads(_Linear, info, dims, args, (0, 0, 0), (0,))


def linear(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """(..., E) for x (..., I), w (E, I) and b (E,), like torch.nn.functional.linear, also under autocast.

    >>> linear(torch.ones(2, 3), torch.ones(4, 3)).shape
    torch.Size([2, 4])
    """
    # torch's own where a graph is traced, and in forward mode, which _Linear has none of.
    if torch.compiler.is_compiling() or transformed():
        return torch.nn.functional.linear(x, w, b)
    if torch.is_autocast_enabled(x.device.type):
        # As torch does with its own linear; cast here, since autocast is not seen by the backward pass of _Linear.
        half = torch.get_autocast_dtype(x.device.type)
        # float64 is left alone, as torch leaves it.
        x, w = (each if each.dtype == torch.float64 else each.to(half) for each in (x, w))
        b = None if b is None else b.to(w.dtype)
        with without_autocast(x):
            return _linear(x, w, b)
    return _linear(x, w, b)


def _linear(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    y: Tensor = _Linear.apply(x.reshape(1, -1, x.shape[-1]), w[None], None if b is None else b[None])
    return y.view(*x.shape[:-1], len(w))


class Linear(nn.Linear):
    """torch.nn.Linear, computed by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)
