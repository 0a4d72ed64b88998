"""What `make bench-kernels` compares: primitive -> inputs and contenders, ours first; each is a function of the inputs.

The naive loops are those a careful PyTorch user writes: `unbind` once, one matrix product per step, autograd for the rest.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, linear, scaled_dot_product_attention

from distseq import kernels

Tensors = dict[str, Tensor]
GRID = ((16, 256, 128), (32, 256, 256), (16, 512, 256), (64, 256, 128), (16, 256, 512), (16, 1024, 128))
SCANS = ((4, 1024, 64), (16, 256, 128), (16, 1024, 128), (32, 512, 256), (64, 1024, 256))
HEADED = (8, 512, 4, 64)  # B, T, H, D


@dataclass(frozen=True)
class Entry:
    """`aims`: contender -> how many times its time ours may save at least (time of the contender over ours)."""

    name: str
    shape: tuple[int, ...]
    inputs: Tensors
    ours: Callable[[Tensors], Tensor]
    others: Mapping[str, Callable[[Tensors], Tensor]]
    aims: Mapping[str, float]
    timed: frozenset[str] = frozenset()  # inputs without gradients
    tolerance: float = 1e-4


def normal(*shape: int, scale: float = 1.0) -> Tensor:
    return torch.randn(*shape) * scale


def entries(quick: bool = False) -> Iterator[Entry]:
    """All of them; `quick`: of each primitive one, small."""
    yield from _recurrent(((4, 16, 16),) if quick else GRID)
    for B, T, D in ((2, 16, 8),) if quick else SCANS:
        inputs = {"a": torch.rand(B, T, D), "x": normal(B, T, D)}
        yield Entry(
            "scan",
            (B, T, D),
            inputs,
            lambda t: kernels.scan(**t)[0],
            {"loop": scan_loop},
            {} if quick else {"loop": 1.5},
        )
    yield from _matrices(*((2, 16, 2, 8) if quick else HEADED), quick)
    yield from _convolutions(*((2, 32, 8) if quick else (8, 512, 256)), quick)


def _recurrent(grid: tuple[tuple[int, int, int], ...]) -> Iterator[Entry]:
    for B, T, D in grid:
        small = (B, T, D) == (16, 256, 128)
        for cell, gates, dense in (("lstm", 4, nn.LSTM), ("gru", 3, nn.GRU)):
            inputs = {
                "u": normal(B, T, D),
                "w": normal(gates * D, D, scale=D**-0.5),
                "b": normal(gates * D, scale=0.1),
                "r": normal(1, gates, D, D, scale=D**-0.5),
            }
            if cell == "gru":
                inputs["bias"] = torch.zeros(1, D)
            module = dense(D, D, batch_first=True)
            others = {f"nn.{dense.__name__}": partial(torch_dense, module), "loop": partial(rnn_loop, cell)}
            gain = 1.3 if cell == "gru" and small else 0.95
            aims = {f"nn.{dense.__name__}": gain, **({"loop": 1.3} if cell == "lstm" and small else {})}
            yield Entry(cell, (B, T, D), inputs, partial(ours_dense, cell), others, aims if B > 4 else {})


def _matrices(B: int, T: int, H: int, D: int, quick: bool) -> Iterator[Entry]:
    shape, keyed = (
        (B, T, H, D),
        {"q": normal(B, T, H, D), "k": normal(B, T, H, D, scale=D**-0.5), "v": normal(B, T, H, D)},
    )
    aims = (lambda **found: {}) if quick else dict
    decays = {"scalar": -torch.rand(B, T, H), "vector": -torch.rand(B, T, H, D), "steep": -40 * torch.rand(B, T, H, D)}
    for kind, g in decays.items():
        yield Entry(
            f"linear_attention {kind}",
            shape,
            {**keyed, "g": g},
            lambda t: kernels.linear_attention(**t)[0],
            {"loop": linear_loop},
            aims(loop=3.0) if kind == "scalar" else {},
        )
    unit = {**keyed, "k": nn.functional.normalize(keyed["k"], dim=-1), "beta": 2 * torch.rand(B, T, H)}
    yield Entry("delta_rule", shape, unit, lambda t: kernels.delta_rule(**t)[0], {"loop": delta_loop}, aims(loop=7.0))
    others = {"loop": prefix_loop, "sdpa": prefix_attention}
    scores = {"s": normal(B, T, H), "v": keyed["v"]}
    yield Entry("prefix_softmax", shape, scores, lambda t: kernels.prefix_softmax(**t)[0], others, aims(loop=4.0))


def _convolutions(B: int, T: int, D: int, quick: bool) -> Iterator[Entry]:
    x = normal(B, T, D)
    yield Entry(
        "fft_conv",
        (B, T, D),
        {"x": x, "k": normal(D, T, scale=T**-0.5)},
        lambda t: kernels.fft_conv(**t)[0],
        {"direct": direct_conv},
        {} if quick else {"direct": 8.0},
    )
    yield Entry(
        "short_conv",
        (B, T, D),
        {"x": x, "k": normal(D, 4)},
        lambda t: kernels.short_conv(t["x"], t["k"].flip(1))[0],
        {"direct": direct_conv},
        {},
    )
    N = 16
    inputs = {
        "u": x,
        "dt": torch.rand(B, T, D),
        "A": -torch.rand(D, N) - 0.1,
        "B": normal(B, T, N),
        "C": normal(B, T, N),
    }
    yield Entry(
        "selective_scan", (B, T, D), inputs, lambda t: kernels.selective_scan(**t)[0], {"loop": selective_loop}, {}
    )


def ours_dense(cell: str, t: Tensors) -> Tensor:
    return kernels.dense_rnn(t["u"], t["w"], t["b"], t["r"], cell=cell, bias=t.get("bias"))[0].flatten(2)


def torch_dense(module: nn.Module, t: Tensors) -> Tensor:
    """torch's own layer with the entry's weights; their gradients go to the layer's parameters, and from there to the inputs."""
    gates, D = t["r"].shape[1:3]
    hidden = torch.zeros_like(t["b"]) if "bias" not in t else torch.cat([t["b"].new_zeros(2 * D), t["bias"][0]])
    weights = {
        "weight_ih_l0": t["w"],
        "weight_hh_l0": t["r"][0].transpose(1, 2).reshape(gates * D, D),
        "bias_ih_l0": t["b"],
        "bias_hh_l0": hidden,
    }
    y: Tensor = torch.func.functional_call(module, weights, (t["u"],))[0]
    return y


