"""The trial at start compares what workers would send with plain PyTorch, on copies, and refuses in one line what differs."""

import re
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.utils.data import TensorDataset

import distseq
from distseq.learners.from_python import config_of_learners, fleet_of_learners
from distseq.learners.trials.plain import train_plainly
from tests.distseq.learners.test_plain_torch import Net, assert_as_plain, learner, points, squares, train


@pytest.fixture(autouse=True)
def folder(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def fleet(*learners: distseq.Learner) -> Any:
    return fleet_of_learners(config_of_learners(learners), learners)


def refused(make: Callable[[], Any], reason: str) -> None:
    with pytest.raises(ValueError, match=f"^learner net: .*{reason}") as error:
        fleet(make())
    assert "\n" not in str(error.value)


def tokens(lengths: list[int]) -> TensorDataset:
    draws = torch.Generator().manual_seed(2)
    x = torch.randn(len(lengths), 3, generator=draws, dtype=torch.float64)
    return TensorDataset(x, x.prod(1), torch.tensor(lengths, dtype=torch.float64))


def by_batch_tokens(model: nn.Module, batch: list[Tensor]) -> Tensor:
    x, y, count = batch
    return (model(x) - y) ** 2 * count / count.mean()


def test_a_loss_normalized_by_the_batch_s_tokens_is_refused_though_four_samples_have_one_length() -> None:
    lengths = [3 + 4 * (k % 7 == 3) for k in range(90)]
    for k in (0, 29, 59, 89):
        lengths[k] = 3
    refused(lambda: learner(Net(), data=tokens(lengths), loss=by_batch_tokens), "decoded from parts of a batch")


def with_noise(couple: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """A loss with noise for each sample, computed in blocks, of residuals (B,) that `couple` may couple."""

    def loss(model: nn.Module, batch: list[Tensor]) -> Tensor:
        x, y = batch
        return couple(model(x + 0.1 * torch.randn_like(x)) - y).square()

    return loss


def test_samples_that_are_coupled_within_a_block_of_random_draws_are_refused() -> None:
    reason = (
        "the loss of a sample changes with the other samples of its block .*: a sample's loss may depend on no other"
    )
    for couple in (
        lambda r: r - r.mean(),
        lambda r: r / r.abs().max(),
        lambda r: r.roll(1),
        lambda r: r + 1e-3 * r.flip(0),
    ):
        refused(lambda couple=couple: learner(Net(), loss=with_noise(couple)), reason)  # type: ignore[misc]
    assert fleet(learner(Net(), loss=with_noise(lambda r: 2 * r))).learners[0].cut.blocks == 8


def test_counts_that_are_coupled_within_a_block_of_random_draws_are_refused() -> None:
    def loss(model: nn.Module, batch: list[Tensor]) -> tuple[Tensor, Tensor]:
        x, y = batch
        return (model(x + 0.1 * torch.randn_like(x)) - y).square(), x[:, 0].abs().mean().expand(len(x))

    refused(lambda: learner(Net(), loss=loss), "the count of a sample changes with the other samples of its block")


def test_draws_that_only_one_sample_in_twenty_shows_are_seen() -> None:
    def rare(model: nn.Module, batch: list[Tensor]) -> Tensor:
        losses = squares(model, batch)
        return losses * (1 + 0.5 * torch.rand(())) if (batch[0][:, 0] > 1.6).any() else losses

    # In the batch or among the further samples.
    assert fleet(learner(Net(), loss=rare, batch=40)).learners[0].cut.blocks == 8


def test_learners_whose_models_hold_other_functions_are_of_other_kinds() -> None:
    class Held(Net):
        def __init__(self, middle: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            self.middle = middle  # type: ignore[method-assign]

    ones = [learner(Held(torch.tanh)), learner(Held(lambda h: h * torch.rand(())))]
    ones[1].name = "other"
    assert [one.cut.blocks > 0 for one in fleet(*ones).learners] == [False, True]


def test_hooks_on_activations_that_are_not_linear_are_refused() -> None:
    class Clamped(Net):
        def middle(self, h: Tensor) -> Tensor:
            if h.requires_grad:
                h.register_hook(lambda gradient: gradient.clamp(-0.001, 0.001))
            return torch.tanh(h)

    class Backward(Net):
        def __init__(self) -> None:
            super().__init__()
            self.body.register_full_backward_hook(lambda module, inputs, outputs: tuple(g and g.sign() for g in inputs))

    refused(lambda: learner(Clamped()), "gradients of parts do not add up .* hooks inside the model must be linear")


def test_hooks_on_modules_that_are_linear_work() -> None:
    def make() -> distseq.Learner:
        model = Net()
        model.head.register_full_backward_hook(lambda module, inputs, outputs: (inputs[0] * 2,))
        return learner(model)

    assert_as_plain(make)


def test_what_a_model_keeps_of_its_first_parameters_is_refused() -> None:
    class Keeps(Net):
        kept: Tensor | None = None

        def middle(self, h: Tensor) -> Tensor:
            if self.kept is None:
                self.kept = self.body.weight.detach().sum() * 0.1
            return torch.tanh(h) * self.kept

    # A host that is replaced during the run would keep something of other parameters.
    refused(lambda: learner(Keeps()), "forward may keep nothing from one call to the next")


class Counting(torch.optim.SGD):
    """Makes every second step only, by a counter of its own."""

    def __init__(self, parameters: Any, **options: Any) -> None:
        super().__init__(parameters, **options)
        self.counter = 0

    def step(self, closure: Any = None) -> Any:
        self.counter += 1
        return super().step(closure) if self.counter % 2 else None


class Lookahead:
    """Wraps another optimizer, as a user may: no subclass of torch's."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        self.inner, self.param_groups, self.count = inner, inner.param_groups, 0
        self.slow = [p.detach().clone() for group in self.param_groups for p in group["params"]]

    def zero_grad(self) -> None:
        self.inner.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        return self.inner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.inner.load_state_dict(state)

    def step(self) -> None:
        self.inner.step()
        self.count += 1
        if self.count % 2 == 0:
            with torch.no_grad():
                for slow, p in zip(self.slow, (p for group in self.param_groups for p in group["params"]), strict=True):
                    slow.add_(p - slow, alpha=0.5)
                    p.copy_(slow)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda p: Counting(p, lr=0.1, momentum=0.5),
        lambda p: Lookahead(torch.optim.Adam(p, lr=0.05)),
    ],
    ids=["counter", "lookahead"],
)
def test_optimizers_with_state_of_their_own_step_as_in_plain_torch(optimizer: Callable[[Any], Any]) -> None:
    printed = assert_as_plain(lambda: learner(Net(), optimizer))
    assert re.search(r"learner net: its optimizer keeps count\w* beside its state_dict\(\)", printed)


def test_a_trial_leaves_model_optimizer_schedule_and_generators_as_they_were() -> None:
    one = learner(Net(), lambda p: Counting(p, lr=0.1), ema=0.9)
    one.schedule = lr_scheduler.StepLR(one.optimizer, 1)
    state, counted = torch.get_rng_state(), one.schedule.last_epoch
    before = {name: tensor.clone() for name, tensor in one.model.state_dict().items()}
    fleet(one)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], tensor) for name, tensor in one.model.state_dict().items())
    assert all(p.grad is None for p in one.model.parameters())
    assert (one.optimizer.counter, one.optimizer.state, one.schedule.last_epoch) == (0, {}, counted)  # type: ignore[attr-defined]


def test_an_optimizer_that_cannot_be_copied_is_said_and_trains() -> None:
    class Locked(torch.optim.SGD):
        def __init__(self, parameters: Any) -> None:
            super().__init__(parameters, lr=0.1)
            self.lock = threading.Lock()

    printed = assert_as_plain(lambda: learner(Net(), Locked))
    assert "learner net: its optimizer or schedule cannot be copied (TypeError: cannot pickle" in printed


def test_a_loss_that_holds_the_model_by_a_closure_is_tried_and_trains() -> None:
    def make() -> distseq.Learner:
        model = Net().double()
        return learner(model, loss=lambda _, batch: (model(batch[0]) - batch[1]) ** 2)

    one = make()
    train(one)
    other = make()
    train_plainly(other)
    for p, q in zip(one.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-10)


def test_learners_of_one_kind_are_tried_once() -> None:
    def one(k: int, width: int = 4) -> distseq.Learner:
        model = nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 1), nn.Flatten(0)).double()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01 * (k + 1))
        return distseq.Learner(f"m{k}", model, optimizer, data=points(30 + k), batch=12, steps=2, loss=squares)

    made = fleet(*(one(k, width=4 + k % 2) for k in range(40)))
    assert len(made.trials) == 2
    (line,) = made.tried()
    assert re.fullmatch(
        r"tried 40 learners of 2 kinds against plain PyTorch on 42 to 43 samples each: \d\.\d\d s", line
    )
    assert sum(trial.seconds for trial in made.trials) < 2


def test_unreached_parameters_are_named_once() -> None:
    class Spare(Net):
        def __init__(self) -> None:
            super().__init__()
            self.spare = nn.Linear(2, 2)

    _, printed = train(learner(Spare()))
    assert (
        printed.count("learner net: its loss does not reach spare.weight, spare.bias: left out of optimizer steps") == 1
    )


def test_a_frozen_batch_norm_in_evaluation_mode_trains_as_in_plain_torch() -> None:
    class Frozen(Net):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(4).eval()

        def middle(self, h: Tensor) -> Tensor:
            return torch.tanh(self.norm(h))

    assert_as_plain(lambda: learner(Frozen(), evaluation=points(20)), evaluate_every=1)
    refused(lambda: learner(Frozen().train()), "BatchNorm1d 'norm' couples the samples")


class Parametrized(Net):
    def __init__(self, how: Callable[[nn.Module], nn.Module]) -> None:
        super().__init__()
        self.body = how(self.body)  # type: ignore[assignment]


@pytest.mark.parametrize(
    "how",
    [
        nn.utils.parametrizations.weight_norm,
        nn.utils.parametrizations.orthogonal,
        pytest.param(nn.utils.weight_norm, marks=pytest.mark.filterwarnings("ignore::FutureWarning")),
    ],
)
def test_parametrizations_of_models_made_in_python_work(how: Callable[[nn.Module], nn.Module]) -> None:
    assert_as_plain(lambda: learner(Parametrized(how)))


class Embedded(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(9, 4, **options), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.table((x[:, 0].abs() * 3).long().clamp_max(8))).squeeze(1)
        return out


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: learner(Embedded(max_norm=100.0)), "Embedding 'table' with max_norm changes its weights in forward"),
        (
            lambda: learner(Embedded(sparse=True), lambda p: torch.optim.SGD(p, 0.1)),
            "Embedding 'table' with sparse=True",
        ),
        (
            lambda: learner(nn.Sequential(nn.Linear(3, 4), nn.LazyLinear(1), nn.Flatten(0))),
            "LazyLinear '1' has parameters without a shape: run a batch",
        ),
        (lambda: hooked_after(), "parameter 'body.weight' has a post-accumulate-grad hook"),
        (lambda: complex_one(), "parameter 'turn' is complex, but gradients travel as real numbers"),
    ],
)
def test_what_cannot_be_right_is_refused_by_name(make: Callable[[], Any], reason: str) -> None:
    refused(make, reason)


def hooked_after() -> distseq.Learner:
    model = Net()
    model.body.weight.register_post_accumulate_grad_hook(lambda p: None)
    return learner(model)


def complex_one() -> distseq.Learner:
    model = Net()
    model.turn = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    return learner(model)


def test_float64_targets_of_a_float32_model_train_as_in_plain_torch() -> None:
    def make() -> distseq.Learner:
        model, x = Net(), points().tensors[0].float()
        data = TensorDataset(x, x.prod(1).double())
        return distseq.Learner(
            "net", model, torch.optim.SGD(model.parameters(), 0.1), data=data, batch=12, steps=5, loss=squares
        )

    assert_as_plain(make, tolerance=1e-5)


def test_an_optimizer_that_computes_the_loss_again_is_refused_by_name() -> None:
    class Sharpness(torch.optim.SGD):
        def step(self, closure: Any) -> Any:  # type: ignore[override]
            return super().step(closure)

    for optimizer in (torch.optim.LBFGS, Sharpness):
        with pytest.raises(
            ValueError, match=f"^learner net: {optimizer.__name__} computes the loss again .* no closure"
        ):
            learner(Net(), lambda p, kind=optimizer: kind(p, lr=0.1))


def test_a_schedule_made_in_python_that_ends_too_early_is_refused_at_the_start() -> None:
    def one(steps: int, **more: Any) -> distseq.Learner:
        model = Net().double()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        schedule = lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=5)
        return distseq.Learner(
            "net", model, optimizer, schedule=schedule, data=points(), batch=12, steps=steps, loss=squares, **more
        )

    one(5)
    one(10, accumulate=2)
    with pytest.raises(ValueError, match=r"^learner net: schedule OneCycleLR ends before the learner's 6 steps"):
        one(6)
    with pytest.raises(ValueError, match=r"^learner net: schedule OneCycleLR ends before the learner's 7 steps"):
        one(5).steps = 7


@pytest.mark.parametrize("given", [{"clip": "1"}, {"ema": "0.9"}, {"clip": [1]}])
def test_what_is_no_number_is_refused(given: dict[str, Any]) -> None:
    ((name, value),) = given.items()
    with pytest.raises(ValueError, match=rf"^learner net: {name} must be .*: got {re.escape(repr(value))}$"):
        learner(Net(), **given)


def test_an_optimizer_that_lists_only_some_parameters_leaves_the_others() -> None:
    def make() -> distseq.Learner:
        model = Net().double()
        model.body.bias.requires_grad_(False)
        optimizer = torch.optim.AdamW(
            [{"params": [model.body.weight], "lr": 0.02}, {"params": [model.head.bias]}], lr=0.1
        )
        return distseq.Learner("net", model, optimizer, data=points(), batch=12, steps=5, loss=squares, clip=0.1)

    assert_as_plain(make)


def test_a_hook_of_all_modules_is_refused() -> None:
    handle = nn.modules.module.register_module_forward_hook(lambda module, inputs, output: output * 2)
    try:
        refused(lambda: learner(Net()), "a hook of all modules is registered in this process")
    finally:
        handle.remove()


def test_a_run_at_the_minimum_of_its_loss_is_rounding_and_no_mistake() -> None:
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(5))
    data = TensorDataset(x, x @ torch.tensor([1.0, -2.0, 0.5]))
    model = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, -2.0, 0.5]]))
        model[0].bias.zero_()
    one = distseq.Learner(
        "flat", model, torch.optim.SGD(model.parameters(), 0.1), data=data, batch=40, steps=3, loss=squares
    )
    result, _ = train(one)
    assert result.summary["failures"] == []


class Langevin(torch.optim.SGD):
    """Adds noise to the weights."""

    def step(self, closure: Any = None) -> Any:
        found = super().step(closure)
        for group in self.param_groups:
            for p in group["params"]:
                p.data.add_(torch.randn_like(p), alpha=1e-3)
        return found


def test_an_optimizer_that_draws_is_refused_since_a_resumed_run_would_draw_anew() -> None:
    refused(lambda: learner(Net(), lambda p: Langevin(p, 0.1)), "its optimizer, or a hook of its parameters, draws")


def test_gradients_are_computed_though_another_model_has_switched_them_off() -> None:
    one = fleet(learner(Net()))
    o = one.learners[0].open(0)
    payload = o.payload(0, 0, 0, "uncoded", 1)
    expected = one.work.row(payload, o.ids, np.ones(len(o.ids)))
    with torch.no_grad():
        found = one.work.row(payload, o.ids, np.ones(len(o.ids)))
    assert expected[:-2].any()
    assert np.array_equal(found, expected)
