"""Learners made in plain Python train as a loop on one machine does, on every pool, and are checked, kept and resumed."""

import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import nn
from torch.optim import lr_scheduler, swa_utils
from torch.utils.data import DataLoader, TensorDataset

import distseq
from distseq.cli.main import cli, one_line_errors
from distseq.config.toml_file import load_config
from distseq.models.data.dataset import open_dataset
from tests.distseq.artifacts.crashing import CrashAfter, crashes

ROOT = Path(__file__).resolve().parents[3]
POOLS = ["simulated", "local", pytest.param("ray", marks=pytest.mark.ray)]
STEPS = 6


@pytest.fixture
def pool(request: pytest.FixtureRequest) -> str:
    if request.param == "ray":
        request.getfixturevalue("ray_session")
    return str(request.param)


@pytest.fixture(autouse=True)
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of the test's own; not for Ray, whose workers import distseq from where the driver is."""
    if request.node.get_closest_marker("ray") is None:
        monkeypatch.chdir(tmp_path)


def net(hidden: int, **buffers: float) -> nn.Module:
    """Of a class that no worker can import."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(3, hidden), nn.Linear(hidden, 1)
            for name, value in buffers.items():
                self.register_buffer(name, torch.tensor(value))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.head(torch.tanh(self.body(x))).squeeze(1)
            return out

    torch.manual_seed(hidden)
    return Net().double()


def points(count: int = 40, seed: int = 0) -> TensorDataset:
    x = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return TensorDataset(x, x.prod(1))


def squares() -> Callable[[nn.Module, Any], torch.Tensor]:
    return lambda model, batch: (model(batch[0]) - batch[1]) ** 2


def cubes() -> Callable[[nn.Module, Any], torch.Tensor]:
    return lambda model, batch: (model(batch[0]) - batch[1]).abs() ** 3


def small(name: str = "small", **more: Any) -> distseq.Learner:
    """Parameter groups, a cosine, clipping."""
    model = net(4, **more.pop("buffers", {}))
    groups = [{"params": model.body.parameters(), "lr": 0.02}, {"params": model.head.parameters(), "weight_decay": 0.0}]  # type: ignore[union-attr]
    optimizer = torch.optim.AdamW(groups, lr=more.pop("lr", 0.05), weight_decay=0.3)
    settings = {"batch": 10, "steps": STEPS, "data": points(), "clip": 0.5, "loss": squares(), **more}
    return distseq.Learner(name, model, optimizer, **settings, schedule=cosine(optimizer))


def cosine(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
    return lr_scheduler.CosineAnnealingLR(optimizer, STEPS)


def large(name: str = "large", **more: Any) -> distseq.Learner:
    """Momentum, a warm-up that is a function, accumulation, averaged weights, a sampler of its own."""
    model = net(9)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = lr_scheduler.LambdaLR(optimizer, lambda k: min(1.0, (k + 1) / 3))
    settings = {"batch": 7, "steps": 2 * STEPS, "accumulate": 3, "ema": 0.8, "data": points(30, 1), "loss": squares()}
    settings |= {"sampler": lambda step: np.arange(7 * step, 7 * step + 7) % 30, "schedule": schedule, **more}
    return distseq.Learner(name, model, optimizer, **settings)


def one_machine(one: distseq.Learner, data: TensorDataset) -> dict[str, torch.Tensor]:
    """Its weights, and the averaged ones, after a training loop in plain PyTorch."""
    average = swa_utils.AveragedModel(one.model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(one.ema or 0.5))
    for step in range(one.steps):
        x, y = data[one.ids(step)]
        ((one.model(x) - y) ** 2).mean().div(one.accumulate).backward()
        if (step + 1) % one.accumulate:
            continue
        if one.clip is not None:
            nn.utils.clip_grad_norm_(one.model.parameters(), one.clip)
        one.optimizer.step()
        one.optimizer.zero_grad()
        assert one.schedule is not None
        one.schedule.step()
        average.update_parameters(one.model)
    averaged = {f"averaged {key}": tensor for key, tensor in average.module.state_dict().items()}
    return {**one.model.state_dict(), **(averaged if one.ema else {})}


def learned(one: distseq.Learner) -> dict[str, torch.Tensor]:
    averaged = {} if one.averaged is None else one.averaged.state_dict()
    return {**one.model.state_dict(), **{f"averaged {key}": tensor for key, tensor in averaged.items()}}


def train(*learners: distseq.Learner, out: str = "run", **options: Any) -> distseq.Result:
    options = {"pool": "simulated", "workers": 4, "scheme": "gc:1", "checks": 2, **options}
    options |= {} if options["pool"] == "simulated" else {"hosts": 2}
    where = {} if "resume" in options else {"out": out}
    return distseq.train(learners, **where, console=Console(file=io.StringIO(), width=400), **options)


def assert_close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for key in ours:
        torch.testing.assert_close(ours[key], theirs[key], rtol=1e-11, atol=1e-12)


def assert_same_bits(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("pool", POOLS, indirect=True)
def test_learners_in_python_train_as_a_loop_on_one_machine_does(pool: str, tmp_path: Path) -> None:
    result = train(small(), large(), out=str(tmp_path / "run"), pool=pool, scheme="msgc:1,2,2", workers=8)
    weights = tmp_path / "run" / "weights"
    for one, other, data in zip(result.learners, (small(), large()), (points(), points(30, 1)), strict=True):
        assert_close(learned(one), one_machine(other, data))
        assert_same_bits(load_file(weights / f"{one.name}.safetensors"), one.model.state_dict())
    averaged = result.learners[1].averaged
    assert averaged is not None
    assert_same_bits(load_file(weights / "large.ema.safetensors"), averaged.state_dict())
    assert result.summary["jobs"] == 3 * STEPS
    assert result.summary["largest_gradient_difference"] < 1e-13
    assert load_config(tmp_path / "run" / "config.toml").run.dtype == "float64"


def test_learners_are_trained_in_place_and_go_on_from_where_they_are() -> None:
    one, other = small(steps=STEPS // 2, sampler=lambda step: np.arange(10)), small(sampler=lambda step: np.arange(10))
    train(one)
    result = train(one, out="again")
    assert result.learners[0] is one
    assert_close(learned(one), one_machine(other, points()))


SCRIPT = """
import sys
import torch
from torch import nn
import distseq