def rnn_loop(cell: str, t: Tensors) -> Tensor:
    gates, D = t["r"].shape[1:3]
    R = t["r"][0].transpose(0, 1).reshape(D, gates * D)
    h = c = t["u"].new_zeros(t["u"].shape[0], D)
    steps = []
    for x in linear(t["u"], t["w"], t["b"]).unbind(1):
        p = h @ R
        if cell == "lstm":
            i, f, z, o = (x + p).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(z)
            h = torch.sigmoid(o) * torch.tanh(c)
        else:
            (x_r, x_z, x_n), (p_r, p_z, p_n) = x.chunk(3, 1), p.chunk(3, 1)
            z = torch.sigmoid(x_z + p_z)
            n = torch.tanh(x_n + torch.sigmoid(x_r + p_r) * (p_n + t["bias"]))
            h = n + z * (h - n)
        steps.append(h)
    return torch.stack(steps, 1)


def rnn_heads_loop(t: Tensors) -> Tensor:
    """An LSTM in heads: r (H, 4, D, D)."""
    H, _, D, _ = t["r"].shape
    R = t["r"].transpose(1, 2).flatten(2)
    h = c = t["u"].new_zeros(H, t["u"].shape[0], D)
    steps = []
    for x in linear(t["u"], t["w"], t["b"]).unflatten(2, (H, 4 * D)).permute(1, 2, 0, 3).unbind(0):
        i, f, z, o = torch.baddbmm(x, h, R).chunk(4, 2)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(z)
        h = torch.sigmoid(o) * torch.tanh(c)
        steps.append(h)
    return torch.stack(steps).permute(2, 0, 1, 3).flatten(2)


