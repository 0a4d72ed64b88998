"""Matrix states: extreme decays and scores, and what reduces exactly to linear attention, the delta rule and prefix softmax."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from distseq import kernels
from tests.kernels.cases import normal, uniform
from tests.kernels.comparing import apart

B, T, H, K, V = 2, 11, 2, 3, 4


@pytest.fixture(params=["reference", "eager"], autouse=True)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DISTSEQ_KERNELS", request.param)
    return str(request.param)


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def keyed(T: int = T, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    random = draws(seed)
    return normal(random, B, T, H, K), normal(random, B, T, H, K), normal(random, B, T, H, V)


def leaves(*tensors: Tensor) -> list[Tensor]:
    return [each.detach().clone().requires_grad_() for each in tensors]


def with_gradients(function, *tensors: Tensor) -> list[Tensor]:  # type: ignore[no-untyped-def]
    """Outputs, and the gradients of a fixed random weighing of them."""
    own = leaves(*tensors)
    outputs = function(*own)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    weights = [torch.randn(each.shape, generator=draws(7), dtype=torch.float64).to(each.dtype) for each in outputs]
    total = sum((each * weight).sum() for each, weight in zip(outputs, weights, strict=True))
    return [*(each.detach() for each in outputs), *torch.autograd.grad(total, own)]


def agree(function, other, *tensors: Tensor, bound: float = 1e-10) -> None:  # type: ignore[no-untyped-def]
    found, expected = with_gradients(function, *tensors), with_gradients(other, *tensors)
    for one, two in zip(found, expected, strict=True):
        assert one.isfinite().all()
        assert apart(one, two) <= bound


# Extremes.


def _decays(kind: str, vector: bool, T: int) -> Tensor:
    """Log-decays of float32: weak, at the edge of the unhalved form, steep, or a few steep ones among weak ones."""
    g = -uniform(draws(3), B, T, H, *([K] if vector else []))
    if kind == "mixed":
        return torch.where(uniform(draws(4), *g.shape) < 0.2, 200 * g, 0.01 * g)
    return g * {"weak": 1e-3, "edge": 2.6, "strong": 9.0, "steep": 200.0}[kind]


@pytest.mark.parametrize("vector", [False, True])
@pytest.mark.parametrize("kind", ["weak", "edge", "strong", "steep", "mixed"])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_any_decay_is_finite_and_right(
    kind: str, vector: bool, dtype: torch.dtype, bound: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = [each.to(dtype) for each in (*keyed(75), _decays(kind, vector, 75))]
    state = normal(draws(5), B, H, K, V).to(dtype)

    def run(*each: Tensor) -> tuple[Tensor, Tensor]:
        return kernels.linear_attention(*each, chunk=32)

    found = with_gradients(run, *inputs, state)
    monkeypatch.setenv("DISTSEQ_KERNELS", "reference")
    expected = with_gradients(run, *(each.double() for each in (*inputs, state)))
    for one, two in zip(found, expected, strict=True):
        assert one.isfinite().all()
        assert apart(one.double(), two) <= bound


@pytest.mark.parametrize("steepest", [2.4, 2.6, 4.9, 5.1, 79.0, 81.0, 200.0])
def test_the_block_that_is_not_halved_does_not_change_what_is_computed(
    steepest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On both sides of every bound of the rule: 40 / (L / 2) = 2.5 for all 32 steps, 5 for 16, 80 for none."""
    g = -uniform(draws(3), B, 64, H, K)
    g[0, 5, 0, 1] = -steepest
    inputs = [each.float() for each in (*keyed(64), g)]
    found = with_gradients(lambda *each: kernels.linear_attention(*each, chunk=32)[0], *inputs)
    monkeypatch.setenv("DISTSEQ_KERNELS", "reference")
    expected = with_gradients(lambda *each: kernels.linear_attention(*each)[0], *(each.double() for each in inputs))
    assert max(apart(one.double(), two) for one, two in zip(found, expected, strict=True)) <= 1e-5


