"""Small models, made from a world's description: what users put together, and what cannot be trained here.

Shapes: B samples, T steps, F features, W width. Blocks map (B, T, W) to (B, T, W).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from distseq.kernels.layers import LAYERS

WIDTH, FEATURES, SYMBOLS, OUTPUTS = 8, 3, 11, 2


class Act(nn.Module):
    """A module between two activations, and a skip connection: gradients neither vanish nor explode."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, h: Tensor) -> Tensor:
        y = self.inner(torch.tanh(h))
        return h + 0.5 * (y[0] if isinstance(y, tuple) else y)


class Conv(nn.Conv1d):
    def __init__(self) -> None:
        super().__init__(WIDTH, WIDTH, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        return super().forward(h.mT).mT


class Grouped(nn.GroupNorm):
    def __init__(self) -> None:
        super().__init__(2, WIDTH)

    def forward(self, h: Tensor) -> Tensor:
        return super().forward(h.mT).mT


class Attention(nn.MultiheadAttention):
    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__(WIDTH, 2, dropout=dropout, batch_first=True)

    def forward(self, h: Tensor) -> Tensor:  # type: ignore[override]
        y, _ = super().forward(h, h, h, need_weights=False)
        return y  # type: ignore[no-any-return]


class Tied(nn.Module):
    """Two layers that share a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.other.weight = self.one.weight

    def forward(self, h: Tensor) -> Tensor:
        return self.other(torch.tanh(self.one(h)))  # type: ignore[no-any-return]


class Frozen(nn.Linear):
    def __init__(self) -> None:
        super().__init__(WIDTH, WIDTH)
        self.requires_grad_(False)


class Buffered(nn.Module):
    """A constant, and with `rotated` a complex one, as tables of rotary positions are."""

    def __init__(self, rotated: bool = False) -> None:
        super().__init__()
        self.linear, self.rotated = nn.Linear(WIDTH, WIDTH), rotated
        angles = torch.linspace(0.0, 3.0, WIDTH // 2, dtype=torch.float64)
        table = torch.polar(torch.ones_like(angles), angles) if rotated else angles.cos().repeat(2)
        self.register_buffer("table", table, persistent=not rotated)

    def forward(self, h: Tensor) -> Tensor:
        h = self.linear(h)
        if not self.rotated:
            return h * self.table.to(h.dtype)
        turned = torch.view_as_complex(h.double().unflatten(-1, (-1, 2))) * self.table
        return torch.view_as_real(turned).flatten(-2).to(h.dtype)


class Unreached(nn.Module):
    """Holds a layer that the loss never reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.unused = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, h: Tensor) -> Tensor:
        return self.linear(h)  # type: ignore[no-any-return]


class Sometimes(nn.Module):
    """An expert for the samples whose first number is positive: some parts of a batch never reach it."""

    def __init__(self) -> None:
        super().__init__()
        self.usual, self.expert = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, h: Tensor) -> Tensor:
        chosen = h[:, 0, 0] > 0
        y = self.usual(h)
        return y.index_add(0, chosen.nonzero()[:, 0], self.expert(h[chosen])) if bool(chosen.any()) else y


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.inner, self.reentrant = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()), reentrant

    def forward(self, h: Tensor) -> Tensor:
        return checkpoint(self.inner, h, use_reentrant=self.reentrant)  # type: ignore[no-any-return]


class Counter(nn.Module):
    """Keeps state in forward."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, h: Tensor) -> Tensor:
        self.calls += 1
        return h


class Evaluating(nn.BatchNorm1d):
    """In evaluation mode from the start: a frozen part of a model."""

    def __init__(self) -> None:
        super().__init__(WIDTH)
        self.eval()

    def train(self, mode: bool = True) -> "Evaluating":
        return super().train(False)

    def forward(self, h: Tensor) -> Tensor:
        return super().forward(h.mT).mT


class Batched(nn.BatchNorm1d):
    def __init__(self) -> None:
        super().__init__(WIDTH)

    def forward(self, h: Tensor) -> Tensor:
        return super().forward(h.mT).mT


class Coupled(nn.Module):
    """Subtracts the mean over the batch."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, h: Tensor) -> Tensor:
        return h - h.mean(0)


