"""Which implementation of a primitive runs: a pure function of device, dtype, shape and what DISTSEQ_KERNELS asks for.

DISTSEQ_KERNELS is a list such as "eager", "rnn=triton" or "reference,scan=eager": a backend for all primitives, or for one.
A backend that is asked for and cannot serve is an error; it is never replaced.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch

BACKENDS = ("reference", "eager", "triton")
VARIABLE = "DISTSEQ_KERNELS"
HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Tiles:
    """What the Triton kernels of a primitive can hold: the largest head size of each dtype, the least one, and the head sizes
    whose figures on a GPU are committed in docs/benchmarks.md. Others run when asked for, never by default."""

    largest: dict[torch.dtype, int]
    least: int = 1
    powers: bool = True  # a head size must be a power of two
    measured: tuple[int, ...] = ()


# Primitive -> its eager file; and the tiles of those with Triton kernels.
EAGER = {
    "rnn": "rnn",
    "scan": "scan",
    "selective_scan": "selective",
    "linear_attention": "linear_attention",
    "delta_rule": "delta_rule",
    "prefix_softmax": "prefix_softmax",
    "short_conv": "conv",
    "fft_conv": "conv",
    "attention": "attention",
}
TRITON = {
    "rnn": Tiles({torch.bfloat16: 128, torch.float16: 128, torch.float32: 64}, least=16),
    "scan": Tiles(dict.fromkeys((torch.bfloat16, torch.float16, torch.float32), 0)),  # it has no heads
    "linear_attention": Tiles({torch.bfloat16: 128, torch.float32: 128}, least=16),
    "delta_rule": Tiles({torch.bfloat16: 128, torch.float32: 128}, least=16),
}


def asked(op: str, text: str | None = None) -> str | None:
    """The backend that DISTSEQ_KERNELS, or `text`, names for this primitive. ValueError naming what it does not know."""
    chosen: dict[str, str] = {}
    for item in filter(
        None, (part.strip() for part in (os.environ.get(VARIABLE, "") if text is None else text).split(","))
    ):
        name, _, backend = item.rpartition("=")
        if backend not in BACKENDS or (name and name not in EAGER):
            known = f"one of {', '.join(BACKENDS)}, or PRIMITIVE=BACKEND for one of {', '.join(EAGER)}"
            raise ValueError(f"{VARIABLE} must name {known}: got {item!r}")
        chosen[name] = backend
    return chosen.get(op, chosen.get(""))


def refusal(op: str, device: torch.device, dtype: torch.dtype, heads: Sequence[int], interpreted: bool) -> str | None:
    """Why the Triton kernels cannot serve; None where they can. `heads`: the sizes a program must hold, such as (K, V)."""
    tiles = TRITON.get(op)
    if tiles is None:
        return "it has no Triton kernel"
    if device.type != "cuda" and not interpreted:
        return f"its tensors lie on the {device.type}, not on cuda"
    if dtype not in tiles.largest and not (interpreted and dtype == torch.float64):
        return f"its Triton kernel computes in {', '.join(_named(each) for each in tiles.largest)}: got {_named(dtype)}"
    # A product on the GPU needs sizes of 16, in the interpreter it does not.
    least = min(2, tiles.least) if interpreted else tiles.least
    largest = tiles.largest.get(dtype, max(tiles.largest.values()))
    for size in heads:
        if not least <= size <= largest or (tiles.powers and size & (size - 1)):
            shape = "a power of two" if tiles.powers else "a size"
            return f"a head must be {shape} from {least} to {largest} in {_named(dtype)}: got {size}"
    return None


def choose(
    op: str, device: torch.device, dtype: torch.dtype, heads: Sequence[int] = (), plain: str | None = None
) -> str:
    """The backend for tensors of this device and dtype, and heads of these sizes; `plain`: why Triton cannot serve them anyway.

    ValueError when the backend that is asked for cannot serve.
    """
    backend = asked(op)
    if backend == "triton":
        reason = plain or refusal(op, device, dtype, heads, os.environ.get("TRITON_INTERPRET") == "1") or _missing()
        if reason:
            raise ValueError(f"{op} cannot run on triton, as {VARIABLE} asks: {reason}")
    if backend:
        return backend
    figures = TRITON[op].measured if op in TRITON else ()
    measured = figures and all(size in figures for size in heads) and not plain
    if device.type == "cuda" and measured and not refusal(op, device, dtype, heads, False) and not _missing():
        return "triton"
    return "eager"


def implementation(op: str, backend: str) -> Callable[..., Any]:
    """The function of that name in the backend's module, imported when first used."""
    module = {"reference": "reference", "eager": f"eager.{EAGER[op]}", "triton": f"triton.{EAGER[op]}"}[backend]
    function: Callable[..., Any] = getattr(import_module(f"distseq.kernels.{module}"), op)
    return function


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """What sums and states are kept in: float32 for half precision, else the dtype itself."""
    return torch.float32 if dtype in HALF else dtype


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _missing() -> str | None:
    try:
        import_module("distseq.kernels.triton")
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "triton"
        return "it is not installed: python -m pip install triton" if missing else f"it cannot be imported ({error})"
    return None
