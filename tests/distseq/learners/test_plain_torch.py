"""A run of learners ends with the weights of a plain PyTorch loop, whatever models, hooks and optimizers do."""

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import TensorDataset

import distseq
from distseq.learners.trials.plain import train_plainly

STEPS = 5


@pytest.fixture(autouse=True)
def folder(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Net(nn.Module):
    """Two layers, of which subclasses change something."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.body, self.head = nn.Linear(3, 4), nn.Linear(4, 1)

    def middle(self, h: Tensor) -> Tensor:
        return torch.tanh(h)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.middle(self.body(x))).squeeze(1)
        return out


def squares(model: nn.Module, batch: list[Tensor]) -> Tensor:
    return (model(batch[0]) - batch[1]) ** 2


def points(count: int = 90) -> TensorDataset:
    x = torch.randn(count, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return TensorDataset(x, x.prod(1))


def learner(
    model: nn.Module,
    optimizer: Callable[[Any], Any] = lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0.5),
    **more: Any,
) -> distseq.Learner:
    model = model.double()
    settings = {"data": points(), "batch": 12, "steps": STEPS, "loss": squares, **more}
    return distseq.Learner("net", model, optimizer(model.parameters()), **settings)


def train(one: distseq.Learner, **options: Any) -> tuple[distseq.Result, str]:
    printed = io.StringIO()
    options = {"pool": "simulated", "workers": 5, "scheme": "gc:2,code=cyclic", "compute": "rows", **options}
    return distseq.train([one], console=Console(file=printed, width=500), **options), printed.getvalue()


def assert_as_plain(make: Callable[[], distseq.Learner], tolerance: float = 1e-10, **options: Any) -> str:
    """Trains one learner on a pool and one plainly, and compares weights and optimizer state."""
    ours, theirs = make(), make()
    _, printed = train(ours, **options)
    train_plainly(theirs, evaluate_every=options.get("evaluate_every", 0))
    for (name, p), q in zip(ours.model.named_parameters(), theirs.model.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=tolerance, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}")
    states = [{k: sorted(v) for k, v in one.optimizer.state_dict()["state"].items()} for one in (ours, theirs)]
    assert states[0] == states[1]
    return printed


def test_hooks_of_parameters_act_once_on_the_whole_gradient() -> None:
    def make() -> distseq.Learner:
        model = Net()
        model.body.weight.register_hook(lambda gradient: gradient.clamp(-0.01, 0.02))
        model.head.bias.register_hook(lambda gradient: gradient * 3)
        return learner(model, accumulate=2, steps=6)

    assert_as_plain(make)


def test_a_reentrant_checkpoint_around_the_first_layer_trains_it() -> None:
    class Checkpointed(Net):
        def forward(self, x: Tensor) -> Tensor:
            h = checkpoint(lambda x: torch.tanh(self.body(x)), x.requires_grad_(), use_reentrant=True)
            out: Tensor = self.head(h).squeeze(1)
            return out

    before = Net().body.weight.detach().clone()
    one = learner(Checkpointed())
    train(one)
    assert (one.model.body.weight != before).all()  # type: ignore[union-attr, operator]
    assert_as_plain(lambda: learner(Checkpointed()))


class Spare(Net):
    """With a layer that the loss never reaches, and one that only samples with x > 1.5 reach."""

    def __init__(self) -> None:
        super().__init__()
        self.unused, self.rare = nn.Linear(2, 2), nn.Linear(4, 4)

    def middle(self, h: Tensor) -> Tensor:
        rare = h[:, 0].detach() > 1.0
        h = torch.tanh(h)
        return torch.where(rare[:, None], self.rare(h), h) if rare.any() else h


@pytest.mark.parametrize("scheme", ["uncoded", "gc:2,code=cyclic", "gc:1"])
@pytest.mark.parametrize("compute", ["rows", "decoded"])
def test_parameters_that_a_batch_does_not_reach_are_left_out_of_its_step(scheme: str, compute: str) -> None:
    before = Spare().unused.weight.detach().double()
    one = learner(Spare())
    train(one, scheme=scheme, compute=compute)
    assert torch.equal(one.model.unused.weight, before)  # type: ignore[union-attr, arg-type]
    assert_as_plain(lambda: learner(Spare(), batch=3), scheme=scheme, compute=compute)


def test_a_gradient_that_is_zero_is_not_one_that_is_missing() -> None:
    """As with LoRA, whose first matrix has a gradient of zeros as long as the second is zero: it decays all the same."""

    class Zero(Net):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.zeros(()))
            self.more = nn.Linear(4, 4)

        def middle(self, h: Tensor) -> Tensor:
            return torch.tanh(h + self.scale * self.more(h))

    assert_as_plain(lambda: learner(Zero()))


def test_a_gradient_penalty_inside_the_loss_works() -> None:
    def penalized(model: nn.Module, batch: list[Tensor]) -> Tensor:
        x = batch[0].detach().requires_grad_()
        out = model(x)
        (slope,) = torch.autograd.grad(out.sum(), x, create_graph=True)
        return (out - batch[1]) ** 2 + slope.square().sum(1)

    assert_as_plain(lambda: learner(Net(), loss=penalized))
    assert_as_plain(lambda: learner(Net(), loss=penalized, evaluation=points(20)), evaluate_every=2)


class Sometimes(Net):
    """Drops half of its units, but only in training mode, and at random nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Sequential(nn.Linear(4, 4), nn.Tanh()).eval().requires_grad_(False)

    def middle(self, h: Tensor) -> Tensor:
        h = torch.tanh(h)
        h = h + self.frozen(h) * (2.0 if self.frozen.training else 1.0)
        return h * 0.5 if self.training else h


def test_evaluation_is_in_evaluation_mode_and_training_in_the_mode_that_each_module_had() -> None:
    def make() -> distseq.Learner:
        return learner(Sometimes(), evaluation=points(20))

    ours, theirs = make(), make()
    result, _ = train(ours, evaluate_every=2)
    train_plainly(theirs)
    # By torch alone: the plain loop enters evaluation mode as workers do.
    theirs.model.eval()
    with torch.no_grad():
        expected = float(squares(theirs.model, list(points(20).tensors)).mean())
    assert result.summary["models"]["net"]["evaluation_loss"] == pytest.approx(expected, rel=1e-10)
    assert_as_plain(make, evaluate_every=1)
    assert [module.training for module in ours.model.modules()] == [module.training for module in Sometimes().modules()]


class Merged(Net):
    """As LoRA's layers do, it adds to its frozen weights for evaluation, and subtracts again for training."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen, self.scale = nn.Linear(4, 4).requires_grad_(False), nn.Parameter(torch.full((4, 4), 0.3))

    def train(self, mode: bool = True) -> "Merged":
        if mode != self.training:
            self.frozen.weight.data += -self.scale.data if mode else self.scale.data
        super().train(mode)
        return self

    def middle(self, h: Tensor) -> Tensor:
        weight = self.frozen.weight + (self.scale if self.training else 0.0)
        return torch.tanh(h @ weight)


def test_a_model_that_changes_its_weights_for_evaluation_is_evaluated_and_trained_as_in_plain_torch() -> None:
    result, _ = train(learner(Merged(), evaluation=points(20)), evaluate_every=1)
    one = learner(Merged(), evaluation=points(20))
    train_plainly(one)
    one.model.eval()
    with torch.no_grad():
        expected = float(squares(one.model, list(points(20).tensors)).mean())
    assert result.summary["models"]["net"]["evaluation_loss"] == pytest.approx(expected, rel=1e-10)
    assert_as_plain(lambda: learner(Merged(), evaluation=points(20)), evaluate_every=1)
