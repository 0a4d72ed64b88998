"""PRIMITIVES: every primitive and option that the shared tests of tests/kernels go over; COMPOSED: what is made of them.

A case draws float64 inputs from a generator: B samples, T steps, H heads (or channels), D sizes of a head.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from distseq import kernels
from distseq.kernels.cells import CELLS

Inputs = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """`timed`: input -> how many of its steps (axis 1) belong to one step of y. `heads`: input -> its axis of heads.

    `edge`: the chunk of the implementation; T around it is tried. `opaque`: states that carry no gradient of their own.
    """

    op: str
    draw: Callable[[int, int, int, int, torch.Generator], Inputs]
    timed: Mapping[str, int]
    heads: Mapping[str, int]
    options: Mapping[str, Any] = field(default_factory=dict)
    edge: int = 4
    opaque: tuple[int, ...] = ()
    causal: bool = True

    def run(self, inputs: Inputs, state: Any = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(y, states) with the states as a tuple, whatever form the primitive gives them."""
        options = dict(self.options) if state is None else {**self.options, "state": state}
        y, after = getattr(kernels, self.op)(**inputs, **options)
        return y, after if isinstance(after, tuple) else () if after is None else (after,)

    def state(self, states: tuple[Tensor, ...]) -> Any:
        """In the form that the primitive takes."""
        return states if self.op in ("rnn", "prefix_softmax", "attention", "mlstm", "lightnet") else states[0]

    def part(self, inputs: Inputs, begin: int, end: int) -> Inputs:
        """Steps begin to end."""
        return {
            name: value[:, begin * self.timed[name] : end * self.timed[name]] if name in self.timed else value
            for name, value in inputs.items()
        }


def normal(draws: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=draws, dtype=torch.float64)


def uniform(draws: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=draws, dtype=torch.float64)


def _rnn(cell: str) -> Case:
    gates = len(CELLS[cell].gates)

    def draw(B: int, T: int, H: int, D: int, draws: torch.Generator) -> Inputs:
        inputs = {"x": normal(draws, B, T, H, gates, D), "r": normal(draws, H, gates, D, D) / max(D, 2) ** 0.5}
        return {**inputs, "bias": normal(draws, H, D)} if cell == "gru" else inputs

    opaque = (1, 2, 3) if cell == "slstm" else ()
    return Case("rnn", draw, {"x": 1}, {"x": 2, "r": 0, "bias": 0}, {"cell": cell}, opaque=opaque)


def _scan(kind: str) -> Case:
    def draw(B: int, T: int, H: int, D: int, draws: torch.Generator) -> Inputs:
        a, x = 0.2 + 0.8 * uniform(draws, B, T, H, D), normal(draws, B, T, H, D)
        if kind == "complex":
            a, x = torch.polar(a, 3 * normal(draws, B, T, H, D)), torch.complex(x, normal(draws, B, T, H, D))
        if kind == "invariant":
            a = torch.polar(a[0, 0], normal(draws, H, D))
        inputs = {"a": a, "x": x}
        return {**inputs, "reset": uniform(draws, B, T) < 0.3} if kind == "reset" else inputs

    timed = {"x": 1, "reset": 1} if kind == "invariant" else {"a": 1, "x": 1, "reset": 1}
    heads = {"a": 0 if kind == "invariant" else 2, "x": 2}
    return Case("scan", draw, timed, heads, {"reverse": True} if kind == "reverse" else {}, causal=kind != "reverse")


def _selective(B: int, T: int, H: int, D: int, draws: torch.Generator) -> Inputs:
    return {
        "u": normal(draws, B, T, H),
        "dt": uniform(draws, B, T, H),
        "A": -0.2 - uniform(draws, H, D),
        "B": normal(draws, B, T, D),
        "C": normal(draws, B, T, D),
        "D": normal(draws, H),
    }


def _keyed(B: int, T: int, H: int, D: int, draws: torch.Generator) -> Inputs:
    return {
        "q": normal(draws, B, T, H, D),
        "k": normal(draws, B, T, H, D) / D**0.5,
        "v": normal(draws, B, T, H, D + 1),
    }


