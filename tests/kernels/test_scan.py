"""The scan: linear in x, cut by a = 0, the same in both regimes, a shared or not; and what else is a scan equals it.

Shapes: B batch, T time, D channels, N states.
"""

import pytest
import torch
from torch import Tensor

from distseq import kernels
from distseq.kernels.eager import scan as eager
from tests.kernels.cases import PRIMITIVES, normal, uniform
from tests.kernels.comparing import apart, copies, weighed, worst


@pytest.fixture(params=["reference", "steps", "chunks"], autouse=True)
def regime(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The loop, and both regimes of the eager scan whatever the size."""
    monkeypatch.setenv("DISTSEQ_KERNELS", "reference" if request.param == "reference" else "eager")
    monkeypatch.setattr(eager, "SMALL", 10**9 if request.param == "chunks" else 0)
    monkeypatch.setattr(eager, "SHORT", 1)
    return str(request.param)


def drawn(kind: str, B: int, T: int, D: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """a, x and a state."""
    draws = torch.Generator().manual_seed(seed)
    inputs = PRIMITIVES[f"scan-{kind}"].draw(B, T, 1, D, draws)
    state = normal(draws, B, 1, D)
    return inputs["a"], inputs["x"], state.to(inputs["x"].dtype)


def test_the_rule_puts_small_steps_into_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert eager.chunk(1024, eager.SMALL) == 1
    assert eager.chunk(1024, eager.SMALL - 1) == 32
    assert eager.chunk(eager.SHORT - 1, 1) == 1
    assert eager.chunk(eager.SHORT, 1) > 1


@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("T", [1, 2, 3, 23, 36])
def test_both_regimes_are_the_loop(kind: str, reverse: bool, T: int) -> None:
    own = copies(*drawn(kind, 2, T, 3))
    a, x, h = own
    steps: list[Tensor] = [x[:, 0]] * T
    for t in reversed(range(T)) if reverse else range(T):
        h = steps[t] = a[:, t] * h + x[:, t]
    expected = weighed((torch.stack(steps, 1), h), own)
    assert worst(weighed(kernels.scan(*own, reverse=reverse), own), expected) <= 1e-10


@pytest.mark.parametrize("kind", ["real", "complex"])
def test_it_is_linear_in_x_and_the_state(kind: str) -> None:
    (a, x, state), (_, z, other) = drawn(kind, 2, 19, 3), drawn(kind, 2, 19, 3, seed=1)
    y, after = kernels.scan(a, 2 * x - 3 * z, 2 * state - 3 * other)
    (y_x, after_x), (y_z, after_z) = kernels.scan(a, x, state), kernels.scan(a, z, other)
    assert apart(y, 2 * y_x - 3 * y_z) <= 1e-12
    assert apart(after, 2 * after_x - 3 * after_z) <= 1e-12


@pytest.mark.parametrize("at", [0, 1, 7, 18])
def test_where_a_is_zero_nothing_gets_through(at: int) -> None:
    a, x, state = copies(*drawn("real", 2, 19, 3))
    cut = torch.where(torch.arange(19)[:, None, None] == at, 0.0, a)
    y = kernels.scan(cut, x, state)[0]
    assert apart(y[:, at:], kernels.scan(a[:, at:], x[:, at:])[0]) <= 1e-12
    d_x, d_state = torch.autograd.grad(y[:, at:].sum(), (x, state))
    assert not d_x[:, :at].any()
    assert not d_state.any()


def test_the_scan_with_resets_is_its_segments_run_alone() -> None:
    B, T, D = 3, 23, 4
    reset = uniform(torch.Generator().manual_seed(3), B, T) < 0.25
    assert reset.any(1).all()
    own = copies(*drawn("real", B, T, D))
    a, x, state = own
    whole = weighed(kernels.scan(a, x, state, reset=reset), own)
    rows, ends = [], []
    for b in range(B):
        cuts = [t for t in range(1, T) if reset[b, t]]
        parts = []
        for begin, end in zip([0, *cuts], [*cuts, T], strict=True):
            begun = state[b : b + 1] if begin == 0 and not reset[b, 0] else None
            part, after = kernels.scan(a[b : b + 1, begin:end], x[b : b + 1, begin:end], begun)
            parts.append(part)
        rows.append(torch.cat(parts, 1))
        ends.append(after)
    assert worst(whole, weighed((torch.cat(rows), torch.cat(ends)), own)) <= 1e-10


@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("shape", [(2, 19, 1, 3), (1, 19, 1, 3), (2, 1, 1, 3), (1, 1, 1, 3), (1, 3), (2, 19, 1, 1)])
def test_a_may_be_shared_and_its_gradients_are_summed(kind: str, reverse: bool, shape: tuple[int, ...]) -> None:
    a, x, state = drawn(kind, 2, 19, 3)
    a = a[0, 0] if len(shape) == 2 else a[tuple(slice(0, size) for size in shape)]
    own = copies(a, x, state)
    found = weighed(kernels.scan(*own, reverse=reverse), own)
    dense = weighed(kernels.scan(own[0].expand(x.shape) + 0, *own[1:], reverse=reverse), own)
    assert found[2].shape == shape
    assert worst(found, dense) <= 1e-10


def test_a_real_a_may_drive_a_complex_x() -> None:
    a, (_, x, state) = drawn("real", 2, 19, 3)[0], drawn("complex", 2, 19, 3)
    own = copies(a, x, state)
    found = weighed(kernels.scan(*own), own)
    assert found[2].dtype == torch.float64
    assert worst(found, weighed(kernels.scan(own[0].to(x.dtype), *own[1:]), own)) <= 1e-10


def test_half_precision_is_computed_in_float32() -> None:
    a, x, state = (each.to(torch.bfloat16) for each in drawn("real", 2, 19, 3))
    y, after = kernels.scan(a, x, state)
    wide, wide_after = kernels.scan(a.float(), x.float(), state.float())
    assert (y.dtype, after.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(y, wide.to(torch.bfloat16))
    assert torch.equal(after, wide_after)


@pytest.mark.parametrize("begun", [False, True])
def test_the_max_scan_is_its_loop(begun: bool) -> None:
    draws = torch.Generator().manual_seed(0)
    own = copies(-uniform(draws, 2, 19, 3), normal(draws, 2, 19, 3), normal(draws, 2, 3))
    f, i, state = own
    m = state if begun else torch.full_like(state, float("-inf"))
    steps = []
    for f_t, i_t in zip(f.unbind(1), i.unbind(1), strict=True):
        m = torch.maximum(f_t + m, i_t)
        steps.append(m)
    expected = weighed((torch.stack(steps, 1), m), own[: 2 + begun])
    found = weighed(kernels.max_scan(f, i, state if begun else None), own[: 2 + begun])
    assert worst(found, expected) <= 1e-10


def test_a_diagonal_state_space_model_is_its_convolution() -> None:
    """S4D (Gu et al. 2022): the recurrence by a complex scan, and the FFT convolution with its Vandermonde kernel."""
    B, T, D, N = 2, 37, 3, 4
    draws = torch.Generator().manual_seed(0)
    u, log_dt, decay, frequency = normal(draws, B, T, D), -1 - uniform(draws, D, 1), normal(draws, D, N), 3.0
    own = copies(u, log_dt, decay, frequency * normal(draws, D, N), normal(draws, D, N), normal(draws, D, N))

    def discretised(log_dt: Tensor, decay: Tensor, turn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        A = torch.complex(-torch.exp(decay), turn)
        dtA = torch.exp(log_dt) * A
        return dtA, torch.exp(dtA), torch.expm1(dtA) / A  # zero-order hold

    def recurrent(u: Tensor, log_dt: Tensor, decay: Tensor, turn: Tensor, real: Tensor, imag: Tensor) -> Tensor:
        _, a, b = discretised(log_dt, decay, turn)
        return 2 * (torch.complex(real, imag) * kernels.scan(a, b * u[..., None])[0]).real.sum(-1)

    def convolved(u: Tensor, log_dt: Tensor, decay: Tensor, turn: Tensor, real: Tensor, imag: Tensor) -> Tensor:
        dtA, _, b = discretised(log_dt, decay, turn)
        vandermonde = torch.exp(dtA[..., None] * torch.arange(T))
        k = 2 * ((torch.complex(real, imag) * b)[..., None] * vandermonde).real.sum(1)
        return kernels.fft_conv(u, k)[0]

    assert worst(weighed((recurrent(*own),), own), weighed((convolved(*own),), own)) <= 1e-10