class OfTheScript(nn.Module):
    def __init__(self):
        super().__init__()
        self.line = nn.Linear(2, 1)

    def per_sample_loss(self, batch):
        return (self.line(batch["x"]).squeeze(1) - batch["y"]) ** SQUARE

class Points(torch.utils.data.Dataset):
    def __len__(self):
        return 20

    def __getitem__(self, i):
        return {"x": torch.tensor([i / 20, 1.0]), "y": torch.tensor(i / 10)}

SQUARE = 2
model = OfTheScript()
nn.init.ones_(model.line.weight)
nn.init.zeros_(model.line.bias)
learner = distseq.Learner("a", model, torch.optim.SGD(model.parameters(), lr=0.1), data=Points(), batch=8, steps=3)
hosts = None if sys.argv[1] == "simulated" else 2
distseq.train([learner], pool=sys.argv[1], workers=4, hosts=hosts, scheme="gc:1", out=sys.argv[1])
print("weight", model.line.weight.tolist(), model.line.bias.tolist())
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_a_model_of_the_script_itself_trains_without_a_main_guard(kind: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    said = []
    for pool in ("simulated", kind):
        command, environment = [sys.executable, "script.py", pool], os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=250)
        assert done.returncode == 0, done.stderr
        said.append([line for line in done.stdout.splitlines() if line.startswith("weight")])
    assert len(said[0]) == 1
    assert said[0] == said[1]


class Locked(TensorDataset):
    def __init__(self) -> None:
        super().__init__(*points().tensors)
        self.lock = threading.Lock()


