"""Sequence models: an entry, layers from the kernels, a head; the models of the main job among them.

Shapes: B samples, T steps, W width, V symbols, F features, O outputs.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from distseq.kernels.layers import layers_of
from distseq.kernels.linear import Linear, linear

HEADS = ("tied", "symbols", "class", "values")
IGNORED = -100  # a target that does not count


class SequenceModel(nn.Module):
    """Blocks x + layer(norm(x)), or layer(x) where not `residual`, between an entry and a head; from a zero state, without
    dropout or buffers: a sample's loss depends on that sample and the parameters.

    `layers`: such as "lstm*2" or "ssm:states=16*3,attention" (kernels/layers). Inputs are `symbols` (B, T) int64 that are
    embedded, or, with `features`, vectors (B, T, F). `head`, each with `outputs`, by default `symbols`:
      tied     logits of symbols at each step through the embedding;   targets (B, T) int64, -100 does not count
      symbols  logits at each step;                                     the same
      class    logits at the last step;                                 targets (B,) int64
      values   numbers at each step, squared error;                     targets (B, T, O)
    ValueError naming what is unknown or does not fit.
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
        # Embeddings have norm 1, for the tied head; where no norm follows, layers get them with unit root mean square.
        self.scale = 1.0 if residual or features else width**0.5
        if not features:
            nn.init.normal_(self.entry.weight, std=width**-0.5)
        self.layers = nn.ModuleList(layers_of(layers, width))
        self.norms = nn.ModuleList(nn.RMSNorm(width) for _ in range(len(self.layers) + 1 if residual else 0))
        if head == "tied":
            self.bias = nn.Parameter(torch.zeros(symbols))
        else:
            self.out = Linear(width, outputs or symbols)

    def forward(self, inputs: Tensor, state: Any = None, carry: bool = False) -> Any:
        """Outputs (B, T, O), (B, O) of a class; with `carry`, also the state to go on from, a list with one of each layer."""
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
        """Mean over a sample's steps that count, of negative log likelihoods in nats, or of squared errors: (B,)."""
        y, targets = self(batch["inputs"]), batch["targets"]
        if self.head == "values":
            return mse_loss(y, targets, reduction="none").flatten(1).mean(1)
        if self.head == "class":
            return cross_entropy(y, targets, reduction="none")
        loss_BT = cross_entropy(y.flatten(0, 1), targets.flatten(), reduction="none", ignore_index=IGNORED)
        counted_BT = targets != IGNORED
        return loss_BT.view_as(targets).sum(1) / counted_BT.sum(1).clamp_min(1)
