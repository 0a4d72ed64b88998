"""Muon on matrices and Adam on the rest: torch's rules, on the right parameters, as one optimizer."""

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.optim import lr_scheduler

import distseq
from distseq.kernels.layers import RNN, Attention, Mamba
from distseq.learners.optimizers.by_name import torch_optimizer
from distseq.learners.optimizers.matrices import matrices
from distseq.learners.optimizers.muon import Muon
from distseq.learners.optimizers.orthogonal import factor, orthogonalized
from distseq.learners.optimizers.settings import Settings
from distseq.models.sequence import SequenceModel

SHAPES = [(2, 2), (7, 3), (3, 7), (16, 16), (40, 1), (33, 8)]
needs_torch_s = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon to compare with")


class Bag(nn.Module):
    """Parameters of given shapes, and gradients that are drawn for them."""

    def __init__(self, *shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(len(shapes))
        for k, shape in enumerate(shapes):
            self.register_parameter(f"p{k}", nn.Parameter(torch.randn(shape, generator=draws).to(dtype)))

    def draw(self, step: int) -> None:
        draws = torch.Generator().manual_seed(1000 + step)
        for parameter in self.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=draws).to(parameter.dtype)


def stepped(model: Bag, *optimizers: torch.optim.Optimizer, steps: int = 5) -> list[Tensor]:
    for step in range(steps):
        model.draw(step)
        for optimizer in optimizers:
            optimizer.step()
    return [parameter.detach() for parameter in model.parameters()]


def assert_close(ours: list[Tensor], theirs: list[Tensor], tolerance: float) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"lr": 0.1, "momentum": 0.8, "weight_decay": 0.3},
    {"nesterov": False, "ns_steps": 3, "adjust_lr_fn": "match_rms_adamw"},
    {"ns_coefficients": (2.0, -1.5, 0.5), "eps": 1.0, "adjust_lr_fn": None},
]