def with_lock(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    lock = threading.Lock()

    def locked(*args: Any) -> torch.Tensor:
        with lock:
            return function(*args)

    return locked


def locked_model() -> distseq.Learner:
    one = small()
    one.model.lock = threading.Lock()  # type: ignore[assignment]
    return one


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (locked_model, "model"),
        (lambda: small(loss=with_lock(squares())), "loss"),
        (lambda: small(data=Locked()), "data"),
    ],
    ids=["model", "loss", "data"],
)
def test_what_cannot_be_pickled_is_named_with_its_learner(make: Callable[[], distseq.Learner], what: str) -> None:
    with pytest.raises(
        ValueError, match=rf"^learner small: its {what} cannot be sent to workers by pickle: .*lock"
    ) as e:
        train(large(), make(), pool="local")
    assert "\n" not in str(e.value)
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: [small(loss=lambda m, b: squares()(m, b).mean())],
            r"small: loss must return \(4,\) losses: got shape",
        ),
        (lambda: [small(loss=None)], r"small: Net has no per_sample_loss\(batch\) -> \(B,\): give a loss"),
        (lambda: [small(), small()], "two learners are named 'small'"),
        (lambda: [small("a b")], "must be letters, digits"),
        (lambda: [small(batch=0)], "small: batch must be a whole number of at least 1: got 0"),
        (lambda: [small(steps=1e3)], r"small: steps must be a whole number of at least 1: got 1000\.0"),
        (lambda: [small(accumulate=4)], "small: steps=6 is not a multiple of accumulate=4"),
        (lambda: [small(accumulate=0)], "small: accumulate must be a whole number of at least 1: got 0"),
        (lambda: [small(ema=1.0)], r"small: ema must be between 0 and 1: got 1\.0"),
        (lambda: [small(clip=0.0)], "small: clip must be > 0"),
        (lambda: [small(seed=-1)], "small: seed must be a whole number of at least 0: got -1"),
        (
            lambda: [small(ema=0.5), large("small.ema")],
            "'small' with ema and 'small.ema' would write the same weights file",
        ),
        (lambda: [small(sampler=lambda step: [1, 2])], r"small: the sampler must return 10 sample ids.*shape \(2,\)"),
        (lambda: [small(sampler=lambda step: np.full(10, 40))], r"ids in 0 \.\. 39: got 40 \.\. 40"),
        (lambda: [small(data=[])], "small: its data have no samples"),
        (lambda: [small(data=iter([1]))], "small: data 'list_iterator' must have __len__ and __getitem__"),
        (lambda: [small(data=DataLoader(points()))], "DataLoader hasn't: give its dataset, and its collate_fn as"),
        (lambda: [small(data="nothing:x")], "small: unknown data set 'nothing:x'"),
        (lambda: [small(data_args={"a": 1})], "small: data_args needs a data spec"),
        (lambda: [small(data="text:x", collate=list)], "small: collate needs a map-style torch data set"),
        (lambda: [normed()], "normed: BatchNorm1d 'norm' couples the samples"),
        (
            lambda: [moves(net(2), net(2))],
            "m: the optimizer holds none of the model's parameters that require a gradient",
        ),
        (lambda: [foreign_schedule()], "m: the schedule belongs to another optimizer"),
        (lambda: [small(), half()], r"the same dtype, float32 or float64: got float64 in small, float32 in half"),
        (lambda: twice(net(2)), "learners a and b train the same parameters"),
        (lambda: [small(), "a"], "train takes a config file, its tables, or a list of distseq.Learner: got str"),
        (list, "a config file needs at least one"),
    ],
)
def test_a_learner_that_makes_no_sense_is_refused_in_one_line(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        train(*make())
    assert "\n" not in str(error.value)
    assert not Path("run").exists()


def moves(model: nn.Module, moved: nn.Module, name: str = "m") -> distseq.Learner:
    optimizer = torch.optim.SGD(moved.parameters(), lr=0.1)
    return distseq.Learner(name, model, optimizer, data=points(), batch=4, steps=2, loss=squares())


def twice(model: nn.Module) -> list[distseq.Learner]:
    return [moves(model, model, "a"), moves(model, model, "b")]


def half() -> distseq.Learner:
    model = net(2).float()
    return moves(model, model, "half")


def foreign_schedule() -> distseq.Learner:
    model = net(2)
    one, other = (torch.optim.SGD(model.parameters(), lr=0.1) for _ in range(2))
    return distseq.Learner("m", model, one, data=points(), batch=4, steps=2, loss=squares(), schedule=cosine(other))


def normed() -> distseq.Learner:
    model = net(4)
    model.norm = nn.BatchNorm1d(4).double()
    return moves(model, model, "normed")


def test_learners_have_seeds_of_their_own() -> None:
    with pytest.raises(ValueError, match="a seed of their own"):
        train(small(), seed=3)
    assert not np.array_equal(small(seed=1).ids(0), small(seed=2).ids(0))


def test_steps_of_the_run_hold_for_every_learner() -> None:
    assert train(small(), large(), steps=3).summary["jobs"] == 6


def test_a_learner_that_is_refused_is_left_as_it_was() -> None:
    one = small(loss=lambda model, batch: squares()(model, batch) + squares()(model, batch).mean().detach())
    before, rates = learned(small()), repr(one.optimizer.state_dict())
    with pytest.raises(ValueError, match="losses of parts do not add up"):
        train(one)
    assert_same_bits(learned(one), before)
    assert repr(one.optimizer.state_dict()) == rates
    assert all(p.grad is None for p in one.model.parameters())


def test_trying_a_learner_leaves_no_trace_in_it() -> None:
    from distseq.learners.from_python import config_of_learners, fleet_of_learners

    learners = [small(), large()]
    fleet_of_learners(config_of_learners(learners), learners)
    for one, fresh in zip(learners, (small(), large()), strict=True):
        assert_same_bits(learned(one), learned(fresh))
        assert repr(one.snapshot().optimizer) == repr(fresh.snapshot().optimizer)
        assert repr(one.snapshot().schedule) == repr(fresh.snapshot().schedule)
        assert one.snapshot().accumulated is None
        assert all(p.grad is None for p in one.model.parameters())


def crashed(*learners: distseq.Learner, jobs: int, out: str = "run", **options: Any) -> None:
    own = {} if options.get("pool", "simulated") != "simulated" else {"compute": "rows"}
    with crashes():
        train(*learners, out=out, checkpoint_every=1, watchers=[CrashAfter(jobs)], **own, **options)


@pytest.mark.parametrize("jobs", [1, 4, 5, 11, 17])
def test_a_crash_also_amid_an_accumulation_and_a_resume_leave_no_trace(jobs: int) -> None:
    whole = train(small(), large(), out="whole", compute="rows").learners
    crashed(small(), large(), jobs=jobs)
    resumed = train(small(), large(), resume="run").learners
    for one, other in zip(resumed, whole, strict=True):
        assert_same_bits(learned(one), learned(other))
        assert repr(one.optimizer.state_dict()) == repr(other.optimizer.state_dict())
        assert one.schedule is not None
        assert other.schedule is not None
        assert one.schedule.state_dict() == other.schedule.state_dict()


def test_the_very_objects_may_be_resumed_in_the_same_session() -> None:
    whole = train(small(), large(), out="whole", compute="rows").learners
    one, other = small(), large()
    crashed(one, other, jobs=8)
    train(one, other, resume="run")
    assert_same_bits(learned(one), learned(whole[0]))
    assert_same_bits(learned(other), learned(whole[1]))


def test_a_run_on_local_workers_is_resumed_on_simulated_ones() -> None:
    whole = train(small(), large(), out="whole", compute="rows").learners
    crashed(small(), large(), jobs=7, pool="local")
    resumed = train(small(), large(), resume="run", pool="simulated", compute="rows").learners
    for one, other in zip(resumed, whole, strict=True):
        assert_same_bits(learned(one), learned(other))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: [small("other"), large()], "has the learners small, large, the configuration has other, large: "),
        (lambda: [small()], "has the learners small, large, the configuration has small: "),
        (lambda: [small(steps=1), large()], "learner small has already made 4 steps in the checkpoint: .*got steps=1"),
        (lambda: [small(), large(accumulate=1)], "the checkpoint has accumulated 1 jobs since .* got accumulate=1"),
        (lambda: [small(), large(ema=None)], "the checkpoint has an average of the weights, but the learner has none"),
        (
            lambda: [small(), large(schedule=None)],
            "the checkpoint has a learning-rate schedule, but the learner has none",
        ),
        (lambda: [small(), large(ema=0.7)], "different learners, data, seed or dtype"),
        (lambda: [small(batch=11), large()], "different learners, data, seed or dtype"),
        (lambda: [small(seed=1), large()], "different learners, data, seed or dtype"),
        (lambda: [small(lr=0.06), large()], "different learners, data, seed or dtype"),
        (lambda: [small(clip=None), large()], "different learners, data, seed or dtype"),
        (lambda: [small(data=points(seed=2)), large()], "different learners, data, seed or dtype"),
        (lambda: [small(loss=cubes()), large()], "different learners, data, seed or dtype"),
        (
            lambda: [small(buffers={"scale": 2.0}), large()],
            "scale of its model is float64 .*, but None in the checkpoint",
        ),
    ],
)
def test_other_learners_are_not_resumed_and_stay_as_they_were(make: Callable[[], Any], message: str) -> None:
    crashed(small(), large(), jobs=8)
    learners = make()
    before = [{key: tensor.clone() for key, tensor in learned(one).items()} for one in learners]
    with pytest.raises(ValueError, match=message):
        train(*learners, resume="run")
    for one, kept in zip(learners, before, strict=True):
        assert_same_bits(learned(one), kept)


