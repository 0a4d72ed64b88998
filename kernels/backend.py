"""Chooses a primitive's implementation from device, dtype, shape and the variable DISTSEQ_KERNELS.

DISTSEQ_KERNELS is a list such as "eager", "rnn=triton" or "reference,scan=eager": a backend for all primitives, or for one.
If the backend it names cannot compute a call, that is an error: another one is never used in its place.
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
    """Head sizes that the Triton kernels of a primitive support: the largest for each dtype, and the smallest.

    `measured`: sizes whose GPU figures are committed in docs/benchmarks.md; others run only when DISTSEQ_KERNELS names triton.
    """

    largest: dict[torch.dtype, int]
    least: int = 1
    powers: bool = True  # a head size must be a power of two
    measured: tuple[int, ...] = ()


# Primitive -> its file in eager/ and, if it has Triton kernels, in triton/.
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
    # One program holds a head's matrix R of all gates on chip: float32 at D = 128 would take 256 KiB and more, and an H200 has
    # 227 KiB of shared memory. tl.dot needs sizes of at least 16.
    "rnn": Tiles({torch.bfloat16: 128, torch.float16: 128, torch.float32: 64}, least=16),
    # It is elementwise, with no head sizes to bound.
    "scan": Tiles(dict.fromkeys((torch.bfloat16, torch.float16, torch.float32), 0)),
    "linear_attention": Tiles({torch.bfloat16: 128, torch.float32: 128}, least=16),
    "delta_rule": Tiles({torch.bfloat16: 128, torch.float32: 128}, least=16),
}


def requested(op: str, text: str | None = None) -> str | None:
    """The backend that DISTSEQ_KERNELS, or `text`, names for a primitive; None if it names none. ValueError for a wrong item."""
    chosen: dict[str, str] = {}
    for item in filter(
        None, (part.strip() for part in (os.environ.get(VARIABLE, "") if text is None else text).split(","))
    ):
        name, _, backend = item.rpartition("=")
        if backend not in BACKENDS or (name and name not in EAGER):
            known = f"one of {', '.join(BACKENDS)}, or PRIMITIVE=BACKEND for one of {', '.join(EAGER)}"
            raise ValueError(f"{VARIABLE} must name {known}: got {item!r}")
        chosen[name] = backend
    # An item for this primitive goes before one for all, in whatever order they are listed.
    return chosen.get(op, chosen.get(""))


def refusal(op: str, device: torch.device, dtype: torch.dtype, heads: Sequence[int], interpreted: bool) -> str | None:
    """Why the Triton kernels cannot compute a call; None if they can. `heads`: the sizes a program must hold, such as (K, V)."""
    tiles = TRITON.get(op)
    if tiles is None:
        return "it has no Triton kernel"
    if device.type != "cuda" and not interpreted:
        return f"its tensors are on {device.type}, not on cuda"
    # float64 exists for gradcheck in the interpreter: a GPU would need other tile sizes for it.
    if dtype not in tiles.largest and not (interpreted and dtype == torch.float64):
        return f"its Triton kernel computes in {', '.join(_named(each) for each in tiles.largest)}: got {_named(dtype)}"
    # tl.dot needs sizes of at least 16 on a GPU. The interpreter takes any, and its tests afford only small ones.
    least = min(2, tiles.least) if interpreted else tiles.least
    largest = tiles.largest.get(dtype, max(tiles.largest.values()))
    for size in heads:
        if not least <= size <= largest or (tiles.powers and size & (size - 1)):
            shape = "a power of two" if tiles.powers else "a size"
            return f"a head size must be {shape} from {least} to {largest} in {_named(dtype)}: got {size}"
    return None


def choose(
    op: str, device: torch.device, dtype: torch.dtype, heads: Sequence[int] = (), plain: str | None = None
) -> str:
    """The backend for tensors of a device and dtype with heads of these sizes.

    `plain`: why Triton cannot compute this call, whatever the sizes; None if it can. ValueError if DISTSEQ_KERNELS names a
    backend that cannot compute it.
    """
    backend = requested(op)
    if backend == "triton":
        reason = plain or refusal(op, device, dtype, heads, os.environ.get("TRITON_INTERPRET") == "1") or _missing()
        if reason:
            raise ValueError(f"{op} cannot run on triton, as {VARIABLE} requests: {reason}")
    if backend:
        return backend
    # A kernel that nobody has timed on a GPU may be slower than PyTorch: it runs only on request (docs/decisions/016).
    figures = TRITON[op].measured if op in TRITON else ()
    measured = figures and all(size in figures for size in heads) and not plain
    if device.type == "cuda" and measured and not refusal(op, device, dtype, heads, False) and not _missing():
        return "triton"
    return "eager"


def implementation(op: str, backend: str) -> Callable[..., Any]:
    """The function `op` of the backend's module, which is imported on first use."""
    module = {"reference": "reference", "eager": f"eager.{EAGER[op]}", "triton": f"triton.{EAGER[op]}"}[backend]
    # Imported by name when needed: Triton may be missing, and importing it takes half a second.
    function: Callable[..., Any] = getattr(import_module(f"distseq.kernels.{module}"), op)
    return function


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The dtype of sums and states: float32 for half precision, else the dtype itself."""
    # bfloat16 has 8 bits: a sum of 256 equal terms stops growing, and so would a state over a sequence.
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
