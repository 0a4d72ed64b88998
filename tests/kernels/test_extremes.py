"""Arguments far outside what training reaches: the chunked forms still give what the loop gives."""

from math import inf

import pytest
import torch
from torch import Tensor

from distseq import kernels
from tests.kernels.cases import COMPOSED, PRIMITIVES, Case
from tests.kernels.comparing import apart, drawn, leaves

DECAYED = {name: case for name, case in PRIMITIVES.items() if "g" in drawn(case, 1, 1, 1, 2)}
EXTREMES = (-80.0, -1e3, -1e15, -1e30, -inf, 0.0, -1e-30)


def both(case: Case, inputs: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> list[list[Tensor]]:
    """y, the states and the gradients of their sum, of the eager backend and of the loop."""
    found = []
    for backend in ("eager", "reference"):
        monkeypatch.setenv("DISTSEQ_KERNELS", backend)
        own, _, tensors = leaves(case, inputs, ())
        y, states = case.run(own)
        total = y.sum() + sum(each.sum() for at, each in enumerate(states) if at not in case.opaque)
        found.append([y.detach(), *torch.autograd.grad(total, tensors)])
    return found


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in DECAYED.items()])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("extreme", EXTREMES)
@pytest.mark.parametrize("share", [0.2, 1.0])
def test_any_log_decay_is_as_in_the_loop(
    case: Case, dtype: torch.dtype, extreme: float, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone and among usual ones, whose digits it must not take away."""
    inputs = drawn(case, 2, 13, 2, 4, dtype=dtype)
    chosen = torch.rand(inputs["g"].shape, generator=torch.Generator().manual_seed(3)) < share
    inputs["g"] = torch.where(chosen, torch.tensor(extreme, dtype=dtype), inputs["g"])
    for found, expected in zip(*both(case, inputs, monkeypatch), strict=True):
        assert expected.isfinite().all()
        assert apart(found, expected) < (1e-4 if dtype == torch.float32 else 1e-10)


@pytest.mark.parametrize("gate", ["i", "f"])
@pytest.mark.parametrize("extreme", [*EXTREMES, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("share", [0.2, 1.0])
def test_mlstm_gates_of_any_size_are_as_in_the_published_recurrence(
    gate: str, extreme: float, dtype: torch.dtype, share: float
) -> None:
    inputs = drawn(COMPOSED["mlstm"], 2, 13, 2, 4, dtype=dtype)
    chosen = torch.rand(inputs[gate].shape, generator=torch.Generator().manual_seed(3)) < share
    inputs[gate] = torch.where(chosen, torch.tensor(extreme, dtype=dtype), inputs[gate])
    found = kernels.mlstm(**inputs)[0]
    q, k, v, i, f = (inputs[name].double() for name in "qkvif")
    # Stabilized step by step (Beck et al. 2024, eq. 15): what is -inf - -inf there has the weight 0.
    state, m = q.new_zeros(2, 2, 4, v.shape[-1] + 1), q.new_zeros(2, 2)
    values = torch.nn.functional.pad(v, (0, 1), value=1.0)
    for t in range(13):
        forget = torch.nn.functional.logsigmoid(f[:, t]) + m
        after = torch.maximum(forget, i[:, t]).clamp_min(-1e300)
        kept, written = torch.exp(forget - after), torch.exp(i[:, t] - after)
        state = kept[..., None, None] * state + written[..., None, None] * k[:, t, :, :, None] * values[:, t, :, None]
        read, m = (q[:, t, :, :, None] * state).sum(2), after
        expected = read[..., :-1] / torch.maximum(read[..., -1:].abs(), torch.exp(-m)[..., None])
        assert apart(found[:, t].double(), expected) < (1e-3 if dtype == torch.float32 else 1e-9)


@pytest.mark.parametrize("begun", [1, 3, 7])
def test_prefix_softmax_of_scores_that_are_all_masked_so_far_is_zero(
    begun: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for backend in ("eager", "reference"):
        monkeypatch.setenv("DISTSEQ_KERNELS", backend)
        inputs = drawn(PRIMITIVES["prefix_softmax"], 2, 7, 2, 3)
        inputs["s"][:, :begun] = -inf
        s, v = (each.clone().requires_grad_() for each in (inputs["s"], inputs["v"]))
        o, _ = kernels.prefix_softmax(s, v, chunk=4)
        assert not o[:, :begun].any()
        if begun < 7:
            rest, _ = kernels.prefix_softmax(inputs["s"][:, begun:], inputs["v"][:, begun:])
            assert torch.allclose(o[:, begun:], rest)
        assert all(each.isfinite().all() for each in torch.autograd.grad(o.sum(), (s, v)))
