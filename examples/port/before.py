"""Trains a network that tells on which side of zero a random walk is; `python FILE STEPS WEIGHTS.pt`."""

import sys

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import TensorDataset


class Side(nn.Module):
    def __init__(self, hidden: int = 32) -> None:
        super().__init__()
        self.rnn = nn.GRU(1, hidden, batch_first=True)
        self.head = nn.Linear(hidden, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(self.rnn(x)[0])
        return scores


def walks(count: int = 512, length: int = 20) -> TensorDataset:
    steps = torch.randn(count, length, 1, generator=torch.Generator().manual_seed(1))
    return TensorDataset(steps, (steps.cumsum(1).squeeze(2) > 0).long())


def ids(step: int) -> np.ndarray:
    return np.random.default_rng([0, step]).integers(0, 512, 64)


def loss_of(model: nn.Module, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
    x, y = batch
    losses = cross_entropy(model(x).transpose(1, 2), y, reduction="none")
    return losses.mean()


def main(steps: int, out: str) -> None:
    torch.manual_seed(0)
    data, model = walks(), Side()
    groups = [
        {"params": [p for name, p in model.named_parameters() if "weight" in name]},
        {"params": [p for name, p in model.named_parameters() if "bias" in name], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.01, weight_decay=0.1)
    cosine = CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        loss = loss_of(model, data[ids(step)])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        cosine.step()
    torch.save(model.state_dict(), out)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