def test_what_is_not_trained_must_be_the_same_for_a_resume() -> None:
    crashed(small(buffers={"scale": 1.0}), jobs=2)
    with pytest.raises(ValueError, match="different learners, data, seed or dtype"):
        train(small(buffers={"scale": 2.0}), resume="run")
    assert train(small(buffers={"scale": 1.0}), resume="run").summary["jobs"] == STEPS


def test_the_command_line_says_that_it_has_no_model_to_import(capsys: pytest.CaptureFixture[str]) -> None:
    crashed(small(), jobs=2)
    for words in (["--resume", "run"], ["run/config.toml", "--pool", "simulated"]):
        assert one_line_errors(lambda words=words: cli(["train", *words], standalone_mode=False)) == 2  # type: ignore[misc]
        said = capsys.readouterr()
        assert (said.out, said.err.count("\n")) == ("", 1)
        assert "learner small: its model was made in Python and cannot be imported" in said.err


def test_data_may_be_a_spec_a_dataset_of_ours_or_samples_under_a_collate() -> None:
    x, y = (tensor.numpy() for tensor in points().tensors)
    np.savez("points.npz", x=x, y=y)

    def loss(model: nn.Module, batch: Any) -> torch.Tensor:
        return squares()(model, (batch["x"], batch["y"]))

    def collate(samples: list[Any]) -> dict[str, torch.Tensor]:
        return {"x": torch.stack([one for one, _ in samples]), "y": torch.stack([one for _, one in samples])}

    expected = learned(train(small(), out="tuples").learners[0])
    kinds: list[dict[str, Any]] = [
        {"data": "arrays:points.npz", "data_args": {"dtype": "float64"}},
        {"data": open_dataset("arrays:points.npz", dtype="float64")},
        {"data": points(), "collate": collate},
    ]
    learners = [small(f"m{k}", loss=loss, **kind) for k, kind in enumerate(kinds)]
    for one in train(*learners, pool="local").learners:
        assert_close(learned(one), expected)