def scan_loop(t: Tensors) -> Tensor:
    h, steps = torch.zeros_like(t["x"][:, 0]), []
    for a, x in zip(t["a"].unbind(1), t["x"].unbind(1), strict=True):
        h = a * h + x
        steps.append(h)
    return torch.stack(steps, 1)


def linear_loop(t: Tensors) -> Tensor:
    q, k, v, g = (t[name].unbind(1) for name in ("q", "k", "v", "g"))
    S, steps = q[0].new_zeros(*q[0].shape, v[0].shape[-1]), []
    for q_t, k_t, v_t, g_t in zip(q, k, v, g, strict=True):
        decay = g_t.exp()
        S = (decay[..., None] if decay.dim() == 3 else decay[..., None, None]) * S + k_t[..., None] * v_t[:, :, None]
        steps.append((q_t[:, :, None] @ S)[:, :, 0])
    return torch.stack(steps, 1)


def delta_loop(t: Tensors) -> Tensor:
    q, k, v, beta = (t[name].unbind(1) for name in ("q", "k", "v", "beta"))
    S, steps = q[0].new_zeros(*q[0].shape, v[0].shape[-1]), []
    for q_t, k_t, v_t, beta_t in zip(q, k, v, beta, strict=True):
        u = beta_t[..., None] * (v_t - (k_t[:, :, None] @ S)[:, :, 0])
        S = S + k_t[..., None] * u[:, :, None]
        steps.append((q_t[:, :, None] @ S)[:, :, 0])
    return torch.stack(steps, 1)


def prefix_loop(t: Tensors) -> Tensor:
    log, mean, steps = torch.full_like(t["s"][:, 0], float("-inf")), torch.zeros_like(t["v"][:, 0]), []
    for s, v in zip(t["s"].unbind(1), t["v"].unbind(1), strict=True):
        before, log = log, torch.logaddexp(log, s)
        mean = (before - log).exp()[..., None] * mean + (s - log).exp()[..., None] * v
        steps.append(mean)
    return torch.stack(steps, 1)


def prefix_attention(t: Tensors) -> Tensor:
    """Causal attention of a query of 1 whose keys are the scores."""
    v = t["v"].transpose(1, 2)
    k = torch.nn.functional.pad(t["s"].transpose(1, 2)[..., None], (0, v.shape[-1] - 1))
    q = torch.zeros_like(k)
    q[..., 0] = 1.0
    return scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0).transpose(1, 2)


def direct_conv(t: Tensors) -> Tensor:
    taps = t["k"].shape[1]
    return conv1d(t["x"].transpose(1, 2), t["k"].flip(1)[:, None], padding=taps - 1, groups=t["x"].shape[2])[
        ..., : t["x"].shape[1]
    ].transpose(1, 2)


def selective_loop(t: Tensors) -> Tensor:
    h, steps = t["u"].new_zeros(t["u"].shape[0], *t["A"].shape), []
    for u, dt, B, C in zip(*(t[name].unbind(1) for name in ("u", "dt", "B", "C")), strict=True):
        h = torch.exp(dt[..., None] * t["A"]) * h + (dt * u)[..., None] * B[:, None]
        steps.append((h @ C[..., None])[..., 0])
    return torch.stack(steps, 1)


def gradients(run: Callable[[Tensors], Tensor], inputs: Tensors, weights: Tensor) -> list[Any]:
    """y and the gradients of sum(y * weights) by the inputs; None by one that is not used."""
    y = run(inputs)
    return [y, *torch.autograd.grad(y, list(inputs.values()), weights, allow_unused=True)]