class Function(nn.Module):
    """Draws in forward, without a module."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, h: Tensor) -> Tensor:
        if not self.training:
            return h
        if self.kind == "dropout":
            return F.dropout(h, 0.3)
        if self.kind == "torch":
            return h + 0.1 * torch.randn_like(h)
        return h * float(np.random.uniform(0.9, 1.1))


def hooked() -> nn.Module:
    linear = nn.Linear(WIDTH, WIDTH)
    linear.weight.register_hook(lambda g: 0.5 * g.clamp(-0.05, 0.05))
    return linear


BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(WIDTH, WIDTH),
    "conv": Conv,
    "layer_norm": lambda: nn.LayerNorm(WIDTH),
    "rms_norm": lambda: nn.RMSNorm(WIDTH, eps=1e-3),  # its own, in float64, multiplies rounding by 1e7 at zeros
    "group_norm": Grouped,
    "torch_lstm": lambda: nn.LSTM(WIDTH, WIDTH, 2, batch_first=True),
    "torch_gru": lambda: nn.GRU(WIDTH, WIDTH, batch_first=True, bidirectional=False),
    "torch_attention": Attention,
    "transformer": lambda: nn.TransformerEncoderLayer(WIDTH, 2, 16, dropout=0.0, batch_first=True),
    "tied": Tied,
    "frozen": Frozen,
    "buffer": Buffered,
    "complex_buffer": lambda: Buffered(rotated=True),
    "unreached": Unreached,
    "sometimes": Sometimes,
    "checkpoint": lambda: Checkpointed(False),
    "reentrant": lambda: Checkpointed(True),
    "weight_norm": lambda: parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH)),
    "orthogonal": lambda: parametrizations.orthogonal(nn.Linear(WIDTH, WIDTH)),
    "evaluating": Evaluating,
    "hook": hooked,
    **{f"our_{name}": partial(make, WIDTH) for name, make in LAYERS.items()},
}
# These draw random numbers; the first four are dropout with the batch first.
DRAWING: dict[str, Callable[[], nn.Module]] = {
    "dropout": lambda: nn.Dropout(0.3),
    "dropout_function": lambda: Function("dropout"),
    "dropout1d": lambda: nn.Dropout1d(0.3),
    "transformer_dropout": lambda: nn.TransformerEncoderLayer(WIDTH, 2, 16, dropout=0.2, batch_first=True),
    "attention_dropout": lambda: Attention(0.2),
    "noise": lambda: Function("torch"),
    "numpy": lambda: Function("numpy"),
    "lstm_dropout": lambda: nn.LSTM(WIDTH, WIDTH, 2, batch_first=True, dropout=0.3),
}
# Cannot be trained by parts: each must be refused.
REFUSED: dict[str, Callable[[], nn.Module]] = {
    "batch_norm": Batched,
    "spectral_norm": lambda: parametrizations.spectral_norm(nn.Linear(WIDTH, WIDTH)),
    "counter": Counter,
    "coupled": Coupled,
    "lazy": lambda: nn.LazyLinear(WIDTH),
}
ALL = {**BLOCKS, **DRAWING, **REFUSED}
# Of an embedding; the last two are refused.
ENTRIES: dict[str, dict[str, Any]] = {
    "embedding": {},
    "padded": {"padding_idx": 0},
    "max_norm": {"max_norm": 0.5},
    "sparse": {"sparse": True},
}


class Net(nn.Module):
    """An entry, blocks, a head. `entry`: "linear" of vectors, or an embedding of whole numbers, with options of ENTRIES."""

    def __init__(self, blocks: Sequence[str], entry: str) -> None:
        super().__init__()
        self.entry = nn.Linear(FEATURES, WIDTH) if entry == "linear" else nn.Embedding(SYMBOLS, WIDTH, **ENTRIES[entry])
        self.blocks = nn.ModuleList(Act(ALL[name]()) for name in blocks)
        self.head = nn.Linear(WIDTH, OUTPUTS)

    def forward(self, x: Tensor) -> Tensor:
        h = self.entry(x)
        for block in self.blocks:
            h = block(h)
        return self.head(h)  # type: ignore[no-any-return]


def squared(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    """(B,): the mean over a sample's steps."""
    x, y, _ = batch
    return (model(x) - y).square().mean((1, 2))  # type: ignore[no-any-return]


def counted(model: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """The sum over a sample's valid steps, and their number, which may be 0."""
    x, y, valid = batch
    return ((model(x) - y).square().sum(2) * valid).sum(1), valid.sum(1)


def penalized(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    """With a penalty on the gradient by the input."""
    x, y, _ = batch
    x = x.detach().requires_grad_()
    losses = (model(x) - y).square().mean((1, 2))
    (slope,) = torch.autograd.grad(losses.sum(), x, create_graph=True)
    return losses + 0.1 * slope.square().sum((1, 2))


LOSSES = {"squared": squared, "counted": counted, "penalized": penalized}


class Written(Net):
    """With its loss, as a config file names it."""

    def __init__(self, blocks: Sequence[str], entry: str, loss: str) -> None:
        super().__init__(blocks, entry)
        self.loss = loss

    def per_sample_loss(self, batch: tuple[Tensor, ...]) -> Any:
        return LOSSES[self.loss](self, batch)
