"""What breaks the contract of a coded gradient is refused at start, with its reason and the learner's name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distseq.config.toml_file import from_dict
from distseq.learners.fleet import Fleet
from distseq.learners.from_config import build_fleet

MODELS = """
import numpy as np
import torch
from torch import nn


class Good(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(3, 4)
        self.head = nn.Linear(4, 1)

    def forward(self, x):
        return self.head(self.middle(torch.tanh(self.body(x)))).squeeze(1)

    def middle(self, h):
        return h

    def per_sample_loss(self, batch):
        return (self(batch["x"]) - batch["y"]) ** 2


class Norm(Good):
    def __init__(self, kind, **args):
        super().__init__()
        self.norm = getattr(nn, kind)(4, **args)

    def middle(self, h):
        return self.norm(h)


class Instances(Good):
    def __init__(self, tracked):
        super().__init__()
        self.norm = nn.InstanceNorm1d(2, track_running_stats=tracked)

    def middle(self, h):
        return self.norm(h.view(-1, 2, 2)).flatten(1)


class Mean(Good):
    def per_sample_loss(self, batch):
        return super().per_sample_loss(batch).mean()


class Column(Good):
    def per_sample_loss(self, batch):
        return super().per_sample_loss(batch)[:, None]


class Number(Good):
    def per_sample_loss(self, batch):
        return 1.5


class Squeezes(Good):
    def per_sample_loss(self, batch):
        return super().per_sample_loss(batch).squeeze()


class Buffer(Good):
    def __init__(self, persistent=True):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()), persistent=persistent)

    def forward(self, x):
        self.seen += len(x)
        return super().forward(x)


class NewBuffer(Good):
    def forward(self, x):
        self.register_buffer("cache", torch.ones(2))
        return super().forward(x)


class Parameter(Good):
    def forward(self, x):
        with torch.no_grad():
            self.head.bias.mul_(0.5).add_(1)
        return super().forward(x)


class Counter(Good):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x) * self.calls


class Coupled(Good):
    def per_sample_loss(self, batch):
        losses = super().per_sample_loss(batch)
        return losses / len(losses)


class Centred(Good):
    def middle(self, h):
        return h - 0.01 * h.mean(0)


class Baseline(Good):
    def per_sample_loss(self, batch):
        losses = super().per_sample_loss(batch)
        return losses - losses.mean().detach()


class Dropout(Good):
    def __init__(self, p):
        super().__init__()
        self.p = p

    def middle(self, h):
        return nn.functional.dropout(h, self.p)


class ByPosition(Good):
    def middle(self, h):
        torch.manual_seed(7)
        return h * torch.rand(h.shape, dtype=h.dtype)


class Keyed(Good):
    def middle(self, h):
        return h * torch.frac(1e3 * h.detach()).abs()


class NumpyNoise(Good):
    def middle(self, h):
        return h * float(np.random.rand())


class Detached(Good):
    def per_sample_loss(self, batch):
        return super().per_sample_loss(batch).detach()


class Elsewhere(Good):
    def per_sample_loss(self, batch):
        return batch["y"].clone().requires_grad_() ** 2


class Frozen(Good):
    def __init__(self):
        super().__init__()
        self.requires_grad_(False)


class PartlyUnused(Good):
    def __init__(self):
        super().__init__()
        self.unused = nn.Linear(2, 2)
        self.register_buffer("mask", torch.tensor([float("nan"), -float("inf")]))
        self.register_buffer("flags", torch.tensor([True, False]), persistent=False)


class Rotary(Good):
    def __init__(self):
        super().__init__()
        turn = torch.polar(torch.ones(2), torch.tensor([0.5, 2.0]))
        self.register_buffer("turn", turn)
        self.register_buffer("flags", torch.tensor([True, False, True, True]))
        self.register_buffer("steps", torch.arange(4))
        self.low = nn.Linear(4, 4).bfloat16()

    def middle(self, h):
        turned = torch.view_as_real(torch.view_as_complex(h.view(-1, 2, 2)) * self.turn).flatten(1)
        return self.low(turned * self.flags + self.steps)


class Turning(Good):
    def __init__(self):
        super().__init__()
        self.turn = nn.Parameter(torch.ones(2, dtype=torch.complex64))


class Lazy(Good):
    def __init__(self):
        super().__init__()
        self.head = nn.LazyLinear(1)


class Unseeded(Good):
    def __init__(self):
        super().__init__()
        self.register_buffer("features", torch.from_numpy(np.random.rand(3)))


class Losses(Good):
    def __init__(self, dtype):
        super().__init__()
        self.dtype = getattr(torch, dtype)

    def per_sample_loss(self, batch):
        return super().per_sample_loss(batch).to(self.dtype)


class Scripted(Good):
    def __init__(self):
        super().__init__()
        self.body = torch.jit.script(self.body)


class Sparse(Good):
    def __init__(self):
        super().__init__()
        self.mask = nn.Parameter(torch.eye(3).to_sparse())


class Exits(Good):
    def forward(self, x):
        raise SystemExit(3)


class Raises(Good):
    def forward(self, x):
        raise KeyError("two\\nlines")
