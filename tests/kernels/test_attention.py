"""Attention against an explicit T x S softmax: what a query may see, large scores, and queries that see nothing."""

import pytest
import torch
from torch import Tensor

from distseq import kernels
from distseq.kernels.eager import attention as eager
from tests.kernels.cases import normal, uniform
from tests.kernels.comparing import copies, weighed, worst


@pytest.fixture(params=["reference", "eager"], autouse=True)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTSEQ_KERNELS", request.param)


def drawn(T: int, scale: float = 1.0) -> list[Tensor]:
    draws = torch.Generator().manual_seed(T)
    return copies(scale * normal(draws, 2, T, 3, 4), normal(draws, 2, T, 3, 4), normal(draws, 2, T, 3, 5))


def explicit(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    """`seen`: (B, T, S) bool. Zeros where a query sees nothing."""
    scores = (torch.einsum("bthd,bshd->bhts", q, k) * q.shape[-1] ** -0.5).masked_fill(~seen[:, None], -1e300)
    weights = torch.exp(scores - scores.amax(-1, keepdim=True).detach()).where(seen[:, None], 0.0)
    total = weights.sum(-1, keepdim=True)
    return torch.einsum("bhts,bshv->bthv", weights / total.where(total > 0, 1.0), v)


def visible(T: int, causal: bool, window: int | None, mask: Tensor | None) -> Tensor:
    seen = torch.ones(2, T, T, dtype=torch.bool)
    for query in range(T):
        for key in range(T):
            late = causal and key > query
            far = window is not None and query - key >= window
            seen[:, query, key] = not (late or far)
    return seen if mask is None else seen & mask[:, None]


KINDS = [(True, None), (True, 1), (True, 3), (True, 50), (False, None)]


@pytest.mark.parametrize(("causal", "window"), KINDS)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("T", [1, 2, 9])
def test_it_is_the_softmax_over_what_a_query_sees(causal: bool, window: int | None, masked: bool, T: int) -> None:
    own = drawn(T)
    mask = uniform(torch.Generator().manual_seed(1), 2, T) < 0.5 if masked else None
    expected = weighed((explicit(*own, visible(T, causal, window, mask)),), own)
    y, _ = kernels.attention(*own, causal=causal, window=window, key_mask=mask)
    assert worst(weighed((y,), own), expected) <= 1e-10


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("at", [1, 4, 8])
def test_a_state_carries_what_may_still_be_seen(window: int | None, masked: bool, at: int) -> None:
    own = drawn(9)
    mask = uniform(torch.Generator().manual_seed(1), 2, 9) < 0.5 if masked else None
    expected = weighed((explicit(*own, visible(9, True, window, mask)),), own)
    parts, state = [], None
    for part in (slice(0, at), slice(at, 9)):
        key_mask = None if mask is None else mask[:, part]
        y, state = kernels.attention(*(each[:, part] for each in own), state, window=window, key_mask=key_mask)
        parts.append(y)
    assert worst(weighed((torch.cat(parts, 1),), own), expected) <= 1e-10


@pytest.mark.parametrize(("causal", "window"), KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scores_of_ten_thousand_stay_finite(causal: bool, window: int | None, dtype: torch.dtype) -> None:
    q, k, v = drawn(9)
    with torch.no_grad():
        q *= 1e4 / (torch.einsum("bthd,bshd->bhts", q, k).abs().max() / 2)
    own = copies(*(each.to(dtype) for each in (q, k, v)))
    y, _ = kernels.attention(*own, causal=causal, window=window)
    assert all(bool(each.isfinite().all()) for each in weighed((y,), own))


@pytest.mark.parametrize(("causal", "window"), KINDS)
@pytest.mark.parametrize("offset", [1e4, -1e4])
def test_only_the_differences_of_scores_count(causal: bool, window: int | None, offset: float) -> None:
    """Every score is about the offset: its weights, and their gradients, are those of small scores."""
    own = drawn(9)
    with torch.no_grad():
        own[0][..., 0], own[1][..., 0] = 2 * offset, 1.0
    expected = weighed((explicit(*own, visible(9, causal, window, None)),), own)
    y, _ = kernels.attention(*own, causal=causal, window=window)
    assert worst(weighed((y,), own), expected) <= 1e-10


@pytest.mark.parametrize(("causal", "window"), KINDS)
def test_a_query_that_sees_nothing_gives_zeros_and_no_gradient(causal: bool, window: int | None) -> None:
    own = drawn(9)
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[0], mask[1, :4] = False, False
    blind = ~visible(9, causal, window, mask).any(-1)
    assert blind[0].all()
    y, d_q, d_k, d_v = weighed((kernels.attention(*own, causal=causal, window=window, key_mask=mask)[0],), own)
    assert all(bool(each.isfinite().all()) for each in (y, d_q, d_k, d_v))
    assert not y[blind].any()
    assert not d_q[blind].any()
    assert not d_k[~mask].any()
    assert not d_v[~mask].any()
    assert y[1, -1].all()


def test_plain_causal_attention_makes_no_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(eager, "_seen")
    own = drawn(9)
    _, state = kernels.attention(*own)
    kernels.attention(*(each[:, :1] for each in own), state)
    kernels.attention(*own, causal=False)
    kernels.attention(*own, window=9)


def test_half_precision_gives_half_precision() -> None:
    q, k, v = (each.detach().to(torch.bfloat16) for each in drawn(9))
    y, _ = kernels.attention(q, k, v)
    assert y.dtype == torch.bfloat16
    assert float((y - kernels.attention(q.float(), k.float(), v.float())[0]).abs().max()) <= 2e-2
