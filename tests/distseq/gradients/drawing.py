"""Learners that draw random numbers, and the plain loop that each run of theirs must agree with."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F

import distseq
from distseq.gradients.randomness import block_seeds
from distseq.models.data.dataset import Dataset

BATCH, STEPS, FEATURES, LENGTH = 20, 5, 6, 4
LATE = 4321  # the sample that makes the late ones draw; no trial sees it


class Samples(Dataset):
    """Sequences (B, LENGTH, FEATURES) and the ids of their samples; `augment` draws noise for them."""

    fingerprint = "samples"

    def __init__(self, augment: Callable[[int], Any] | None = None) -> None:
        self.x = torch.randn(5000, LENGTH, FEATURES, generator=torch.Generator().manual_seed(5))
        self.augment = augment

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, ids: np.ndarray) -> Any:
        x = self.x[ids]
        if self.augment is not None:
            x = x * torch.stack([torch.as_tensor(self.augment(int(k)), dtype=x.dtype) for k in ids])[:, None, None]
        return {"x": x, "id": torch.from_numpy(ids)}


class Net(nn.Module):
    """Two layers; `middle` is what draws."""

    def __init__(self, middle: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(FEATURES, 8), nn.Linear(8, 1)
        self.middle = middle
        self.to(dtype)

    def per_sample_loss(self, batch: dict[str, Tensor]) -> Tensor:
        x = batch["x"].to(self.head.weight.dtype)
        h = torch.tanh(self.body(x))
        h = self.middle(h, batch["id"]) if not isinstance(self.middle, nn.Module) else self.middle(h)
        return (self.head(h).squeeze(2) - x.sum(2)).square().mean(1)


class Rnn(nn.Module):
    """torch's own dropout between its layers, or None: its output time-major through F.dropout."""

    def __init__(self, between: bool) -> None:
        super().__init__()
        self.rnn, self.between = nn.LSTM(8, 8, 2, dropout=0.4 if between else 0.0), between

    def forward(self, h: Tensor) -> Tensor:
        out = self.rnn(h.transpose(0, 1))[0]
        return (out if self.between else F.dropout(out, 0.4)).transpose(0, 1)


class Attention(nn.Module):
    """Dropout inside of torch's attention."""

    def forward(self, h: Tensor) -> Tensor:
        out = F.scaled_dot_product_attention(h[:, None], h[:, None], h[:, None], dropout_p=0.3, is_causal=True)
        return out[:, 0]


def sorted_dropout(h: Tensor, ids: Tensor) -> Tensor:
    order = ids.argsort()
    return F.dropout(h[order], 0.4)[order.argsort()]


def late(draw: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    def middle(h: Tensor, ids: Tensor) -> Tensor:
        return torch.where((ids == LATE)[:, None, None], draw(h), h) if bool((ids == LATE).any()) else h

    return middle


def dropout(h: Tensor, ids: Tensor) -> Tensor:
    return F.dropout(F.alpha_dropout(h, 0.2, True), 0.4)


def noise(h: Tensor, ids: Tensor) -> Tensor:
    return h + 0.5 * torch.randn(h.shape, dtype=h.dtype)


JOINT: dict[str, Any] = {"dropout": dropout, "attention": Attention(), "module": nn.Dropout1d(0.3)}
ALONE: dict[str, Any] = {
    "noise": noise,
    "numpy": lambda h, ids: h * torch.from_numpy(np.random.normal(1, 0.5, h.shape)).to(h.dtype),
    "python": lambda h, ids: h * random.gauss(1, 0.5),
    "all": lambda h, ids: h * (random.random() + np.random.rand() + float(torch.rand(()))),
    "between": Rnn(True),
    "time-major": Rnn(False),
    "sorted": sorted_dropout,
    "flat": lambda h, ids: F.dropout(h.reshape(-1, 8), 0.4).view_as(h),
    "shared": lambda h, ids: h * F.dropout(torch.ones(BATCH, 8), 0.4)[0],  # of the batch's size by chance
    "seeding": lambda h, ids: h * (torch.manual_seed(3), torch.rand(h.shape))[1],
}


def model(middle: Any, dtype: torch.dtype = torch.float32) -> Net:
    torch.manual_seed(3)
    made = Net(middle, dtype)
    # The parts of a module are shared between tests: their weights are drawn again.
    for each in made.modules():
        if isinstance(each, nn.LSTM):
            each.reset_parameters()
    return made.to(dtype)


def ids_of(step: int) -> np.ndarray:
    """Samples of a step; one of step 3 makes the late ones draw."""
    ids = np.random.default_rng([7, step]).integers(0, LATE, BATCH)
    ids[BATCH // 2] = LATE if step == 3 else ids[BATCH // 2]
    return ids


def learner(middle: Any, name: str = "a", data: Dataset | None = None, **more: Any) -> distseq.Learner:
    dtype = more.pop("dtype", torch.float32)
    made, chosen = model(middle, dtype), {"batch": BATCH, "steps": STEPS, "sampler": ids_of, "seed": 11, **more}
    optimizer = torch.optim.Adam(made.parameters(), 0.05)
    return distseq.Learner(name, made, optimizer, data=data or Samples(), **chosen)


def train(*learners: distseq.Learner, out: Path, **options: Any) -> distseq.Result:
    chosen = {"pool": "simulated", "workers": 4, "console": Console(quiet=True), **options}
    if chosen["pool"] == "simulated":
        chosen.setdefault("compute", "rows")
    if chosen.get("scheduler") is None:
        chosen.setdefault("scheme", "uncoded")
    return distseq.train(list(learners), out=out, **chosen)


def plain(
    middle: Any, blocks: Callable[[int], int], data: Dataset | None = None, dtype: torch.dtype = torch.float32
) -> nn.Module:
    """What a user would write in torch alone; `blocks`: step -> number of blocks, 0 for a batch that is not cut."""
    made, samples = model(middle, dtype), data or Samples()
    optimizer = torch.optim.Adam(made.parameters(), 0.05)
    for step in range(STEPS):
        optimizer.zero_grad()
        cut = blocks(step)
        for block, seed in zip(np.array_split(ids_of(step), cut or 1), block_seeds(11, step, cut or 1), strict=True):
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)
            made.per_sample_loss(samples.batch(block)).sum().backward()
        for parameter in made.parameters():
            parameter.grad /= BATCH
        optimizer.step()
    return made


def close(one: nn.Module, other: nn.Module, tolerance: float = 2e-5) -> None:
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance / 10)


def bits(module: nn.Module) -> list[bytes]:
    return [p.detach().numpy().tobytes() for p in module.parameters()]
