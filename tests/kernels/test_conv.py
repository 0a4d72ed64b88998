"""Convolutions against torch's own, each other, and what an impulse gives."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import conv1d

from distseq import kernels
from distseq.kernels.eager.conv import points
from tests.kernels.cases import normal
from tests.kernels.comparing import apart, copies, weighed, worst


@pytest.fixture(params=["reference", "eager"], autouse=True)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTSEQ_KERNELS", request.param)


def drawn(T: int, L: int, dilation: int = 1) -> list[Tensor]:
    """x, the taps, and a state, of 2 samples and 3 channels."""
    draws = torch.Generator().manual_seed(T + 100 * L)
    return copies(normal(draws, 2, T, 3), normal(draws, 3, L), normal(draws, 2, (L - 1) * dilation, 3))


@pytest.mark.parametrize("T", [1, 2, 7, 20])
@pytest.mark.parametrize(("L", "dilation"), [(1, 1), (2, 1), (4, 1), (3, 2), (2, 9)])
def test_a_short_convolution_is_that_of_torch(T: int, L: int, dilation: int) -> None:
    own = drawn(T, L, dilation)
    x, w, state = own
    inputs = torch.cat([state, x], 1)
    y = conv1d(inputs.transpose(1, 2), w[:, None], groups=3, dilation=dilation).transpose(1, 2)
    expected = weighed((y, inputs[:, T:]), own)
    assert worst(weighed(kernels.short_conv(*own, dilation=dilation), own), expected) <= 1e-10


@pytest.mark.parametrize("T", [1, 2, 7, 20])
@pytest.mark.parametrize("L", [1, 2, 6, 7, 33])
def test_a_long_convolution_is_the_short_one_with_its_taps_reversed(T: int, L: int) -> None:
    own = drawn(T, L)
    x, k, state = own
    expected = weighed(kernels.short_conv(x, k.flip(1), state), own)
    assert worst(weighed(kernels.fft_conv(*own), own), expected) <= 1e-10


@pytest.mark.parametrize("op", ["short_conv", "fft_conv"])
def test_an_impulse_gives_the_taps_and_the_state_is_the_last_inputs(op: str) -> None:
    x, (_, taps, _) = torch.zeros(2, 9, 3, dtype=torch.float64), drawn(9, 5)
    x[:, 2] = 1
    y, state = getattr(kernels, op)(x, taps)
    response = (taps.flip(1) if op == "short_conv" else taps).T
    assert apart(y[:, 2:7], response.expand(2, 5, 3)) <= 1e-12
    assert float(y[:, :2].detach().abs().max()) <= 1e-12
    assert torch.equal(state, x[:, -4:])


@pytest.mark.parametrize("op", ["short_conv", "fft_conv"])
def test_half_precision_is_computed_in_float32(op: str) -> None:
    x, taps, state = (each.detach().to(torch.bfloat16) for each in drawn(9, 5))
    y, after = getattr(kernels, op)(x, taps, state)
    wide, wide_after = getattr(kernels, op)(x.float(), taps.float(), state.float())
    assert (y.dtype, after.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(y, wide.to(torch.bfloat16))
    assert torch.equal(after, wide_after)


@pytest.mark.parametrize("op", ["short_conv", "fft_conv"])
@pytest.mark.parametrize("frozen", [0, 1])
def test_what_is_frozen_changes_no_other_gradient(op: str, frozen: int) -> None:
    own = drawn(9, 5)
    expected = torch.autograd.grad(getattr(kernels, op)(*own[:2])[0].sum(), own[1 - frozen])
    own[frozen].requires_grad_(False)
    found = torch.autograd.grad(getattr(kernels, op)(*own[:2])[0].sum(), own[1 - frozen])
    assert torch.equal(found[0], expected[0])


@given(st.integers(1, 10**6))
def test_the_points_of_an_fft_hold_the_sequence_and_are_few(least: int) -> None:
    n = points(least)
    assert least <= n < max(2, 1.5 * least)
    while n % 2 == 0:
        n //= 2
    assert n in (1, 3)
