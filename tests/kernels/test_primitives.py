"""One test over all primitives and both backends without a compiler: the loop is the oracle of the other."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.examples import examples
from tests.kernels.cases import COMPOSED, PRIMITIVES, Case, Inputs, normal
from tests.kernels.comparing import (
    apart,
    begun,
    cast,
    drawn,
    finite_differences,
    gradients,
    leaves,
    smooth,
    weighed,
    worst,
)

every = pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in PRIMITIVES.items()])
causal = pytest.mark.parametrize(
    "case", [pytest.param(case, id=name) for name, case in PRIMITIVES.items() if case.causal]
)
PROPERTY = settings(derandomize=True)
SPLIT = {name: case for name, case in {**PRIMITIVES, **COMPOSED}.items() if case.causal}


def chunked(case: Case, chunk: int) -> Case:
    """With that chunk, where it has one."""
    return replace(case, options={**case.options, "chunk": chunk}) if "chunk" in case.options else case


@pytest.fixture(params=["reference", "eager"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DISTSEQ_KERNELS", request.param)
    return str(request.param)


@every
@pytest.mark.parametrize(
    ("T", "H"),
    # Each length and each number of heads; the other pairs are left to `make test-long`.
    [(1, 1), (2, 1), (5, 2), *(pytest.param(*pair, marks=pytest.mark.long) for pair in ((1, 2), (2, 2), (5, 1)))],
)
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


def joined(case: Case, inputs: Inputs, parts: Sequence[int]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """y and the last states of parts of these lengths, each begun with the states of the one before."""
    ys, state = [], None
    for begin, end in pairwise(accumulate(parts, initial=0)):
        y, states = case.run(case.part(inputs, begin, end), state)
        ys.append(y)
        state = case.state(states)
    return torch.cat(ys, 1), states


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in SPLIT.items()])
@given(
    parts=st.lists(st.integers(1, 3), min_size=1, max_size=8) | st.lists(st.integers(1, 36), min_size=1, max_size=3),
    size=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(2, 4)),
    chunk=st.integers(1, 40),
    seed=st.integers(0, 2**31),
)
@example(parts=[1] * 6, size=(2, 2, 3), chunk=4, seed=0)
@example(parts=[4, 3], size=(2, 2, 3), chunk=4, seed=0)
@example(parts=[5, 1, 5], size=(2, 1, 3), chunk=4, seed=0)
@settings(PROPERTY, max_examples=10)
@pytest.mark.usefixtures("backend")
def test_a_sequence_may_be_split_anywhere(
    case: Case, parts: list[int], size: tuple[int, int, int], chunk: int, seed: int
) -> None:
    """Values, the states after, and gradients through the states between."""
    (B, H, D), case = size, chunked(case, chunk)
    results = []
    for lengths in (parts, [sum(parts)]):
        own, _, found = leaves(case, drawn(case, B, sum(parts), H, D, seed), ())
        y, states = joined(case, own, lengths)
        results.append(([y, *(each for each in states if each is not None)], weighed(smooth(case, y, states), found)))
    (values, found), (whole, expected) = results
    assert worst(values, whole) <= 1e-12
    assert worst(found, expected) <= 1e-10


def _score(level: Tensor, value: Tensor) -> Tensor:
    return 1e4 * level


def _decay(level: Tensor, value: Tensor) -> Tensor:
    return -200 * level.abs()


# Primitive and input -> what it is at a level from -1 to 1: a score up to +-1e4, a log-decay down to -200, or what gives one.
EXTREMES: dict[tuple[str, str], Callable[[Tensor, Tensor], Tensor]] = {
    ("rnn", "x"): _score,
    ("prefix_softmax", "s"): _score,
    ("mlstm", "i"): _score,
    ("mlstm", "f"): _score,
    # Where keys cancel, mLSTM divides by what is left of them.
    ("mlstm", "q"): lambda level, value: value.abs(),
    ("mlstm", "k"): lambda level, value: value.abs(),
    ("lightnet", "k"): _score,
    ("attention", "q"): lambda level, value: 1e4 * level * value,
    ("linear_attention", "g"): _decay,
    ("delta_rule", "g"): _decay,
    ("scan", "a"): lambda level, value: value / value.abs() * torch.exp(_decay(level, value)),
    ("selective_scan", "dt"): lambda level, value: -_decay(level, value),
}
EXTREME = {
    name: case
    for name, case in {**PRIMITIVES, **COMPOSED}.items()
    if any((case.op, each) in EXTREMES and each in case.timed for each in drawn(case, 1, 1, 1, 2))
}
# The memory is that of its m, which float32 rounds: h alone is what it should be.
EXTREME["mlstm"] = replace(EXTREME["mlstm"], opaque=(0, 1))
# What adds to such a score, or makes it of a product, keeps three digits of it in float32.
ROUNDED = ("rnn-slstm", "lightnet", *(name for name in EXTREME if name.startswith("attention")))


def extreme(case: Case, inputs: Inputs, levels: list[float], seed: int) -> Inputs:
    """Each number at one of these levels; those of the first sample at small ones, which give a tensor its ordinary scale."""
    draws, changed = torch.Generator().manual_seed(seed), dict(inputs)
    for name in (each for each in case.timed if each in inputs and (case.op, each) in EXTREMES):
        shape = inputs[name].shape
        level = torch.tensor(levels, dtype=torch.float64)[torch.randint(len(levels), shape, generator=draws)]
        level[0] = 1e-4 * normal(draws, *shape[1:])
        changed[name] = EXTREMES[case.op, name](level, inputs[name])
    return changed


@pytest.mark.parametrize("name", EXTREME)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@given(
    levels=st.lists(
        st.sampled_from((0.0, 1.0, -1.0)) | st.floats(-1, 1) | st.floats(-0.02, 0.02), min_size=1, max_size=4
    ),
    size=st.tuples(st.integers(8, 40), st.integers(2, 3), st.integers(3, 5)),
    begins=st.booleans(),
    chunk=st.integers(1, 40),
    seed=st.integers(0, 2**31),
)
@examples(20)
def test_extreme_values_are_finite_and_right(
    name: str,
    dtype: torch.dtype,
    bound: float,
    levels: list[float],
    size: tuple[int, int, int],
    begins: bool,
    chunk: int,
    seed: int,
) -> None:
    """Outputs and gradients are finite, and those of the loop in float64."""
    case, (T, H, D) = chunked(EXTREME[name], chunk), size
    inputs = extreme(case, drawn(case, 3, T, H, D, seed), levels, seed)
    states = begun(case, 3, H, D, dtype=dtype) if begins and case.causal else ()
    results = []
    for backend, precision in (("eager", dtype), ("reference", torch.float64)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DISTSEQ_KERNELS", backend)
            # The numbers themselves are those of `dtype`.
            own = {key: cast(cast(value, dtype), precision) for key, value in inputs.items()}
            results.append(gradients(case, own, tuple(cast(each, precision) for each in states)))
    found, expected = results
    assert all(bool(each.isfinite().all()) for each in found)
    if dtype == torch.float64 or name not in ROUNDED:
        assert worst([cast(each, torch.float64) for each in found], expected) <= bound


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