@pytest.mark.parametrize("steps", [1, 3])
def test_beta_near_two_is_stable(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    q, _, _ = keyed(70)
    _, k, v = keyed(70 * steps, seed=1)
    inputs = [q, k / k.norm(dim=-1, keepdim=True), v, torch.full((B, 70 * steps, H), 1.999)]
    inputs = [each.float() for each in inputs]
    found = with_gradients(lambda *each: kernels.delta_rule(*each, steps=steps), *inputs)
    monkeypatch.setenv("DISTSEQ_KERNELS", "reference")
    expected = with_gradients(lambda *each: kernels.delta_rule(*each, steps=steps), *(each.double() for each in inputs))
    assert max(apart(one.double(), two) for one, two in zip(found, expected, strict=True)) <= 1e-4


@pytest.mark.parametrize(("T", "steps", "chunk"), [(33, 1, None), (96, 1, None), (22, 3, None), (33, 1, 7), (5, 3, 2)])
def test_a_wide_delta_rule_in_chunks_of_any_length(
    T: int, steps: int, chunk: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks of 32 where nothing else is asked for; the steps of one read at least."""
    q, k, v = (normal(draws(at), B, T * (steps if at else 1), H, 64) for at in range(3))
    beta, g = uniform(draws(3), B, T * steps, H), -uniform(draws(4), B, T, H)
    inputs = [each.float() for each in (q, k / k.norm(dim=-1, keepdim=True), v, 2 * beta, g)]
    found = with_gradients(lambda *each: kernels.delta_rule(*each, steps=steps, chunk=chunk), *inputs)
    monkeypatch.setenv("DISTSEQ_KERNELS", "reference")
    expected = with_gradients(lambda *each: kernels.delta_rule(*each, steps=steps), *(each.double() for each in inputs))
    assert max(apart(one.double(), two) for one, two in zip(found, expected, strict=True)) <= 1e-5


@pytest.mark.parametrize(("shift", "spread"), [(1e4, 3.0), (-1e4, 3.0), (0.0, 1e4)])
def test_scores_of_1e4_are_finite_and_right(shift: float, spread: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32, where the log-sum of such scores has three digits: the loop, which keeps it so, is finite, not right."""
    s, v = (shift + spread * normal(draws(), B, 70, H)).float(), normal(draws(1), B, 70, H, V).float()
    loop = with_gradients(lambda s, v: kernels.prefix_softmax(s, v)[0], s, v)
    monkeypatch.setenv("DISTSEQ_KERNELS", "eager")
    found = with_gradients(lambda s, v: kernels.prefix_softmax(s, v)[0], s, v)
    for one, plain, two in zip(found, loop, with_gradients(_attends, s.double(), v.double()), strict=True):
        assert plain.isfinite().all()
        assert float((one - two).abs().max()) <= 1e-5


# Reductions.


def _attends(s: Tensor, v: Tensor) -> Tensor:
    """Causal softmax attention whose every query gives the same scores (Aaren: one query for all steps)."""
    T = s.shape[1]
    future = torch.ones(T, T, dtype=torch.bool).triu(1)
    weights = torch.softmax(s.movedim(1, 2)[:, :, None].masked_fill(future, float("-inf")), 3)
    return torch.einsum("bhts,bshv->bthv", weights, v)


def test_prefix_softmax_is_causal_attention_with_one_query() -> None:
    query = normal(draws(2), H, K)
    _, k, v = keyed()

    def aaren(query: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return kernels.prefix_softmax(torch.einsum("hk,bthk->bth", query, k) * K**-0.5, v, chunk=4)[0]

    def attention(query: Tensor, k: Tensor, v: Tensor) -> Tensor:
        queries = query.expand(B, T, H, K)
        each = (x.transpose(1, 2) for x in (queries, k, v))
        return torch.nn.functional.scaled_dot_product_attention(*each, is_causal=True).transpose(1, 2)

    agree(aaren, attention, query, k, v)


def _mlstm_cell(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor) -> Tensor:
    """Beck et al. 2024, eq. 19 to 27, stabilised as in its appendix: C, n and m step by step."""
    C, n, m = q.new_zeros(B, H, K, V), q.new_zeros(B, H, K), q.new_zeros(B, H)
    h = []
    for q_t, k_t, v_t, i_t, f_t in zip(*(each.unbind(1) for each in (q, k, v, i, f)), strict=True):
        kept = logsigmoid(f_t) + m
        m = torch.maximum(kept, i_t)
        forget, enter = torch.exp(kept - m)[..., None], torch.exp(i_t - m)[..., None]
        C = forget[..., None] * C + (enter * k_t)[..., None] * v_t[:, :, None]
        n = forget * n + enter * k_t
        norm = torch.maximum((q_t * n).sum(2).abs(), torch.exp(-m))
        h.append((q_t[..., None] * C).sum(2) / norm[..., None])
    return torch.stack(h, 1)


@pytest.mark.parametrize("size", [1.0, 30.0])
def test_mlstm_is_its_recurrent_cell(size: float) -> None:
    """With the gradient through the stabiliser too, which the cell has and ours leaves out: it is zero."""
    gates = [size * normal(draws(at), B, T, H) for at in (4, 5)]
    agree(lambda *each: kernels.mlstm(*each)[0], _mlstm_cell, *keyed(), *gates)


def _lightnet_directly(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    o = []
    for t in range(k.shape[1]):
        weights = torch.softmax(k[:, : t + 1], 1)
        o.append(torch.einsum("bhk,bshk,bshv->bhv", q[:, t], weights, v[:, : t + 1]))
    return torch.stack(o, 1)


def _lightnet_cell(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    S, z, o = q.new_zeros(B, H, K, V), torch.full_like(k[:, 0], float("-inf")), []
    for q_t, k_t, v_t in zip(*(each.unbind(1) for each in (q, k, v)), strict=True):
        before, z = z, torch.logaddexp(z, k_t)
        S = torch.exp(before - z)[..., None] * S + torch.exp(k_t - z)[..., None] * v_t[:, :, None]
        o.append((q_t[..., None] * S).sum(2))
    return torch.stack(o, 1)


@pytest.mark.parametrize("size", [1.0, 30.0])
@pytest.mark.parametrize("other", [_lightnet_directly, _lightnet_cell])
def test_lightnet_is_a_softmax_over_time_of_each_key(other, size: float) -> None:  # type: ignore[no-untyped-def]
    q, k, v = keyed()
    agree(lambda *each: kernels.lightnet(*each)[0], other, q, size * k, v)


def test_lightnet_is_linear_attention_with_a_decay_of_each_key() -> None:
    def attends(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        z = k.logcumsumexp(1)
        g = torch.cat([torch.zeros_like(z[:, :1]), z[:, :-1] - z[:, 1:]], 1)
        return kernels.linear_attention(q, torch.exp(k - z), v, g)[0]

    agree(lambda *each: kernels.lightnet(*each)[0], attends, *keyed())


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_delta_product_is_the_delta_rule_on_a_longer_sequence(steps: int) -> None:
    """Sub-steps as steps: the decay on the first, read on the last."""
    q, _, _ = keyed()
    _, k, v = keyed(T * steps, seed=1)
    beta, g = 2 * uniform(draws(2), B, T * steps, H), -uniform(draws(3), B, T, H)
    k = k / k.norm(dim=-1, keepdim=True)

    def longer(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        first = torch.zeros(steps, dtype=torch.float64)
        first[0] = 1.0
        decays = (g[:, :, None] * first[:, None]).flatten(1, 2)
        y, state = kernels.delta_rule(q.repeat_interleave(steps, 1), k, v, beta, decays, chunk=4)
        return y[:, steps - 1 :: steps], state

    agree(lambda *each: kernels.delta_rule(*each, steps=steps, chunk=6), longer, q, k, v, beta, g)


def _simulated(A: Tensor, Bu: Tensor, C: Tensor) -> Tensor:
    """y_t = C_t h_t of h_t = A_t h_{t-1} + Bu_t, one dense matrix for each step (T, n, n), (T, n), (T, V, n)."""
    h, y = torch.zeros_like(Bu[0]), []
    for A_t, Bu_t, C_t in zip(A, Bu, C, strict=True):
        h = A_t @ h + Bu_t
        y.append(C_t @ h)
    return torch.stack(y)


def _system(q: Tensor, k: Tensor, v: Tensor, transition: Tensor, entering: Tensor) -> Tensor:
    """On vec(S): A = transition x I, B = entering k x I, C = q^T x I; of one head, transition (T, K, K), entering (T,)."""
    one = torch.eye(V, dtype=torch.float64)
    A = torch.stack([torch.kron(each, one) for each in transition])
    Bu = torch.stack([torch.kron(k_t[:, None], one) @ v_t for k_t, v_t in zip(entering[:, None] * k, v, strict=True)])
    return _simulated(A, Bu, torch.stack([torch.kron(q_t[None], one) for q_t in q]))


@pytest.mark.parametrize("vector", [False, True])
def test_linear_attention_is_a_linear_dynamical_system(vector: bool) -> None:
    g = -2 * uniform(draws(3), B, T, H, *([K] if vector else []))

    def system(q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
        kept = torch.diag_embed(torch.exp(g if vector else g[..., None].expand_as(k)))
        each = (q, k, v, kept, torch.ones_like(k[..., 0]))
        heads = [[_system(*(x[b, :, h] for x in each)) for h in range(H)] for b in range(B)]
        return torch.stack([torch.stack(rows, 1) for rows in heads])

    agree(lambda *each: kernels.linear_attention(*each, chunk=4)[0], system, *keyed(), g)


def test_the_delta_rule_is_a_linear_dynamical_system() -> None:
    q, k, v = keyed()
    k = k / k.norm(dim=-1, keepdim=True)
    beta, g = 2 * uniform(draws(2), B, T, H), -uniform(draws(3), B, T, H)

    def system(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor) -> Tensor:
        reflected = torch.eye(K, dtype=torch.float64) - beta[..., None, None] * k[..., None] * k[..., None, :]
        each = (q, k, v, torch.exp(g)[..., None, None] * reflected, beta)
        heads = [[_system(*(x[b, :, h] for x in each)) for h in range(H)] for b in range(B)]
        return torch.stack([torch.stack(rows, 1) for rows in heads])

    agree(lambda *each: kernels.delta_rule(*each, chunk=4)[0], system, q, k, v, beta, g)


# The composed primitives keep the conventions of the others.


def _composed(op: str, T: int = T) -> list[Tensor]:
    gates = [3 * normal(draws(at), B, T, H) for at in (4, 5)] if op == "mlstm" else []
    return [*keyed(T), *gates]


@pytest.mark.parametrize("op", ["mlstm", "lightnet"])
@pytest.mark.parametrize("at", [1, 5, 10])
def test_a_composed_sequence_may_be_split_anywhere(op: str, at: int) -> None:
    """Values, and gradients through the state."""
    run = getattr(kernels, op)

    def split(*inputs: Tensor) -> Tensor:
        first, state = run(*(each[:, :at] for each in inputs))
        return torch.cat([first, run(*(each[:, at:] for each in inputs), state)[0]], 1)

    agree(split, lambda *inputs: run(*inputs)[0], *_composed(op))


@pytest.mark.parametrize("op", ["mlstm", "lightnet"])
def test_single_composed_steps_are_the_sequence(op: str) -> None:
    inputs, state, steps = _composed(op), None, []
    for t in range(T):
        y, state = getattr(kernels, op)(*(each[:, t : t + 1] for each in inputs), state)
        steps.append(y)
    whole, after = getattr(kernels, op)(*inputs)
    assert apart(torch.cat(steps, 1), whole) <= 1e-12
    assert state is not None
    assert all(apart(one, two) <= 1e-12 for one, two in zip(state, after, strict=True))


@pytest.mark.parametrize("op", ["mlstm", "lightnet"])
@pytest.mark.parametrize("T", [1, 2, 5])
def test_the_gradient_of_a_composed_one_is_that_of_finite_differences(op: str, T: int) -> None:
    _, (memory, scale) = getattr(kernels, op)(*_composed(op, 3))
    inputs = leaves(*_composed(op, T), memory)
    scale = scale.detach().requires_grad_(op == "lightnet")  # mLSTM's m has no gradient

    def function(*each: Tensor) -> tuple[Tensor, ...]:
        # For a given m the state (S exp(-m), m) after is not free of m: only h is.
        y, after = getattr(kernels, op)(*each[: len(inputs) - 1], each[len(inputs) - 1 :])
        return (y,) if op == "mlstm" else (y, *after)

    assert torch.autograd.gradcheck(function, (*inputs, scale), atol=1e-6)


@pytest.mark.parametrize("op", ["mlstm", "lightnet"])
def test_a_composed_one_keeps_the_dtype_and_a_wide_state(op: str) -> None:
    inputs = _composed(op)
    expected, _ = getattr(kernels, op)(*inputs)
    y, state = getattr(kernels, op)(*(each.bfloat16() for each in inputs))
    assert y.dtype == torch.bfloat16
    assert all(each.dtype == torch.float32 for each in state)
    assert apart(y.double(), expected) <= 5e-2


def test_lightnet_begins_from_no_sum_as_from_no_state() -> None:
    q, k, v = keyed()
    state = (q.new_zeros(B, H, K, V), torch.full((B, H, K), float("-inf"), dtype=torch.float64))
    agree(lambda *each: kernels.lightnet(*each, state)[0], lambda *each: kernels.lightnet(*each)[0], q, k, v)


@pytest.mark.parametrize("op", ["mlstm", "lightnet"])
def test_wrong_layouts_of_composed_ones_are_named(op: str) -> None:
    inputs = _composed(op)
    with pytest.raises(ValueError, match=f"{op}: k must be"):
        getattr(kernels, op)(inputs[0], inputs[1][0], *inputs[2:])
