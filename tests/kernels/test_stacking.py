"""One test over all primitives of models beside each other: torch.func.vmap of a call is the calls one by one."""

from typing import Any

import pytest
import torch
from torch import Tensor

from distseq.kernels.eager.rnn import BLOCK
from distseq.kernels.linear import linear
from tests.kernels.cases import PRIMITIVES, Case, Inputs
from tests.kernels.comparing import begun, drawn, weighed, worst

every = pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in PRIMITIVES.items()])
M = 3


def outputs(case: Case, inputs: Inputs, states: tuple[Any, ...]) -> tuple[Tensor, ...]:
    y, after = case.run(inputs, case.state(states) if states else None)
    return (y, *(each for at, each in enumerate(after) if each is not None and at not in case.opaque))


def leaf(value: Tensor) -> Tensor:
    return value if value.dtype == torch.bool else value.detach().clone().requires_grad_()


def of(mapped: Inputs, shared: Inputs, m: int) -> Inputs:
    return {**shared, **{name: value[m] for name, value in mapped.items()}}


@every
@pytest.mark.parametrize("which", ["all", "first", "last"])
@pytest.mark.parametrize("given", [False, True])
def test_models_beside_each_other_are_the_models_alone(case: Case, which: str, given: bool) -> None:
    models = [drawn(case, 2, 6, 2, 3, seed=seed) for seed in range(M)]
    names = {"all": list(models[0]), "first": list(models[0])[:1], "last": list(models[0])[-1:]}[which]
    mapped = {name: leaf(torch.stack([each[name] for each in models])) for name in names}
    shared = {name: leaf(value) for name, value in models[0].items() if name not in names}
    states = begun(case, 2, 2, 3) if given else ()
    found = [each for each in (*mapped.values(), *shared.values()) if each.requires_grad]

    def together(own: Inputs) -> tuple[Tensor, ...]:
        return outputs(case, {**shared, **own}, states)

    alone = [outputs(case, of(mapped, shared, m), states) for m in range(M)]
    expected = weighed(tuple(map(torch.stack, zip(*alone, strict=True))), found)
    assert worst(weighed(torch.func.vmap(together)(mapped), found), expected) <= 1e-12


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_bits_do_not_depend_on_who_is_beside_where_time_is_cut_into_blocks(cell: str) -> None:
    case, B, H, D = PRIMITIVES[f"rnn-{cell}"], 4, 2, 16
    T = 2 * BLOCK // (B * H * D) + 1
    models = [drawn(case, B, T, H, D, seed=seed, dtype=torch.float32) for seed in range(2)]
    mapped = {name: leaf(torch.stack([each[name] for each in models])) for name in models[0]}
    (y,) = torch.func.vmap(lambda own: outputs(case, own, ())[:1])(mapped)
    dr = torch.autograd.grad(y.sum(), mapped["r"])[0]
    for m in range(2):
        own = {name: leaf(value[m]) for name, value in mapped.items()}
        torch.testing.assert_close(
            dr[m], torch.autograd.grad(outputs(case, own, ())[0].sum(), own["r"])[0], rtol=0, atol=0
        )


@pytest.mark.parametrize("bias", [True, False])
def test_linear_is_torchs(bias: bool) -> None:
    draws = torch.Generator().manual_seed(0)
    x, w, b = (torch.randn(*shape, generator=draws, dtype=torch.float64) for shape in ((2, 5, 3), (4, 3), (4,)))
    args = [leaf(each) for each in (x, w, b)[: 2 + bias]]
    expected = weighed((torch.nn.functional.linear(*args),), args)
    assert worst(weighed((linear(*args),), args), expected) <= 1e-14
    assert torch.autograd.gradcheck(linear, args)
    mapped = [leaf(torch.stack([each, 2 * each])) for each in args]
    y = torch.func.vmap(linear)(*mapped)
    assert (
        worst(
            weighed((y,), mapped),
            weighed((torch.stack([linear(*(each[m] for each in mapped)) for m in (0, 1)]),), mapped),
        )
        <= 1e-14
    )
