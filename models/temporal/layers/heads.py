"""What is predicted from embeddings: whether there is a link, or a class of the source node.

Shapes: Q queries, C candidates, W width.
"""

import torch
from torch import Tensor, nn

from distseq.kernels.linear import Linear, linear


class LinkHead(nn.Module):
    """logit = w relu(W [h_src | h_dst] + b) + c, with W's halves applied apart: many candidates share one source."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter, self.out = Linear(2 * width, width), Linear(width, 1)
        nn.init.xavier_normal_(self.enter.weight)
        nn.init.xavier_normal_(self.out.weight)

    def halves(self, source: Tensor, destination: Tensor) -> tuple[Tensor, Tensor]:
        """W_src h + b and W_dst h, each (..., W)."""
        first, second = self.enter.weight.split(source.shape[-1], 1)
        return linear(source, first, self.enter.bias), linear(destination, second)

    def logit(self, source: Tensor, destination: Tensor, kept: Tensor | None = None) -> Tensor:
        """(...) from the two halves; `kept` are factors of dropout on the hidden layer."""
        hidden = torch.relu(source + destination)
        return self.out(hidden if kept is None else hidden * kept).squeeze(-1)


class ClassHead(nn.Module):
    """Logits (Q, classes) = W_2 relu(W_1 h)."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.enter, self.out = Linear(width, width), Linear(width, classes)
        nn.init.xavier_normal_(self.enter.weight)
        nn.init.xavier_normal_(self.out.weight)

    def forward(self, h: Tensor, kept: Tensor | None = None) -> Tensor:
        hidden = torch.relu(self.enter(h))
        return self.out(hidden if kept is None else hidden * kept)
