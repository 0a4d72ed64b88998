"""Values and gradients of a case, and how far two of them are apart."""

from typing import Any

import torch
from torch import Tensor

from tests.kernels.cases import Case, Inputs, normal


def drawn(case: Case, B: int, T: int, H: int, D: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Inputs:
    """The case's inputs, of that dtype where they are floating point."""
    inputs = case.draw(B, T, H, D, torch.Generator().manual_seed(seed))
    return {name: cast(value, dtype) for name, value in inputs.items()}


def cast(value: Any, dtype: torch.dtype) -> Any:
    if not isinstance(value, Tensor) or value.dtype == torch.bool:
        return value
    wide = {torch.float64: torch.complex128, torch.float32: torch.complex64}
    return value.to(wide[dtype] if value.is_complex() else dtype)


def begun(case: Case, B: int, H: int, D: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """States as three steps leave them; none where the case has no state. Those with a gradient are leaves."""
    with torch.no_grad():
        _, states = case.run(drawn(case, B, 3, H, D, seed, dtype))
    return states


def leaves(case: Case, inputs: Inputs, states: tuple[Any, ...]) -> tuple[Inputs, tuple[Any, ...], list[Tensor]]:
    """Copies that require gradients where a gradient exists, and the list of them."""
    found: list[Tensor] = []

    def leaf(value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dtype == torch.bool:
            return value
        found.append(value.detach().clone().requires_grad_())
        return found[-1]

    own = {name: leaf(value) for name, value in inputs.items()}
    opaque = (3,) if len(states) == 4 else ()  # sLSTM's m
    return own, tuple(each if at in opaque else leaf(each) for at, each in enumerate(states)), found


def smooth(case: Case, y: Tensor, states: tuple[Any, ...]) -> tuple[Tensor, ...]:
    """What has a gradient of its own: y, and the states but the opaque ones and masks."""
    own = (each for at, each in enumerate(states) if at not in case.opaque and isinstance(each, Tensor))
    return y, *(each for each in own if each.dtype != torch.bool)


def gradients(case: Case, inputs: Inputs, states: tuple[Any, ...] = (), seed: int = 2) -> list[Tensor]:
    """y, the states after, then the gradients of a fixed random weighing of both: by input, then by state."""
    inputs, states, found = leaves(case, inputs, states)
    return weighed(smooth(case, *case.run(inputs, case.state(states) if states else None)), found, seed)


def finite_differences(case: Case, B: int, T: int, H: int, D: int, *, along: bool = False) -> bool:
    """Whether all gradients, those by state and of state too, are what finite differences of float64 give.

    `along`: in one random direction of each input, not element by element.
    """
    inputs, states, found = leaves(case, drawn(case, B, T, H, D), begun(case, B, H, D))

    def function(*_: Tensor) -> tuple[Tensor, ...]:
        y, after = case.run(inputs, case.state(states) if states else None)
        used = (each for at, each in enumerate(after) if at not in case.opaque and each is not None)
        return (y, *(each for each in used if each.requires_grad))

    return torch.autograd.gradcheck(function, found, atol=1e-6, fast_mode=along)


def apart(found: Tensor, expected: Tensor) -> float:
    """Relative root mean square of the difference; inf where one is not finite and the other is."""
    if found.shape != expected.shape:
        return float("inf")
    if found.dtype == torch.bool or not found.numel():
        return 0.0 if bool((found == expected).all()) else float("inf")
    same = (found == expected) | (found.isnan() & expected.isnan())
    difference = torch.where(same, torch.zeros_like(found), found - expected).abs().square().mean().sqrt()
    scale = torch.where(expected.isfinite(), expected, torch.zeros_like(expected)).abs().square().mean().sqrt()
    # A NaN would be lost in a max over several distances.
    return (difference / scale.clamp_min(1e-6)).nan_to_num(float("inf")).item()


def weighed(outputs: tuple[Tensor, ...], found: list[Tensor], seed: int = 7) -> list[Tensor]:
    """The outputs, and the gradients of a fixed random weighing of them."""
    draws = torch.Generator().manual_seed(seed)
    parts = [torch.view_as_real(each) if each.is_complex() else each for each in outputs]
    loss = sum((part * normal(draws, *part.shape).to(part.dtype)).sum() for part in parts)
    gradients = torch.autograd.grad(loss, found, allow_unused=True, materialize_grads=True)
    return [each.detach() for each in (*outputs, *gradients)]


def copies(*tensors: Tensor) -> list[Tensor]:
    """Leaves of the same values."""
    return [tensor.detach().clone().requires_grad_() for tensor in tensors]


def worst(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest of their distances."""
    return max(apart(one, other) for one, other in zip(found, expected, strict=True))
