"""One test over all primitives and both backends without a compiler: the loop is the oracle of the other."""

import pytest
import torch
from torch import Tensor

from tests.kernels.cases import PRIMITIVES, Case
from tests.kernels.comparing import apart, begun, drawn, finite_differences, gradients

every = pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in PRIMITIVES.items()])
causal = pytest.mark.parametrize(
    "case", [pytest.param(case, id=name) for name, case in PRIMITIVES.items() if case.causal]
)


@pytest.fixture(params=["reference", "eager"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DISTSEQ_KERNELS", request.param)
    return str(request.param)


@every
@pytest.mark.parametrize("T", [1, 2, 5])
@pytest.mark.parametrize("H", [1, 2])
@pytest.mark.usefixtures("backend")
def test_the_gradient_is_that_of_finite_differences(case: Case, T: int, H: int) -> None:
    assert finite_differences(case, 2, T, H, 3)


@every
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("offset", [-1, 0, 1, 37])
def test_eager_agrees_with_the_loop(
    case: Case, dtype: torch.dtype, bound: float, offset: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    T = 37 if offset == 37 else max(1, case.edge + offset)
    for first in (True, False):
        inputs, results = drawn(case, 3, T, 2, 5, dtype=dtype), []
        states = () if first else begun(case, 3, 2, 5, dtype=dtype)
        for backend in ("eager", "reference"):
            monkeypatch.setenv("DISTSEQ_KERNELS", backend)
            results.append(gradients(case, inputs, states))
        assert [each.dtype for each in results[0]] == [each.dtype for each in results[1]]
        assert max(apart(found, expected) for found, expected in zip(*results, strict=True)) <= bound


@causal
@pytest.mark.parametrize("at", [1, 4, 6])
@pytest.mark.usefixtures("backend")
def test_a_sequence_may_be_split_anywhere(case: Case, at: int) -> None:
    T = 7
    inputs = drawn(case, 2, T, 2, 3)
    whole, states = case.run(inputs)
    first, middle = case.run(case.part(inputs, 0, at))
    second, after = case.run(case.part(inputs, at, T), case.state(middle))
    assert apart(torch.cat([first, second], 1), whole) <= 1e-12
    assert all(apart(one, other) <= 1e-12 for one, other in zip(after, states, strict=True) if one is not None)


@causal
@pytest.mark.usefixtures("backend")
def test_single_steps_are_the_sequence(case: Case) -> None:
    inputs = drawn(case, 2, 6, 2, 3)
    state, steps = None, []
    for t in range(6):
        y, states = case.run(case.part(inputs, t, t + 1), state)
        state = case.state(states)
        steps.append(y)
    assert apart(torch.cat(steps, 1), case.run(inputs)[0]) <= 1e-12


@causal
@pytest.mark.usefixtures("backend")
def test_the_future_does_not_change_the_past(case: Case) -> None:
    inputs, other = drawn(case, 2, 9, 2, 3), drawn(case, 2, 9, 2, 3, seed=5)
    mixed = {
        name: torch.cat([value[:, : 5 * case.timed[name]], other[name][:, 5 * case.timed[name] :]], 1)
        if name in case.timed
        else value
        for name, value in inputs.items()
    }
    y, changed = case.run(inputs)[0], case.run(mixed)[0]
    assert apart(changed[:, :5], y[:, :5]) <= 1e-12
    assert apart(changed[:, 5:], y[:, 5:]) > 1e-3


@every
@pytest.mark.usefixtures("backend")
def test_samples_do_not_see_each_other(case: Case) -> None:
    inputs, order = drawn(case, 4, 6, 2, 3), torch.tensor([2, 0, 3, 1])
    permuted = {
        name: value[order] if name in case.timed and value.shape[0] == 4 else value for name, value in inputs.items()
    }
    assert apart(case.run(permuted)[0], case.run(inputs)[0][order]) <= 1e-12


@every
@pytest.mark.usefixtures("backend")
def test_heads_do_not_see_each_other(case: Case) -> None:
    inputs = drawn(case, 2, 6, 3, 4)
    y = case.run(inputs)[0]
    for head in range(3):
        alone = {
            name: value.narrow(case.heads[name], head, 1) if name in case.heads else value
            for name, value in inputs.items()
        }
        assert apart(case.run(alone)[0], y.narrow(2, head, 1)) <= 1e-12


@every
@pytest.mark.usefixtures("backend")
def test_strides_change_nothing(case: Case) -> None:
    """Transposed inputs, and an expanded gradient (stride 0), which a kernel that assumes contiguity would read past."""
    inputs = drawn(case, 2, 6, 3, 4)

    def strided(value: Tensor) -> Tensor:
        return value.transpose(0, -1).contiguous().transpose(0, -1) if value.dim() > 1 else value

    results = []
    for variant in (inputs, {name: strided(value) for name, value in inputs.items()}):
        own = {n: v.detach().requires_grad_() if v.dtype != torch.bool else v for n, v in variant.items()}
        y = case.run(own)[0]
        total = (y.real if y.is_complex() else y).sum()
        results.append(torch.autograd.grad(total, [v for v in own.values() if v.requires_grad]))
    ones = {n: v.detach().clone().requires_grad_() if v.dtype != torch.bool else v for n, v in inputs.items()}
    y = case.run(ones)[0]
    full = torch.autograd.grad(y, [v for v in ones.values() if v.requires_grad], torch.ones_like(y.real).to(y.dtype))
    for one, other, dense in zip(*results, full, strict=True):
        assert apart(one, dense) <= 1e-12
        assert apart(other, dense) <= 1e-12


@every
@pytest.mark.usefixtures("backend")
def test_whole_numbers_and_wrong_layouts_are_named(case: Case) -> None:
    inputs = drawn(case, 2, 5, 2, 3)
    for name in [name for name in case.timed if name in inputs and inputs[name].dtype != torch.bool]:
        with pytest.raises(ValueError, match=rf"{case.op}: {name} must be floating point"):
            case.run({**inputs, name: torch.ones(inputs[name].shape, dtype=torch.int64)})
        with pytest.raises(ValueError, match=rf"{case.op}: "):
            case.run({**inputs, name: inputs[name][..., 0, 0] if case.op == "scan" else inputs[name][0, 0]})
