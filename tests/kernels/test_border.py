"""What a caller combines primitives and layers with is right, or an error of one line: never a number that is silently wrong."""

import re
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap

from distseq.kernels.layers import LAYERS
from distseq.kernels.layers import __all__ as names
from distseq.kernels.linear import Linear, linear
from tests.kernels.cases import COMPOSED, PRIMITIVES, Case
from tests.kernels.comparing import apart, drawn, leaves, smooth

every_layer = pytest.mark.parametrize("name", LAYERS)
every = pytest.mark.parametrize(
    "case", [pytest.param(case, id=name) for name, case in {**PRIMITIVES, **COMPOSED}.items()]
)
REFUSED = "a second derivative through .* is not computed: set DISTSEQ_KERNELS=reference|is not implemented"


def made(name: str, dtype: torch.dtype = torch.float64, T: int = 6) -> tuple[nn.Module, Tensor]:
    """A layer as it starts, and an input."""
    torch.manual_seed(0)
    return LAYERS[name](8).to(dtype), torch.randn(2, T, 8, dtype=torch.float64).to(dtype)


def _ones(like: Tensor) -> Tensor:
    return torch.full_like(like, 1 + 1j if like.is_complex() else 1.0)


def along(loss: Callable[[], Tensor], found: list[Tensor]) -> list[Tensor]:
    """The second derivatives of a loss in the direction of ones, by autograd."""
    first = torch.autograd.grad(loss(), found, create_graph=True, allow_unused=True)
    sums = sum((each * _ones(each).conj()).real.sum() for each in first if each is not None)
    second = torch.autograd.grad(sums, found, allow_unused=True)
    return [torch.zeros_like(own) if each is None else each for own, each in zip(found, second, strict=True)]


def differences(loss: Callable[[], Tensor], found: list[Tensor], step: float = 1e-5) -> list[Tensor]:
    """The same by differences of first derivatives."""
    sides = []
    for sign in (1, -2, 1):
        with torch.no_grad():
            for each in found:
                each += sign * step * _ones(each)
        sides.append(torch.autograd.grad(loss(), found, allow_unused=True))
    zeros = [torch.zeros_like(each) for each in found]
    up, down = ([zero if g is None else g for zero, g in zip(zeros, side, strict=True)] for side in sides[:2])
    return [(one - other) / (2 * step) for one, other in zip(up, down, strict=True)]