def test_data_of_a_spec_that_differ_at_a_worker_are_found_out() -> None:
    from distseq.config.overrides import override
    from distseq.learners.from_python import config_of_learners, fleet_of_learners

    Path("a.txt").write_text("to be or not to be, that is the question. " * 4)
    learners = [small(data="text:a.txt", data_args={"window": 3}, loss=by_length())]
    config = override(config_of_learners(learners), {"pool": "local"})
    spec = fleet_of_learners(config, learners).spec
    Path("a.txt").write_text("to be or not to be, this is the question. " * 4)
    with pytest.raises(ValueError, match=r"data 'text:a\.txt' differ between hosts"):
        spec.load().problem(0)  # type: ignore[attr-defined]


def by_length() -> Callable[[nn.Module, Any], torch.Tensor]:
    return lambda model, batch: model(batch["inputs"].double()) ** 2


def test_text_under_a_loss_of_one_s_own_has_no_bits_per_character() -> None:
    Path("a.txt").write_text("to be or not to be, that is the question. " * 4)
    summary = train(small(data="text:a.txt", data_args={"window": 3}, loss=by_length())).summary
    assert list(summary["models"]["small"]) == ["steps", "training_loss", "evaluation_loss"]


def test_tied_weights_are_saved() -> None:
    model = net(3)
    model.again = model.body
    train(moves(model, model))
    saved = load_file("run/weights/m.safetensors")
    torch.testing.assert_close(saved["again.weight"], saved["body.weight"])


def test_what_learners_share_is_sent_once() -> None:
    from distseq.learners import pickling as live

    data = points(2000)
    one, two = small("a", data=data), small("b", data=data)
    assert len(live.data([one, two])) < 1.1 * len(live.data([one]))
