"""The attention over neighbors has the gradients of plain operations, in every part that wants one."""

import pytest
import torch
from torch import Tensor

from distseq.models.temporal.layers.attention import _Attend

Q, H, K = 5, 2, 4


def plain(scale: float, q: Tensor, valid: Tensor, kept: Tensor | None, *parts: Tensor) -> Tensor:
    x = torch.cat(parts, 2)
    score = (torch.einsum("qhp,qkp->qhk", q, x) * scale).masked_fill(~valid[:, None], -1e300)
    weights = score.softmax(2) * valid[:, None]
    return torch.einsum("qhk,qkp->qhp", weights if kept is None else weights * kept, x)


def inputs(dropped: bool) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor]:
    draws = torch.Generator().manual_seed(0)
    q, own, other = (
        torch.randn(*shape, generator=draws, dtype=torch.float64, requires_grad=True)
        for shape in ((Q, H, 5), (Q, K, 3), (Q, K, 2))
    )
    valid = torch.rand(Q, K, generator=draws) < 0.6
    valid[0], valid[1] = False, True
    kept = (torch.rand(Q, H, K, generator=draws) < 0.7).double() / 0.7 if dropped else None
    return q, valid, kept, own, other


@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize("wanted", [(True, True), (True, False), (False, False)])
def test_values_and_gradients_are_those_of_plain_operations(dropped: bool, wanted: tuple[bool, bool]) -> None:
    q, valid, kept, *parts = inputs(dropped)
    parts = [part.detach().requires_grad_(one) for part, one in zip(parts, wanted, strict=True)]
    found, expected = (each(0.3, q, valid, kept, *parts) for each in (_Attend.apply, plain))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert not found[0].any(), "a query without a valid key attends to nothing"
    leaves = [q, *(part for part in parts if part.requires_grad)]
    weight = torch.randn(found.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for one, other in zip(
        torch.autograd.grad((found * weight).sum(), leaves),
        torch.autograd.grad((expected * weight).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


def test_a_second_derivative_is_an_error() -> None:
    q, valid, kept, *parts = inputs(dropped=False)
    (first,) = torch.autograd.grad(_Attend.apply(0.3, q, valid, kept, *parts).sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivative"):
        torch.autograd.grad(first.square().sum(), parts[0])
