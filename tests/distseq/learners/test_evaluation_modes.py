"""Schedules that need evaluations and optimizers with an evaluation mode train as in plain PyTorch, also when resumed."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim import lr_scheduler

import distseq
from distseq.config.toml_file import from_dict
from distseq.engine.failures import FailedError
from distseq.learners.from_config import build_fleet
from distseq.learners.trials.plain import train_plainly
from tests.distseq.artifacts.crashing import CrashAfter, CrashError
from tests.distseq.learners.test_plain_torch import Net, learner, points, squares, train

STEPS = 12


@pytest.fixture(autouse=True)
def folder(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def plateau(name: str = "net", **more: Any) -> distseq.Learner:
    torch.manual_seed(len(name))
    model = Net().double()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.1, momentum=0.5)
    schedule = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.3, patience=0, threshold=0.05)
    settings = {"data": points(), "evaluation": points(20), "batch": 12, "steps": STEPS, "loss": squares, **more}
    return distseq.Learner(name, model, optimizer, schedule=schedule, **settings)  # type: ignore[arg-type]


def expected(make: Callable[[], distseq.Learner], every: int = 2) -> distseq.Learner:
    one = make()
    train_plainly(one, evaluate_every=every)
    return one


def assert_equal(ours: distseq.Learner, theirs: distseq.Learner) -> None:
    for p, q in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-10)
    rates = [one.optimizer.param_groups[0]["lr"] for one in (ours, theirs)]
    assert rates[0] == rates[1]


@pytest.mark.parametrize("pool", ["simulated", "local", pytest.param("ray", marks=pytest.mark.ray)])
@pytest.mark.parametrize("scheme", [{"scheme": "gc:1"}, {"scheduler": "pipeline", "scheme": None}])
def test_a_plateau_is_stepped_with_the_evaluation_s_loss_before_the_next_step(
    request: pytest.FixtureRequest, pool: str, scheme: dict[str, Any]
) -> None:
    if pool == "ray":
        request.getfixturevalue("ray_session")
    other = learner(Net(), steps=STEPS)
    other.name = "other"
    learners, console = [plateau(), other], Console(file=io.StringIO())
    options = {"pool": pool, "workers": 4, "hosts": None if pool == "simulated" else 2, "evaluate_every": 2}
    delays = {"delays": "bursts:base=0.01"}
    distseq.train(learners, console=console, **options, **scheme, **delays)
    theirs = expected(plateau)
    assert theirs.optimizer.param_groups[0]["lr"] < 0.5, "the schedule has done something"
    assert_equal(learners[0], theirs)


@pytest.mark.parametrize("jobs", [1, 2, 5, 8, 11, 16])
def test_a_plateau_goes_on_exactly_when_the_run_is_resumed(tmp_path: Path, jobs: int) -> None:
    """Broken before, while and after an evaluation is computed; checkpoints also count the other learner's jobs."""
    console = Console(file=io.StringIO())
    options = {"pool": "simulated", "workers": 4, "scheme": "gc:1", "evaluate_every": 2, "checkpoint_every": 1}

    def pair() -> list[distseq.Learner]:
        return [plateau(), plateau("other", clip=0.5)]

    with pytest.raises(CrashError):
        distseq.train(pair(), out=tmp_path / "run", console=console, watchers=[CrashAfter(jobs)], **options)
    learners = pair()
    distseq.train(learners, resume=tmp_path / "run", console=console)
    assert_equal(learners[0], expected(plateau))
    assert_equal(learners[1], expected(lambda: plateau("other", clip=0.5)))


def test_a_plateau_without_evaluations_is_refused() -> None:
    for make, options, lacks in (
        (plateau, {}, r"\[run\] evaluate_every is 0"),
        (lambda: plateau(evaluation=None), {"evaluate_every": 1}, "it has no evaluation data"),
    ):
        with pytest.raises(ValueError, match=f"^learner net: ReduceLROnPlateau is stepped .* evaluate_every .{lacks}"):
            train(make(), **options)
    table = {
        "name": "a",
        "model": "distseq.models.char_lstm:CharLSTM",
        "data": "text:text.txt",
        "batch": 2,
        "schedule": "ReduceLROnPlateau",
        "data_args": {"window": 3},
    }
    Path("text.txt").write_text("to be or not to be, that is the question. " * 4)
    with pytest.raises(ValueError, match="learner a: ReduceLROnPlateau is stepped with the loss of evaluations"):
        build_fleet(from_dict({"learner": [table]}))


def test_a_plateau_whose_evaluation_fails_fails_its_learner() -> None:
    def loss(model: nn.Module, batch: Any) -> Tensor:
        # Only when it is evaluated after its first steps.
        if not model.training and float(model.head.bias.detach()) != start:  # type: ignore[union-attr, operator, arg-type]
            raise RuntimeError("too steep")
        return squares(model, batch)

    one = plateau(loss=loss)
    start = float(one.model.head.bias.detach())  # type: ignore[union-attr, operator, arg-type]
    with pytest.raises(FailedError, match=r"its schedule needs the loss of its evaluation, which failed: .*too steep"):
        train(one, evaluate_every=3)


class ScheduleFree(torch.optim.Optimizer):
    """Schedule-Free SGD (Defazio et al. 2024): the parameters are y in training and the average x in evaluation."""

    def __init__(self, parameters: Any, lr: float, beta: float = 0.9) -> None:
        super().__init__(parameters, {"lr": lr, "beta": beta, "k": 0, "train_mode": False})

    @torch.no_grad()
    def _switch(self, train: bool) -> None:
        for group in self.param_groups:
            if group["train_mode"] != train:
                for p in group["params"]:
                    if "z" in self.state[p]:
                        p.lerp_(self.state[p]["z"], 1 - group["beta"] if train else 1 - 1 / group["beta"])
                group["train_mode"] = train

    def train(self) -> None:
        self._switch(True)

    def eval(self) -> None:
        self._switch(False)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            if not group["train_mode"]:
                raise RuntimeError("Optimizer was not in train mode when step is called")
            group["k"] += 1
            for p in group["params"]:
                if p.grad is None:
                    continue
                z = self.state[p].setdefault("z", p.clone())
                share = 1 / group["k"]
                p.lerp_(z, share).add_(p.grad, alpha=group["lr"] * (group["beta"] * (1 - share) - 1))
                z.sub_(p.grad, alpha=group["lr"])


def test_an_optimizer_with_modes_is_evaluated_with_its_evaluation_weights_and_trains_on_to_the_bit() -> None:
    def make() -> distseq.Learner:
        return learner(Net(), lambda p: ScheduleFree(p, 0.3), evaluation=points(20), steps=STEPS)

    found: dict[int, float] = {}
    one, seldom, theirs = make(), make(), make()
    result, _ = train(one, evaluate_every=2)
    train(seldom)
    train_plainly(theirs, evaluate_every=2, evaluated=lambda step, loss: found.update({step: loss}))
    assert result.summary["models"]["net"]["evaluation_loss"] == pytest.approx(found[STEPS], rel=1e-10)
    assert_equal(one, theirs)
    for p, q in zip(one.model.parameters(), seldom.model.parameters(), strict=True):
        assert torch.equal(p, q), "an evaluation has changed the training"
    saved = load_file(result.folder / "weights" / "net.safetensors")
    theirs.optimizer.eval()  # type: ignore[attr-defined]
    for name, tensor in theirs.model.state_dict().items():
        torch.testing.assert_close(saved[name], tensor, rtol=1e-10, atol=1e-10)
    assert any(not torch.equal(saved[name], tensor) for name, tensor in one.model.state_dict().items())
