"""Configurable sequence models: an embedding or projection, layers from the kernels, and a head.

Shapes: B samples, T steps, W width, V symbols, F features, O outputs.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from distseq.kernels.layers import layers_of
from distseq.kernels.layers.layer import EPSILON
from distseq.kernels.linear import Linear, linear

HEADS = ("tied", "symbols", "class", "values")
IGNORED = -100  # a target that is left out of the loss, torch's default for ignore_index


class SequenceModel(nn.Module):
    """Layers between an entry and a head. Each is x + layer(norm(x)) if `residual`, else layer(x).

    There is no dropout and no buffer, and the initial state is zero, so a sample's loss depends on that sample and the
    parameters alone. `layers` is a description such as "lstm*2" or "ssm:states=16*3,attention" (distseq.kernels.layers). Inputs
    are symbols (B, T) int64 below `symbols`, which are embedded, or, with `features`, vectors (B, T, F). `head`, of `outputs`
    numbers, by default as many as `symbols`:
      tied     logits at each step, by the embedding's weights;   targets (B, T) int64, -100 is ignored
      symbols  logits at each step;                               targets (B, T) int64, -100 is ignored
      class    logits at the last step;                           targets (B,) int64
      values   numbers at each step, with squared error;          targets (B, T, O)
    ValueError naming the argument that is unknown or does not fit.
    """

    def __init__(
        self,
        symbols: int = 97,
        width: int = 128,
        layers: str = "lstm",
        head: str = "tied",
        features: int = 0,
        outputs: int = 0,
        residual: bool = False,
    ) -> None:
        super().__init__()
        # "false" is true in Python.
        if not isinstance(residual, bool):
            raise ValueError(f"SequenceModel: residual must be true or false: got {residual!r}")
        for name, size in {"symbols": symbols, "width": width, "features": features, "outputs": outputs}.items():
            if type(size) is not int:
                raise ValueError(f"SequenceModel: {name} must be a whole number: got {size!r}")
        if min(symbols, width) < 1 or min(features, outputs) < 0:
            raise ValueError(
                f"SequenceModel needs sizes >= 1: got symbols={symbols}, width={width}, features={features}, outputs={outputs}"
            )
        if head not in HEADS:
            raise ValueError(f"SequenceModel: head must be one of {', '.join(HEADS)}: got {head!r}")
        if head == "tied" and (features or outputs):
            raise ValueError(f"SequenceModel: a tied head needs symbols: got features={features}, outputs={outputs}")
        self.head, self.residual = head, residual
        self.entry = Linear(features, width) if features else nn.Embedding(symbols, width)
        # Embeddings have norm 1, so that the logits of a tied head start small. Layers without a norm before them get them scaled
        # to unit root mean square, or their gates would hardly move.
        self.scale = 1.0 if residual or features else width**0.5
        if not features:
            nn.init.normal_(self.entry.weight, std=width**-0.5)
        self.layers = nn.ModuleList(layers_of(layers, width))
        self.norms = nn.ModuleList(
            nn.RMSNorm(width, eps=EPSILON) for _ in range(len(self.layers) + 1 if residual else 0)
        )
        if head == "tied":
            self.bias = nn.Parameter(torch.zeros(symbols))
        else:
            self.out = Linear(width, outputs or symbols)

    def forward(self, inputs: Tensor, state: Any = None, carry: bool = False) -> Any:
        """Outputs (B, T, O), or (B, O) for head "class". With `carry`, also the state to continue from, a list over layers."""
        x_BTW, after = self.entry(inputs) * self.scale, []
        for at, layer in enumerate(self.layers):
            y_BTW, left = layer(
                self.norms[at](x_BTW) if self.residual else x_BTW, None if state is None else state[at], carry
            )
            x_BTW = x_BTW + y_BTW if self.residual else y_BTW
            after.append(left)
        if self.head == "class":
            x_BTW = x_BTW[:, -1]
        if self.residual:
            x_BTW = self.norms[-1](x_BTW)
        y = linear(x_BTW, self.entry.weight, self.bias) if self.head == "tied" else self.out(x_BTW)
        return (y, after) if carry else y

    def per_sample_loss(self, batch: dict[str, Tensor]) -> Tensor:
        """(B,): the mean over a sample's steps of the negative log likelihood in nats, or of the squared error."""
        y, targets = self(batch["inputs"]), batch["targets"]
        if self.head == "values":
            return mse_loss(y, targets, reduction="none").flatten(1).mean(1)
        if self.head == "class":
            return cross_entropy(y, targets, reduction="none")
        loss_BT = cross_entropy(y.flatten(0, 1), targets.flatten(), reduction="none", ignore_index=IGNORED)
        counted_BT = targets != IGNORED
        # A sample without a target has loss 0, not 0 / 0: one NaN would reach every parameter.
        return loss_BT.view_as(targets).sum(1) / counted_BT.sum(1).clamp_min(1)