def _linear(decay: str) -> Case:
    def draw(B: int, T: int, H: int, D: int, draws: torch.Generator) -> Inputs:
        inputs = _keyed(B, T, H, D, draws)
        shape = (B, T, H, D) if decay == "vector" else (B, T, H)
        return inputs if decay == "none" else {**inputs, "g": -2 * uniform(draws, *shape)}

    names = ("q", "k", "v", "g")
    return Case("linear_attention", draw, dict.fromkeys(names, 1), dict.fromkeys(names, 2), {"chunk": 4})


def _delta(steps: int, decay: bool) -> Case:
    def draw(B: int, T: int, H: int, D: int, draws: torch.Generator) -> Inputs:
        q, inputs = normal(draws, B, T, H, D), _keyed(B, T * steps, H, D, draws)
        k = inputs["k"] / inputs["k"].norm(dim=-1, keepdim=True)
        inputs = {**inputs, "q": q, "k": k, "beta": 2 * uniform(draws, B, T * steps, H)}
        return {**inputs, "g": -uniform(draws, B, T, H)} if decay else inputs

    timed = {"q": 1, "k": steps, "v": steps, "beta": steps, "g": 1}
    return Case("delta_rule", draw, timed, dict.fromkeys(timed, 2), {"chunk": 4, "steps": steps})


def _prefix(B: int, T: int, H: int, D: int, draws: torch.Generator) -> Inputs:
    return {"s": 3 * normal(draws, B, T, H), "v": normal(draws, B, T, H, D)}


def _conv(op: str, taps: int, options: Mapping[str, Any]) -> Case:
    name = "w" if op == "short_conv" else "k"

    def draw(B: int, T: int, H: int, D: int, draws: torch.Generator) -> Inputs:
        return {"x": normal(draws, B, T, H), name: normal(draws, H, taps)}

    return Case(op, draw, {"x": 1}, {"x": 2, name: 0}, options, edge=taps)


def _attention(kind: str) -> Case:
    def draw(B: int, T: int, H: int, D: int, draws: torch.Generator) -> Inputs:
        inputs = _keyed(B, T, H, D, draws)
        return {**inputs, "key_mask": uniform(draws, B, T) < 0.6} if kind == "masked" else inputs

    names = ("q", "k", "v")
    options = {"full": {"causal": False}, "window": {"window": 3}}.get(kind, {})
    timed = {**dict.fromkeys(names, 1), "key_mask": 1}
    return Case("attention", draw, timed, dict.fromkeys(names, 2), options, causal=kind != "full")


def _mlstm(B: int, T: int, H: int, D: int, draws: torch.Generator) -> Inputs:
    return {**_keyed(B, T, H, D, draws), "i": 3 * normal(draws, B, T, H), "f": 3 * normal(draws, B, T, H)}


PRIMITIVES: dict[str, Case] = {
    **{f"rnn-{cell}": _rnn(cell) for cell in CELLS},
    **{f"scan-{kind}": _scan(kind) for kind in ("real", "complex", "invariant", "reset", "reverse")},
    "selective_scan": Case(
        "selective_scan",
        _selective,
        {"u": 1, "dt": 1, "B": 1, "C": 1},
        {"u": 2, "dt": 2, "A": 0, "D": 0},
        edge=16,
    ),
    **{f"linear_attention-{decay}": _linear(decay) for decay in ("none", "scalar", "vector")},
    "delta_rule": _delta(1, True),
    "delta_rule-product": _delta(3, False),
    "delta_rule-gated-product": _delta(2, True),
    "prefix_softmax": Case("prefix_softmax", _prefix, {"s": 1, "v": 1}, {"s": 2, "v": 2}, {"chunk": 4}),
    "short_conv": _conv("short_conv", 4, {}),
    "short_conv-dilated": _conv("short_conv", 3, {"dilation": 2}),
    "fft_conv": _conv("fft_conv", 9, {}),
    **{f"attention-{kind}": _attention(kind) for kind in ("causal", "window", "masked", "full")},
}
# What is exactly a primitive with other arguments.
COMPOSED: dict[str, Case] = {
    "mlstm": Case("mlstm", _mlstm, dict.fromkeys("qkvif", 1), dict.fromkeys("qkvif", 2), opaque=(1,)),
    "lightnet": Case("lightnet", _keyed, dict.fromkeys("qkv", 1), dict.fromkeys("qkv", 2)),
}
