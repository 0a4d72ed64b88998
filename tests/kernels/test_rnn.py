"""The recurrences beside torch's own modules, at the edges of floating point, and with their input projection."""

import pytest
import torch
from torch import Tensor, nn

from distseq import kernels
from distseq.kernels.cells import CELLS
from distseq.kernels.eager import rnn as eager
from distseq.kernels.eager.dense_rnn import fused
from tests.kernels.cases import normal
from tests.kernels.comparing import apart

MODULES = {"elman": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
cells = pytest.mark.parametrize("cell", list(CELLS))


def results(
    run: str, cell: str, tensors: dict[str, Tensor], backend: str, monkeypatch: pytest.MonkeyPatch
) -> list[Tensor]:
    """y, the last h, and the gradients of a fixed weighing of both."""
    monkeypatch.setenv("DISTSEQ_KERNELS", backend)
    own = {name: tensor.detach().clone().requires_grad_() for name, tensor in tensors.items()}
    state = tuple(own[name] for name in own if name.startswith("state"))
    inputs = {name: tensor for name, tensor in own.items() if not name.startswith("state")}
    y, after = getattr(kernels, run)(**inputs, state=state or None, cell=cell)
    draws = torch.Generator().manual_seed(3)
    loss = sum((each * normal(draws, *each.shape).to(each)).sum() for each in (y, after[0]))
    return [y.detach(), after[0].detach(), *torch.autograd.grad(loss, list(own.values()))]


def dense(cell: str, B: int, T: int, H: int, D: int, dtype: torch.dtype, device: str = "cpu") -> dict[str, Tensor]:
    draws, G = torch.Generator().manual_seed(0), len(CELLS[cell].gates)
    tensors = {
        "u": normal(draws, B, T, 6),
        "w": normal(draws, H * G * D, 6) / 6**0.5,
        "b": normal(draws, H * G * D),
        "r": normal(draws, H, G, D, D) / D**0.5,
        **({"bias": normal(draws, H, D)} if cell == "gru" else {}),
        "state h": normal(draws, B, H, D),
        **({"state c": normal(draws, B, H, D)} if cell in ("lstm", "slstm") else {}),
        **({"state n": 1 + normal(draws, B, H, D) ** 2, "state m": normal(draws, B, H, D)} if cell == "slstm" else {}),
    }
    return {name: tensor.to(device, dtype) for name, tensor in tensors.items()}


@pytest.mark.parametrize("cell", MODULES)
def test_it_is_the_module_of_torch(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    B, T, D, G = 3, 11, 5, len(CELLS[cell].gates)
    tensors = dense(cell, B, T, 1, D, torch.float64)
    module = MODULES[cell](6, D, batch_first=True, dtype=torch.float64)
    hidden = torch.zeros(G * D, dtype=torch.float64)
    if cell == "gru":
        hidden[2 * D :] = tensors["bias"][0]
    for name, value in (
        ("weight_ih", tensors["w"]),
        ("weight_hh", tensors["r"][0].mT.reshape(G * D, D)),
        ("bias_ih", tensors["b"]),
        ("bias_hh", hidden),
    ):
        getattr(module, f"{name}_l0").data.copy_(value)
    u = tensors["u"].clone().requires_grad_()
    begun = [tensors[name].transpose(0, 1).clone().requires_grad_() for name in tensors if name.startswith("state")]
    y, after = module(u, tuple(begun) if cell == "lstm" else begun[0])
    last = after[0] if cell == "lstm" else after
    draws = torch.Generator().manual_seed(3)
    loss = (y[:, :, None] * normal(draws, B, T, 1, D)).sum() + (last.transpose(0, 1) * normal(draws, B, 1, D)).sum()
    weights = (module.weight_ih_l0, module.bias_ih_l0, module.weight_hh_l0, module.bias_hh_l0)
    du, dw, db, dr, dhidden, *dstate = torch.autograd.grad(loss, (u, *weights, *begun))
    expected = [y[:, :, None], last.transpose(0, 1), du, dw, db, dr.view(1, G, D, D).mT]
    expected += [dhidden[None, 2 * D :]] if cell == "gru" else []
    expected += [each.transpose(0, 1) for each in dstate]
    for found, one in zip(results("dense_rnn", cell, tensors, "eager", monkeypatch), expected, strict=True):
        assert apart(found, one.detach()) <= 1e-12


@cells
@pytest.mark.parametrize("H", [1, 2])
@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_the_projection_changes_nothing(
    cell: str, H: int, given: bool, dtype: torch.dtype, bound: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = dense(cell, 3, 19, H, 5, dtype)
    if not given:
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("state") and name != "bias"}
    expected = results("dense_rnn", cell, tensors, "reference", monkeypatch)
    for found, one in zip(results("dense_rnn", cell, tensors, "eager", monkeypatch), expected, strict=True):
        assert found.dtype == one.dtype
        assert apart(found, one) <= bound


def test_torch_serves_one_head_of_the_cells_that_it_fuses() -> None:
    assert fused("lstm", 1, "cpu", torch.float32)
    assert not fused("lstm", 2, "cpu", torch.float32)
    assert not fused("lstm", 1, "cpu", torch.float64)
    assert not fused("gru", 1, "cpu", torch.float32)
    assert fused("gru", 1, "cuda", torch.bfloat16)
    assert not fused("slstm", 1, "cuda", torch.float32)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@cells
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 5e-3), (torch.bfloat16, 3e-2)])
def test_cudnn_agrees_with_the_loop(
    cell: str, dtype: torch.dtype, bound: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = dense(cell, 3, 19, 1, 8, dtype, "cuda")
    expected = results("dense_rnn", cell, tensors, "reference", monkeypatch)
    for found, one in zip(results("dense_rnn", cell, tensors, "eager", monkeypatch), expected, strict=True):
        assert found.dtype == one.dtype
        assert apart(found.float(), one.float()) <= bound


@cells
@pytest.mark.parametrize("H", [1, 2])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_backward_may_be_cut_into_blocks_anywhere(
    cell: str, H: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = dense(cell, 2, 7, H, 4, torch.float64)
    expected = results("dense_rnn", cell, tensors, "eager", monkeypatch)
    monkeypatch.setattr(eager, "BLOCK", steps * 2 * H * 4)
    for found, one in zip(results("dense_rnn", cell, tensors, "eager", monkeypatch), expected, strict=True):
        assert apart(found, one) <= 1e-12


@cells
def test_a_long_sequence_stays_with_the_loop(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than a block of backward, without a change of its size."""
    tensors = dense(cell, 4, 1500, 2, 8, torch.float64)
    assert eager.BLOCK < 4 * 1500 * 2 * 8
    expected = results("dense_rnn", cell, tensors, "reference", monkeypatch)
    for found, one in zip(results("dense_rnn", cell, tensors, "eager", monkeypatch), expected, strict=True):
        assert apart(found, one) <= 1e-10


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gates_of_slstm_may_be_as_large_as_200(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    draws = torch.Generator().manual_seed(0)
    x = (400 * torch.rand(3, 40, 2, 4, 5, generator=draws, dtype=torch.float64) - 200).to(dtype)
    tensors = {"x": x, "r": normal(draws, 2, 4, 5, 5).to(dtype)}
    expected = results("rnn", "slstm", tensors, "reference", monkeypatch)
    for found, one in zip(results("rnn", "slstm", tensors, "eager", monkeypatch), expected, strict=True):
        assert bool(found.isfinite().all())
        assert apart(found, one) <= (1e-5 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("run", ["rnn", "dense_rnn"])
def test_a_cell_may_grow_to_a_thousand(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Open gates: c_t = t. tanh must not overflow at it."""
    T, D = 1200, 3
    gates = torch.tensor([50.0, 50.0, 50.0, 0.0])
    inputs = {
        "rnn": {"x": gates.view(1, 1, 1, 4, 1).expand(2, T, 1, 4, D).clone()},
        "dense_rnn": {"u": torch.ones(2, T, 1), "w": gates.repeat_interleave(D)[:, None], "b": torch.zeros(4 * D)},
    }[run]
    tensors = {**inputs, "r": 0.1 * normal(torch.Generator().manual_seed(0), 1, 4, D, D).float()}
    _, state = getattr(kernels, run)(**tensors, cell="lstm")
    assert float(state[1].min()) > 1000
    expected = results(run, "lstm", tensors, "reference", monkeypatch)
    for found, one in zip(results(run, "lstm", tensors, "eager", monkeypatch), expected, strict=True):
        assert bool(found.isfinite().all())
        assert apart(found, one) <= 1e-5


@cells
def test_half_precision_keeps_a_state_of_single_precision(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    G, draws = len(CELLS[cell].gates), torch.Generator().manual_seed(0)
    x = normal(draws, 2, 9, 2, G, 4).bfloat16().requires_grad_()
    r = (normal(draws, 2, G, 4, 4) / 2).bfloat16().requires_grad_()
    outputs = {}
    for backend in ("eager", "reference"):
        monkeypatch.setenv("DISTSEQ_KERNELS", backend)
        y, state = kernels.rnn(x, r, cell=cell)
        outputs[backend] = (*state, y, *torch.autograd.grad(y.sum(), (x, r)))
    for found, one in zip(outputs["eager"], outputs["reference"], strict=True):
        assert found.dtype == one.dtype
        assert apart(found.detach().float(), one.detach().float()) <= 1e-3
    assert outputs["eager"][0].dtype == torch.float32


@cells
def test_a_frozen_matrix_costs_no_gradient(cell: str) -> None:
    tensors = dense(cell, 2, 5, 2, 3, torch.float32)
    x = normal(torch.Generator().manual_seed(0), 2, 5, 2, len(CELLS[cell].gates), 3).float().requires_grad_()
    y, _ = kernels.rnn(x, tensors["r"], cell=cell)
    y.sum().backward()
    assert x.grad is not None
    assert tensors["r"].grad is None


def test_what_does_not_fit_is_named() -> None:
    tensors = dense("lstm", 2, 5, 2, 3, torch.float32)
    given = {name: tensors[name] for name in ("u", "w", "b", "r")}
    with pytest.raises(ValueError, match="dense_rnn: w must have H G D = 24 rows: got 12"):
        kernels.dense_rnn(**{**given, "w": given["w"][:12], "b": given["b"][:12]})
    with pytest.raises(ValueError, match=r"dense_rnn: lstm has 4 gates \(ifzo\): got G = 3"):
        kernels.dense_rnn(**{**given, "r": given["r"][:, :3]})
    with pytest.raises(ValueError, match="dense_rnn: bias is for cell gru only; add that of lstm to b"):
        kernels.dense_rnn(**given, bias=torch.zeros(2, 3))
    with pytest.raises(ValueError, match="dense_rnn: cell must be one of elman, lstm, gru, slstm: got 'mlstm'"):
        kernels.dense_rnn(**given, cell="mlstm")