"""


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "contract_models.py").write_text(MODELS)
    draws = np.random.default_rng(3)
    np.savez(tmp_path / "data.npz", x=draws.normal(size=(11, 3)), y=draws.normal(size=11))
    np.savez(tmp_path / "one.npz", x=draws.normal(size=(1, 3)), y=draws.normal(size=1))
    monkeypatch.chdir(tmp_path)


def build(model: str, dtype: str = "float32", data: str = "arrays:data.npz", **more: Any) -> Fleet:
    learner = {
        "name": "tiny",
        "model": f"contract_models:{model}",
        "data": data,
        "data_args": {"dtype": dtype},
        "batch": 5,
        **more,
    }
    return build_fleet(from_dict({"run": {"dtype": dtype}, "learner": [learner]}))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("model", "args"),
    [
        ("Good", {}),
        ("Norm", {"kind": "LayerNorm"}),
        ("Instances", {"tracked": False}),
        ("Dropout", {"p": 0.0}),
        ("Dropout", {"p": 0.5}),
        ("Dropout", {"p": 1e-6}),
        ("ByPosition", {}),
        ("NumpyNoise", {}),
        ("Keyed", {}),
        ("PartlyUnused", {}),
        ("Rotary", {}),
        ("Losses", {"dtype": "float64"}),
    ],
)
def test_a_good_model_passes(model: str, args: dict[str, Any], dtype: str) -> None:
    fleet = build(model, dtype, model_args=args)
    assert fleet.learners[0].publish().dtype == dtype
    assert len(build(model, dtype, "arrays:one.npz", model_args=args, batch=1).learners) == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("model", "args", "reason"),
    [
        ("Norm", {"kind": "BatchNorm1d"}, "BatchNorm1d 'norm' couples the samples of a batch or keeps running stat"),
        ("Norm", {"kind": "BatchNorm1d", "track_running_stats": False}, "BatchNorm1d 'norm' couples"),
        ("Norm", {"kind": "SyncBatchNorm"}, "SyncBatchNorm 'norm' couples"),
        ("Instances", {"tracked": True}, "InstanceNorm1d 'norm' couples .* keeps running statistics: use GroupNorm"),
        ("Mean", {}, r"per_sample_loss must return \(4,\) losses: got shape \(\)$"),
        ("Column", {}, r"per_sample_loss must return \(4,\) losses: got shape \(4, 1\)$"),
        ("Number", {}, r"per_sample_loss must return a tensor of \(4,\) losses: got float$"),
        ("Squeezes", {}, r"per_sample_loss must return \(1,\) losses: got shape \(\)$"),
        ("Buffer", {}, "forward changes buffer 'seen'"),
        ("Buffer", {"persistent": False}, "forward changes buffer 'seen'"),
        ("NewBuffer", {}, "forward changes buffer 'cache'"),
        ("Parameter", {}, "forward changes parameter 'head.bias'"),
        ("Counter", {}, "computing the same row twice gives different results: .*forward must keep no state"),
        ("Coupled", {}, "gradients of parts do not add up .* may depend on no other sample of its batch"),
        ("Centred", {}, "gradients of parts do not add up"),
        ("Baseline", {}, "losses of parts do not add up"),
        ("Detached", {}, "the loss depends on no parameter that requires a gradient"),
        ("Elsewhere", {}, "the loss depends on no parameter that requires a gradient"),
        ("Frozen", {}, "model 'contract_models:Frozen' has no parameter that requires a gradient"),
        ("Unseeded", {}, "building the model twice from one seed gives two different values of 'features'"),
        ("Turning", {}, r"parameter 'turn' is complex, but gradients travel as real numbers"),
        ("Lazy", {}, r"LazyLinear 'head' has parameters without a shape: run a batch through the model"),
        ("Losses", {"dtype": "bfloat16"}, r"losses of float.*, as its parameters are float\d+: got bfloat16$"),
        ("Losses", {"dtype": "float16"}, r"losses of float.*, as its parameters are float\d+: got float16$"),
        ("Losses", {"dtype": "int64"}, r"losses of float.*, as its parameters are float\d+: got int64$"),
        ("Losses", {"dtype": "complex64"}, r"losses of float.*, as its parameters are float\d+: got complex64$"),
        ("Sparse", {}, "parameter 'mask' is sparse, but rows are dense: hold its values as a dense tensor"),
        ("Scripted", {}, "RecursiveScriptModule 'body' is compiled by torch.jit, and workers need copies that train"),
        ("Exits", {}, "SystemExit: 3$"),
        ("Raises", {}, r"KeyError: 'two\\nlines'$"),
    ],
)
def test_a_broken_contract_is_refused_with_its_reason(
    model: str, args: dict[str, Any], reason: str, dtype: str
) -> None:
    with pytest.raises(ValueError, match=f"^learner tiny: .*{reason}") as error:
        build(model, dtype, model_args=args)
    assert "\n" not in str(error.value)


def test_casting_keeps_complex_whole_and_boolean_buffers_what_they_are() -> None:
    for dtype in ("float32", "float64"):
        fleet = build("Rotary", dtype)
        for model in (fleet.learners[0].model, fleet.work.problem(0).model):
            kept = dict(model.named_buffers())
            assert [kept[name].dtype for name in ("turn", "flags", "steps")] == [
                torch.complex64,
                torch.bool,
                torch.int64,
            ]
            assert torch.view_as_real(kept["turn"])[:, 1].abs().min() > 0.4, "the imaginary part is there"
            assert {str(p.dtype) for p in model.parameters()} == {f"torch.{dtype}"}


def test_trying_a_model_leaves_learner_and_generator_as_they_were() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    tried = build("Good").learners[0]
    assert torch.equal(torch.get_rng_state(), before)
    assert not tried.optimizer.state
    np.testing.assert_array_equal(tried.publish(), build("Good").learners[0].publish())