@every
@pytest.mark.parametrize("backend", ["eager", "reference"])
def test_second_derivatives_of_primitives_are_right_or_an_error(
    case: Case, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each input alone too: a way from the result to just one of them must not be missing."""
    monkeypatch.setenv("DISTSEQ_KERNELS", backend)
    inputs = drawn(case, 2, 3, 2, 4)
    _, _, found = leaves(case, inputs, ())
    for chosen in [[at] for at in range(len(found))] + [list(range(len(found)))]:
        own, _, tensors = leaves(case, inputs, ())
        for at, each in enumerate(tensors):
            each.requires_grad_(at in chosen)
        wanted = [tensors[at] for at in chosen]

        def loss(own: dict[str, Tensor] = own) -> Tensor:
            y, states = case.run(own)
            # Not of states whose stabilizer is taken for a constant: only y is free of it.
            smooths = (y,) if case.opaque else smooth(case, y, states)
            return sum((each * each.conj()).real.sum() for each in smooths if each.requires_grad)  # type: ignore[return-value]

        if backend == "eager" and (refusal := refused(loss, wanted)):
            assert re.search(REFUSED, refusal)
            continue
        second = along(loss, wanted)
        for one, other in zip(second, differences(loss, wanted), strict=True):
            assert apart(one, other) < 1e-4


def refused(loss: Callable[[], Tensor], found: list[Tensor]) -> str | None:
    try:
        along(loss, found)
    except RuntimeError as error:
        return str(error)
    return None


@every_layer
def test_a_second_derivative_of_a_layer_is_an_error(name: str) -> None:
    layer, x = made(name)
    with pytest.raises(RuntimeError, match=REFUSED):
        along(lambda: layer(x)[0].square().sum(), list(layer.parameters()))


def test_a_dense_lstm_in_float32_has_the_second_derivatives_of_torchs() -> None:
    layer, x = made("lstm", torch.float32)
    found = list(layer.parameters())

    def loss() -> Tensor:
        return layer(x)[0].square().sum()  # type: ignore[no-any-return]

    for one, other in zip(along(loss, found), differences(loss, found, 3e-3), strict=True):
        assert apart(one, other) < 1e-2


@every_layer
def test_the_reference_has_second_derivatives(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTSEQ_KERNELS", "reference")
    layer, x = made(name, T=3)
    found = list(layer.parameters())

    def loss() -> Tensor:
        return layer(x)[0].square().sum()  # type: ignore[no-any-return]

    for one, other in zip(along(loss, found), differences(loss, found), strict=True):
        assert apart(one, other) < 1e-5


def test_first_derivatives_under_create_graph_are_as_without() -> None:
    layer, x = made("mamba")
    found = list(layer.parameters())
    plain = torch.autograd.grad(layer(x)[0].square().sum(), found)
    kept = torch.autograd.grad(layer(x)[0].square().sum(), found, create_graph=True)
    assert all(torch.allclose(one, other) for one, other in zip(plain, kept, strict=True))


def test_linear_can_be_differentiated_twice() -> None:
    x, w, b = (torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 3, 4), (5, 4), (5,)))
    assert torch.autograd.gradgradcheck(linear, (x, w, b))


@every_layer
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("inside", [True, False])
def test_autocast_is_right_forward_and_backward(name: str, half: torch.dtype, inside: bool) -> None:
    layer, x = made(name, torch.float32)
    expected = torch.autograd.grad(layer(x)[0].square().mean(), list(layer.parameters()))
    with torch.autocast("cpu", half):
        loss = layer(x)[0].square().mean()
        found = torch.autograd.grad(loss, list(layer.parameters())) if inside else None
    found = found or torch.autograd.grad(loss, list(layer.parameters()))
    norm = sum(float(each.square().sum()) for each in expected) ** 0.5
    off = sum(float((one - other).square().sum()) for one, other in zip(found, expected, strict=True)) ** 0.5
    # bfloat16 has 8 bits, float16 has 11.
    assert off < norm * (0.1 if half == torch.bfloat16 else 0.02)
    assert all(each.dtype == torch.float32 for each in found)


def test_linear_under_autocast_is_as_torch_has_it() -> None:
    ours = Linear(8, 8)
    theirs = nn.Linear(8, 8)
    theirs.load_state_dict(ours.state_dict())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ours(torch.ones(2, 8)), theirs(torch.ones(2, 8)))
        assert ours.double()(torch.ones(2, 8).double()).dtype == torch.float64


@every_layer
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_layers_train_in_half_precision(name: str, half: torch.dtype) -> None:
    layer, x = made(name, torch.float32)
    expected = layer(x)[0]
    layer = layer.to(half)
    y, state = layer(x.to(half), carry=True)
    y.float().square().mean().backward()
    assert y.dtype == half
    assert apart(y.float(), expected) < 0.1
    assert all(each.grad is not None and each.grad.dtype == half for each in layer.parameters())
    assert layer(x.to(half), state, carry=True)[0].dtype == half


@every
def test_mixed_dtypes_are_promoted(case: Case) -> None:
    inputs = drawn(case, 2, 4, 2, 4)
    mixed = {
        name: value.float() if at % 2 and isinstance(value, Tensor) and value.dtype == torch.float64 else value
        for at, (name, value) in enumerate(inputs.items())
    }
    assert apart(case.run(mixed)[0], case.run(inputs)[0]) < 1e-5


@every_layer
def test_per_sample_gradients_are_those_of_a_loop(name: str) -> None:
    layer, x = made(name)
    values = dict(layer.named_parameters())

    def loss(values: dict[str, Tensor], x_TW: Tensor) -> Tensor:
        return functional_call(layer, values, (x_TW[None],))[0].square().sum()  # type: ignore[no-any-return]

    mapped = vmap(grad(loss), (None, 0))(values, x)
    for at, one in enumerate(x):
        single = grad(loss)(values, one)
        assert all(torch.allclose(mapped[key][at], single[key]) for key in values)


@every_layer
def test_forward_mode_is_the_product_with_the_gradient(name: str) -> None:
    layer, x = made(name)
    values = dict(layer.named_parameters())
    ones = {key: torch.ones_like(each) for key, each in values.items()}

    def loss(values: dict[str, Tensor]) -> Tensor:
        return functional_call(layer, values, (x,))[0].square().sum()  # type: ignore[no-any-return]

    _, tangent = jvp(loss, (values,), (ones,))
    assert torch.allclose(tangent, sum(each.sum() for each in grad(loss)(values).values()))


COMPILED = """
import sys, torch
from distseq.kernels.layers import LAYERS
for name in LAYERS:
    layer, x = LAYERS[name](8), torch.randn(2, 6, 8)
    torch._dynamo.reset()
    y = torch.compile(layer, backend="aot_eager")(x)[0]
    own = torch.autograd.grad(y.square().sum(), list(layer.parameters()))
    plain = torch.autograd.grad(layer(x)[0].square().sum(), list(layer.parameters()))
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(own, plain)), name
    torch._dynamo.reset()
    try:
        torch.compile(layer, backend="aot_eager", fullgraph=True)(x)
    except Exception as error:
        assert "use torch.compile without fullgraph" in str(error), (name, error)
    else:
        raise AssertionError(name)
"""


@pytest.mark.slow
def test_torch_compile_leaves_primitives_as_they_are() -> None:
    """In a process of its own: dynamo keeps state."""
    subprocess.run([sys.executable, "-c", COMPILED], check=True, timeout=300)


@every_layer
def test_float32_is_the_function_that_float64_is(name: str) -> None:
    """At a layer's own start, for inputs of usual size and for small ones, where an epsilon decides."""
    for size in (1.0, 1e-2):
        layer, x = made(name)
        x, single = size * x, deepcopy(layer).float()
        wide, narrow = layer(x)[0], single(x.float())[0]
        assert apart(narrow.double(), wide) < 1e-4
        for one, other in zip(
            torch.autograd.grad(narrow.square().sum(), list(single.parameters())),
            torch.autograd.grad(wide.square().sum(), list(layer.parameters())),
            strict=True,
        ):
            assert apart(one.double(), other) < 1e-3


@pytest.mark.parametrize("name", sorted(set(names) - {"LAYERS", "Layer", "RNN", "layers_of"}))
def test_what_a_layer_prints_is_made_of_its_options(name: str) -> None:
    assert "width=8" in repr(getattr(__import__("distseq.kernels.layers", fromlist=[name]), name)(8))
