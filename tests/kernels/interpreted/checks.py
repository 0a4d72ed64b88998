"""INTERPRETED in Triton's interpreter: values and gradients. test_triton_interpret.py runs this file in a process of its own.

TRITON_INTERPRET=1 python -m pytest tests/kernels/interpreted/checks.py -k rnn
"""

import pytest
import torch

from tests.kernels.comparing import apart, begun, drawn, finite_differences, gradients, weighed, worst
from tests.kernels.triton_cases import INTERPRETED, Small

every = pytest.mark.parametrize("small", [pytest.param(small, id=name) for name, small in INTERPRETED.items()])


@pytest.fixture(autouse=True)
def forced(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTSEQ_KERNELS", f"{small.case.op}=triton")


@every
@pytest.mark.parametrize(
    ("first", "dtype", "bound"),
    [
        (True, torch.bfloat16, 1e-2),
        (False, torch.float32, 1e-5),
        # Each of both is above; the other pairs are left to `make test-long`.
        pytest.param(True, torch.float32, 1e-5, marks=pytest.mark.long),
        pytest.param(False, torch.bfloat16, 1e-2, marks=pytest.mark.long),
    ],
)
def test_it_agrees_with_the_loop(
    small: Small, first: bool, dtype: torch.dtype, bound: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = (small.B, small.T, small.H, small.D)
    inputs, results = drawn(small.case, *sizes, dtype=dtype), []
    states = () if first else begun(small.case, small.B, small.H, small.D, dtype=dtype)
    for backend in ("triton", "reference"):
        monkeypatch.setenv("DISTSEQ_KERNELS", backend)
        results.append(gradients(small.case, inputs, states))
    assert [each.dtype for each in results[0]] == [each.dtype for each in results[1]]
    assert max(apart(found, expected) for found, expected in zip(*results, strict=True)) <= bound


@every
def test_the_gradient_is_that_of_finite_differences(small: Small) -> None:
    assert finite_differences(small.case, 1, small.differences, 1, 2, along=True)


@every
def test_strides_change_nothing(small: Small) -> None:
    """Inputs that lie transposed, and an expanded gradient (stride 0), which a kernel that assumes contiguity reads past."""
    inputs = drawn(small.case, small.B, small.T, small.H, small.D, dtype=torch.float32)
    results = []
    for transposed, expanded in ((False, False), (True, True)):
        own = {
            name: value.transpose(0, -1).contiguous().transpose(0, -1) if transposed else value.clone()
            for name, value in inputs.items()
        }
        wanted = [value.requires_grad_() for value in own.values() if value.is_floating_point()]
        y, _ = small.case.run(own)
        one = torch.ones((), dtype=y.dtype)
        results.append(torch.autograd.grad(y, wanted, one.expand(y.shape) if expanded else torch.ones(y.shape)))
    for found, expected in zip(*results, strict=True):
        assert apart(found, expected) <= 1e-6


@every
def test_models_beside_each_other_are_the_models_alone(small: Small) -> None:
    models = [drawn(small.case, small.B, small.T, small.H, small.D, seed, torch.float32) for seed in range(2)]
    stacked = {name: torch.stack([each[name] for each in models]) for name in models[0]}
    mapped = {name: value.requires_grad_(value.is_floating_point()) for name, value in stacked.items()}
    found = [value for value in mapped.values() if value.requires_grad]
    alone = [small.case.run({name: value[m] for name, value in mapped.items()})[0] for m in range(2)]
    y = torch.func.vmap(lambda own: small.case.run(own)[0])(mapped)
    assert worst(weighed((y,), found), weighed((torch.stack(alone),), found)) <= 1e-6


@every
def test_any_log_decay_is_as_in_the_loop(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    """-inf and beyond what float32 sums of log-decays can hold, beside usual ones."""
    inputs, results = drawn(small.case, small.B, small.T, small.H, small.D, dtype=torch.float32), []
    if "g" not in inputs:
        pytest.skip("no log-decays")
    for at, extreme in enumerate((-1e15, float("-inf"), -1e3)):
        inputs["g"][:, at :: small.T // 2 + 1] = extreme
    for backend in ("triton", "reference"):
        monkeypatch.setenv("DISTSEQ_KERNELS", f"{small.case.op}={backend}")
        results.append(gradients(small.case, inputs))
    # Not relative to a tensor's own size: the gradient of a decay to 0 is 0, and the kernels' a difference of two sums.
    assert all(torch.allclose(found, expected, atol=1e-5) for found, expected in zip(*results, strict=True))