@needs_torch_s
@pytest.mark.parametrize("own", [False, True], ids=["torch's", "ours"])
@pytest.mark.parametrize("options", OPTIONS)
def test_matrices_are_stepped_as_torch_s_muon_does(
    own: bool, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To 1e-6 where torch has none and our own rule makes the steps, to the bit where it has."""
    one, other = Bag(*SHAPES), Bag(*SHAPES)
    theirs = stepped(other, torch.optim.Muon(other.parameters(), **{"lr": 0.02, "weight_decay": 0.0, **options}))
    if own:
        monkeypatch.delattr(torch.optim, "Muon")
    assert_close(stepped(one, Muon(one, full_precision=False, **options)), theirs, 1e-6 if own else 0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_newton_schulz_steps_are_a_polynomial_of_the_singular_values(
    dtype: torch.dtype, shape: tuple[int, int]
) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    a, b, c = Settings().ns_coefficients
    U, S, V = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = S / S.norm()
    for _ in range(5):
        s = a * s + b * s**3 + c * s**5
    found = orthogonalized(matrix, (a, b, c), 5, 1e-7)
    assert found.dtype == dtype
    torch.testing.assert_close(
        found.double(), U @ torch.diag(s) @ V, rtol=0, atol=1e-4 if dtype == torch.float32 else 1e-12
    )


def test_the_factor_of_a_matrix_s_rate_is_stated() -> None:
    assert [factor("original", *shape) for shape in ((8, 2), (2, 8))] == [2.0, 1.0]
    assert factor("match_rms_adamw", 25, 4) == factor("match_rms_adamw", 4, 25) == 1.0


def test_all_else_is_stepped_as_adam_does() -> None:
    shapes = [(5,), (1, 7), ()]
    one, other = Bag(*shapes), Bag(*shapes)
    optimizer = Muon(one, adam_lr=0.03, adam_betas=(0.8, 0.9), adam_eps=1e-5, adam_weight_decay=0.2)
    theirs = torch.optim.AdamW(other.parameters(), 0.03, (0.8, 0.9), 1e-5, 0.2)
    assert_close(stepped(one, optimizer), stepped(other, theirs), 0.0)
    plain, adam = Bag(*shapes), Bag(*shapes)
    assert_close(
        stepped(plain, Muon(plain)), stepped(adam, torch.optim.Adam(adam.parameters(), 1e-3, (0.9, 0.95))), 0.0
    )


def test_a_stack_is_its_matrices_one_by_one() -> None:
    """Of three dimensions, and the gates of a recurrent network: as if each matrix were a parameter of its own."""
    stack, alone = Bag((3, 4, 5)), Bag((4, 5), (4, 5), (4, 5))
    with torch.no_grad():
        for k, parameter in enumerate(alone.parameters()):
            parameter.copy_(stack.p0[k])
    optimizers = Muon(stack), Muon(alone)
    for step in range(3):
        stack.draw(step)
        for k, parameter in enumerate(alone.parameters()):
            parameter.grad = stack.p0.grad[k].clone()
        for optimizer in optimizers:
            optimizer.step()
    assert_close(list(stack.p0.detach()), [parameter.detach() for parameter in alone.parameters()], 0.0)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head, self.table = nn.Linear(4, 9, bias=False), nn.Embedding(9, 4)
        self.head.weight = self.table.weight


GATES = {"weight_ih_l0": (4, 3), "weight_hh_l0": (4, 4)}


@pytest.mark.parametrize(
    ("model", "options", "expected"),
    [
        (lambda: nn.Linear(3, 5), {}, {"weight": (5, 3)}),
        (lambda: nn.Linear(3, 1), {}, {}),
        (lambda: nn.Embedding(5, 3), {}, {}),
        (Tied, {}, {}),
        (lambda: nn.Conv1d(3, 6, 5), {}, {"weight": (6, 15)}),
        (lambda: nn.Bilinear(3, 4, 2), {}, {"weight": (3, 4)}),
        (lambda: nn.LayerNorm(4), {}, {}),
        (lambda: nn.GRU(3, 4), {}, GATES),
        (lambda: nn.LSTM(3, 4), {}, GATES),
        (
            lambda: nn.LSTM(3, 4, proj_size=2),
            {},
            {"weight_ih_l0": (4, 3), "weight_hh_l0": (4, 2), "weight_hr_l0": (2, 4)},
        ),
        (lambda: nn.GRU(3, 4), {"by_gate": False}, {"weight_ih_l0": (12, 3), "weight_hh_l0": (12, 4)}),
        (lambda: nn.GRUCell(3, 4), {}, {"weight_ih": (4, 3), "weight_hh": (4, 4)}),
        (lambda: RNN(8, 2, "gru"), {}, {"weight": (4, 8), "recurrent": (4, 4), "out.weight": (8, 8)}),
        (lambda: RNN(8, 1, "lstm"), {"by_gate": False}, {"weight": (32, 8), "recurrent": (32, 8)}),
        (lambda: Attention(8, 2), {}, {"project.weight": (24, 8), "out.weight": (8, 8)}),
        (lambda: nn.Linear(1, 5), {}, {"weight": (5, 1)}),
    ],
)
def test_which_parameters_are_matrices(model: Callable[[], nn.Module], options: Any, expected: Any) -> None:
    found = matrices(model(), **options)
    assert found == expected


def test_of_our_layers_only_projections_are_matrices() -> None:
    model = nn.Sequential(Mamba(16), SequenceModel(symbols=9, width=8, layers="ssm,delta,aaren", residual=True))
    names = matrices(model)
    linear = {f"{name}.weight" for name, module in model.named_modules() if hasattr(module, "in_features")}
    assert set(names) == linear


def uses(optimizer: Muon, model: nn.Module) -> dict[str, tuple[str, float]]:
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)]: (group["use"], group["lr"]) for group in optimizer.param_groups for p in group["params"]}


def net() -> nn.Module:
    return nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 6), nn.Linear(6, 2))


def test_groups_set_what_steps_parameters_and_how() -> None:
    model = net()
    groups = [
        {"match": r"^0\.", "use": "muon", "lr": 0.5},
        {"match": r"^2\.weight", "use": "adam", "adam_lr": 0.3},
        {"match": r"^2", "adam_lr": 0.7},
    ]
    optimizer = torch_optimizer("MUON", {"lr": 0.1, "adam_lr": 0.2}, model, groups)
    assert isinstance(optimizer, Muon)
    assert uses(optimizer, model) == {
        "1.weight": ("muon", 0.1),
        "1.bias": ("adam", 0.2),
        "0.weight": ("muon", 0.5),
        "2.weight": ("adam", 0.3),
        "2.bias": ("adam", 0.7),
    }
    gru = nn.GRU(3, 4)
    for whole, shapes in ((True, [[(12, 3)], [(4, 4)]]), (False, [[(4, 3)], [(12, 4)]])):
        cut = Muon(gru, by_gate=not whole, groups=[{"match": "_hh", "by_gate": whole}])
        assert [group["shapes"] for group in cut.param_groups if group["use"] == "muon"] == shapes
    model[1].requires_grad_(False)
    assert {name[0] for name in uses(Muon(model), model)} == {"0", "2"}, "frozen parameters are left out"


@pytest.mark.parametrize(
    ("args", "groups", "message"),
    [
        ({"lr": -1.0}, [], "lr must be a number of at least 0: got -1.0"),
        ({"lr": float("nan")}, [], "optimizer muon: lr must be finite: got nan"),
        ({"lr": "0.1"}, [], "lr must be a number of at least 0: got '0.1'"),
        ({"momentum": 1.0}, [], "momentum must be a number from 0 to below 1: got 1.0"),
        ({"adam_betas": [0.9]}, [], r"adam_betas must be two numbers from 0 to below 1: got \[0.9\]"),
        ({"ns_steps": True}, [], "ns_steps must be a whole number from 1 to 99: got True"),
        ({"nesterov": 1}, [], "nesterov must be true or false: got 1"),
        ({"adjust_lr_fn": "none"}, [], "adjust_lr_fn must be 'original' or 'match_rms_adamw': got 'none'"),
        ({"betas": [0.9, 0.9]}, [], "Muon has no option 'betas': it takes lr, momentum"),
        ({}, [{"match": "bias", "lr": float("inf")}], "lr must be a number of at least 0: got inf"),
        ({}, [{"match": "bias", "lrs": 1.0}], "Muon has no option 'lrs'"),
        ({}, [{"match": "bias", "use": "sgd"}], "use must be 'muon' or 'adam': got 'sgd'"),
        ({}, [{"match": "bias", "use": "muon"}], r"needs matrices of more than one row: 1.bias has shape \(6,\)"),
        ({}, [{"match": "bais"}], "match = 'bais' matches no parameter that earlier groups left: 0.weight, 1.weight"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(args: Any, groups: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        torch_optimizer("muon", args, net(), groups)
    assert "\n" not in str(error.value)


def test_it_is_made_of_a_module_at_once() -> None:
    with pytest.raises(ValueError, match="lr must be a number of at least 0: got nan"):
        Muon(net(), lr=float("nan"))
    with pytest.raises(ValueError, match="Muon takes a module, which knows what its parameters are: got list"):
        Muon(list(net().parameters()))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Muon takes its groups when it is made"):
        Muon(net()).add_param_group({"params": [nn.Parameter(torch.zeros(2, 2))]})
    transposed = nn.Linear(3, 4)
    transposed.weight = nn.Parameter(torch.zeros(3, 4).T)
    with pytest.raises(ValueError, match=r"Muon needs contiguous matrices: weight has shape \(4, 3\)"):
        Muon(transposed)


def test_schedules_scale_both_rates_and_cycle_both_momenta() -> None:
    model = Bag((3, 4), (5,))
    optimizer = Muon(model, lr=0.1, adam_lr=0.01)
    cosine = lr_scheduler.CosineAnnealingLR(optimizer, 4)
    for _ in range(2):
        stepped(model, optimizer, steps=1)
        cosine.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.005])
    # Rates that a schedule states itself are given for each group, or hold for all of them.
    cycled = Muon(model, lr=0.1, adam_lr=0.01, momentum=0.9, adam_betas=(0.9, 0.99))
    lr_scheduler.OneCycleLR(cycled, [0.1, 0.01], total_steps=9, base_momentum=0.7, max_momentum=0.8)
    assert [group["momentum"] for group in cycled.param_groups] == [0.8, 0.8]
    before = [parameter.clone() for parameter in model.parameters()]
    stepped(model, cycled, steps=1)
    assert all((a != b).any() for a, b in zip(before, model.parameters(), strict=True))


def test_a_parameter_without_a_gradient_is_left_alone() -> None:
    model = Bag((3, 4), (5,), (2, 2), (2,))
    optimizer = Muon(model, weight_decay=0.5, adam_weight_decay=0.5)
    model.draw(0)
    before = [parameter.clone() for parameter in model.parameters()]
    model.p2.grad = model.p3.grad = None
    optimizer.step()
    moved = [bool((a != b).any()) for a, b in zip(before, model.parameters(), strict=True)]
    assert moved == [True, True, False, False]
    assert len(optimizer.state) == 2


def test_copies_and_pickles_of_it_go_on_alike() -> None:
    model = Bag((3, 4), (5,))
    optimizer = Muon(model)
    stepped(model, optimizer)
    for twin in (copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))):
        other, again = twin((model, optimizer))
        assert_close(stepped(other, again), stepped(*copy.deepcopy((model, optimizer))), 0.0)


def test_a_closure_is_called_with_gradients() -> None:
    model = Bag((3, 4), (5,))
    optimizer = Muon(model)

    def closure() -> float:
        optimizer.zero_grad()
        loss = torch.stack([parameter.square().sum() for parameter in model.parameters()]).sum()
        loss.backward()
        return loss.item()

    first = optimizer.step(closure)
    assert first > optimizer.step(closure)


def test_full_precision_keeps_rounding_differences_small() -> None:
    """In bfloat16, which has three digits, a few entries' last bits are enough to change all of an update."""

    def moved(full: bool) -> float:
        pair = []
        for error in (0.0, 1e-7):
            model = Bag((64, 64))
            optimizer = Muon(model, full_precision=full)
            for step in range(30):
                model.draw(step)
                model.p0.grad *= 1 + error * torch.randn(64, 64, generator=torch.Generator().manual_seed(step))
                optimizer.step()
            pair.append(model.p0.detach())
        return float((pair[0] - pair[1]).norm() / pair[0].norm())

    assert moved(full=True) < 1e-6
    assert moved(full=False) > 1e-5


CONFIG = """
run = {{ steps = 6, checks = 0 }}
[defaults]
model = "distseq.models.sequence:SequenceModel"
data = "text:text.txt"
data_args = {{ window = 8 }}
batch = 12
optimizer = "muon"
optimizer_args = {{ lr = 0.02, adam_lr = 0.01, full_precision = {full} }}
[[learner]]
name = "gru"
model_args = {{ width = 12, layers = "gru:heads=2*2" }}
[[learner]]
name = "twin"
model_args = {{ width = 12, layers = "gru:heads=2*2" }}
[[learner]]
name = "attention"
model_args = {{ width = 12, layers = "attention:heads=2", residual = true, head = "symbols" }}
groups = [{{ match = "^out", use = "adam" }}]
schedule = "cosine"
accumulate = 2
ema = 0.9
clip = 1.0
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], Path]:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("to be or not to be, that is the question. " * 9)

    def write(full: bool) -> Path:
        Path("job.toml").write_text(CONFIG.format(full=str(full).lower()))
        return Path("job.toml")

    return write


def run(job: Path, out: str, **options: Any) -> list[np.ndarray]:
    options = {"pool": "simulated", "compute": "rows", "delays": "bursts", "workers": 6, **options}
    result = distseq.train(job, out=out, console=Console(file=io.StringIO()), **options)
    assert result.summary["failures"] == []
    return [one.publish() for one in result.learners]


def test_language_models_end_alike_under_any_scheme(config: Callable[[bool], Path]) -> None:
    """With full precision to rounding; in bfloat16 to the bit where the scheme adds up the same parts."""
    job = config(True)
    alone = run(job, "alone", workers=1, scheme="uncoded")
    for k, options in enumerate(({"scheme": "gc:2,code=cyclic"}, {"scheduler": "auto"}, {"scheme": "msgc:1,2,2"})):
        for a, b in zip(run(job, f"run-{k}", **options), alone, strict=True):
            assert np.linalg.norm(a - b) / np.linalg.norm(b) < 1e-5
    job = config(False)
    first, second = (run(job, f"half-{d}", scheme="gc:2", delays=d) for d in ("bursts", "heavy-tail"))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
