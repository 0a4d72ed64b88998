"""The options of Muon and of the Adam beside it, for all parameters or for a group of them."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from math import isfinite
from typing import Any

USES = ("muon", "adam")
# What multiplies a matrix's rate (distseq.learners.optimizers.orthogonal.factor).
FACTORS = (None, "original", "match_rms_adamw")


@dataclass(frozen=True)
class Settings:
    """Options of a group of parameters. ValueError, naming the option, for a value that makes no sense."""

    lr: float = 0.02
    momentum: float = 0.95
    nesterov: bool = True
    # Of Jordan et al. (2024): steep at 0, so that small singular values grow fast, and below 1.3 at 1.
    ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315)
    ns_steps: int = 5
    eps: float = 1e-7
    weight_decay: float = 0.0
    adjust_lr_fn: str | None = "original"
    # A run promises weights equal to rounding under every scheme, and the three digits of bfloat16 would not keep it.
    full_precision: bool = True
    by_gate: bool = True
    adam_lr: float = 1e-3
    # The second of large batches: with .999 the scale of an update would lag behind their few steps.
    adam_betas: tuple[float, float] = (0.9, 0.95)
    adam_eps: float = 1e-8
    adam_weight_decay: float = 0.0
    use: str | None = None  # "muon" or "adam" for all of the group; None: matrices by Muon, others by Adam

    def __post_init__(self) -> None:
        for field in fields(self):
            holds, what = RULES[field.name]
            value = getattr(self, field.name)
            if not holds(value):
                raise ValueError(f"{field.name} must be {what}: got {value!r}")

    def muon(self) -> dict[str, Any]:
        """Of a torch group of matrices."""
        return {
            "use": "muon",
            "lr": self.lr,
            "momentum": self.momentum,
            "nesterov": self.nesterov,
            "ns_coefficients": tuple(self.ns_coefficients),
            "ns_steps": self.ns_steps,
            "eps": self.eps,
            "weight_decay": self.weight_decay,
            "adjust_lr_fn": self.adjust_lr_fn,
            "full_precision": self.full_precision,
        }

    def adam(self) -> dict[str, Any]:
        """Of a torch group of other parameters."""
        # One key for both, so that a schedule that cycles the momentum cycles Adam's first beta too.
        first, second = self.adam_betas
        return {
            "use": "adam",
            "lr": self.adam_lr,
            "momentum": first,
            "beta2": second,
            "eps": self.adam_eps,
            "weight_decay": self.adam_weight_decay,
        }


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _numbers(count: int, holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list | tuple) and len(value) == count and all(map(holds, value))


def _share(value: Any) -> bool:
    return _number(value) and 0 <= value < 1


_AT_LEAST_0 = (lambda value: _number(value) and value >= 0, "a number of at least 0")
_ABOVE_0 = (lambda value: _number(value) and value > 0, "a number above 0")
_SWITCH = (lambda value: isinstance(value, bool), "true or false")
RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "lr": _AT_LEAST_0,
    "momentum": (_share, "a number from 0 to below 1"),
    "nesterov": _SWITCH,
    "ns_coefficients": (_numbers(3, _number), "three numbers"),
    # torch's own bound: beyond it only time is lost.
    "ns_steps": (lambda value: type(value) is int and 1 <= value < 100, "a whole number from 1 to 99"),
    "eps": _ABOVE_0,
    "weight_decay": _AT_LEAST_0,
    "adjust_lr_fn": (lambda value: value in FACTORS, "'original' or 'match_rms_adamw'"),
    "full_precision": _SWITCH,
    "by_gate": _SWITCH,
    "adam_lr": _AT_LEAST_0,
    "adam_betas": (_numbers(2, _share), "two numbers from 0 to below 1"),
    "adam_eps": _AT_LEAST_0,
    "adam_weight_decay": _AT_LEAST_0,
    "use": (lambda value: value is None or value in USES, "'muon' or 'adam'"),
}
