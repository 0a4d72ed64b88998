"""Gradient checks: the pool recomputes sampled jobs beside training, and a learner whose gradient is wrong fails."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

import distseq
from distseq.cluster.probe import Probe
from distseq.cluster.simulated import SimulatedPool
from distseq.cluster.trace import Trace
from distseq.engine.checks import SHARE, Check
from distseq.engine.differences import is_rounding, largest
from distseq.engine.failures import FailedError
from distseq.engine.interfaces import JobInput
from distseq.engine.journal import ARRIVAL, MemoryJournal, read_journal
from distseq.engine.master import Master
from distseq.scheduling.pipeline import Pipeline
from distseq.scheduling.pipeline_scheduler import PipelineScheduler
from tests.distseq.learners.test_plain_torch import Net, learner, points, squares

N = 4
POOLS: dict[str, dict[str, Any]] = {
    "decoded": {"pool": "simulated"},
    "rows": {"pool": "simulated", "compute": "rows"},
    "local": {"pool": "local", "hosts": 2},
    "ray": {"pool": "ray", "hosts": 2},
}


@pytest.fixture(params=["decoded", "rows", "local", pytest.param("ray", marks=pytest.mark.ray)])
def pool(request: pytest.FixtureRequest) -> dict[str, Any]:
    if request.param == "ray":
        request.getfixturevalue("ray_session")
    return {"workers": N, **POOLS[request.param]}


def train(out: Path, *learners: distseq.Learner, **options: Any) -> distseq.Result:
    console = Console(file=io.StringIO(), width=400)
    return distseq.train(learners, out=out, console=console, **{"scheme": "gc:1", **options})


def later(change: Callable[[Tensor, Tensor], Tensor]) -> Callable[[nn.Module, Any], Tensor]:
    """A loss that is changed once the trial is over: when the model has left its first parameters behind."""

    def loss(model: nn.Module, batch: list[Tensor]) -> Tensor:
        losses = squares(model, batch)
        return change(losses, batch[0]) if float(model.head.bias.detach()) < -0.9 else losses  # type: ignore[arg-type, union-attr, operator]

    return loss


def moving(loss: Callable[[nn.Module, Any], Tensor], steps: int = 12) -> distseq.Learner:
    """A learner whose bias goes below -0.9 in its third step, and stays there."""
    model = Net()
    bias = model.head.bias
    with torch.no_grad():
        bias.fill_(-0.5)
    bias.register_hook(lambda gradient: (bias.detach() > -0.9).to(gradient))
    return learner(model, lambda p: torch.optim.SGD(p, lr=0.2), loss=loss, steps=steps)


@pytest.mark.parametrize(
    "change",
    [
        lambda losses, x: losses * (1 + torch.tanh(losses.detach().mean())),
        lambda losses, x: losses * (1 + 1 / len(losses)),
        lambda losses, x: losses * (1 + 0.01 * x.mean()),
    ],
    ids=["a mean over the part", "the size of the part", "the other samples"],
)
def test_a_gradient_that_goes_wrong_during_the_run_fails_its_learner_with_both_numbers(
    tmp_path: Path, pool: dict[str, Any], change: Callable[[Tensor, Tensor], Tensor]
) -> None:
    # On real workers training goes on while a check waits, by how many jobs is the machine's affair.
    steps = 12 if pool["pool"] == "simulated" else 400
    with pytest.raises(FailedError) as error:
        train(tmp_path / "run", moving(later(change), steps), checks=2 * steps, **pool)
    message = str(error.value)
    assert "learner net failed at step" in message
    assert "differs from the full batch's by" in message
    assert "of its size (allowed 1e-09; norms" in message
    records = list(read_journal(tmp_path / "run" / "journal.jsonl"))
    checks = [record for record in records if record["kind"] == "check"]
    assert all(record["difference"] < 1e-12 for record in checks), "before it went wrong, all was well"


def test_a_learner_that_fails_its_check_leaves_the_others_alone(tmp_path: Path) -> None:
    model = Net().double()
    good = distseq.Learner(
        "good", model, torch.optim.SGD(model.parameters(), 0.1), data=points(), batch=12, steps=40, loss=squares
    )
    bad = moving(later(lambda losses, x: losses * (1 + 1 / len(losses))))
    result = train(tmp_path / "run", bad, good, checks=40, workers=N, pool="simulated", compute="rows")
    (failure,) = result.summary["failures"]
    assert failure["learner"] == "net"
    assert result.summary["models"]["good"]["steps"] == 40
    assert 0 < result.summary["largest_gradient_difference"] < 1e-12
    assert sorted(path.name for path in (result.folder / "weights").iterdir()) == ["good.safetensors"]


def test_a_converged_run_s_rounding_is_no_failure(tmp_path: Path) -> None:
    """Its gradient is noise of 1e-8, which differs between cuts by as much as it is."""
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(5))
    data = torch.utils.data.TensorDataset(x, x @ torch.tensor([1.0, -2.0, 0.5]) + 0.25)
    model = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0))
    one = distseq.Learner(
        "line",
        model,
        torch.optim.SGD(model.parameters(), 0.2),
        data=data,
        batch=64,
        steps=120,
        loss=squares,
        sampler=lambda step: np.arange(64),
    )
    result = train(tmp_path / "run", one, checks=60, workers=N, pool="simulated", compute="rows")
    assert result.summary["failures"] == []
    assert result.summary["gradients_checked"] > 8
    assert result.summary["models"]["line"]["training_loss"] < 1e-12


class Busy:
    """A learner of the probe, whose jobs take all workers all the time."""

    def __init__(self, name: str, steps: int) -> None:
        self.name, self.steps, self.made = name, steps, 0

    def open(self, step: int) -> JobInput:
        return JobInput(np.zeros(2), np.arange(16))

    def apply(self, total: np.ndarray) -> Mapping[str, float]:
        self.made += 1
        return {}


def in_virtual_time(checks: int, steps: int = 125) -> tuple[float, list[dict[str, Any]], int]:
    """Seconds, records of the checks, and how often nothing was missing from some worker, of a run of 8 learners on 4 workers."""
    trace, journal, idle = Trace(np.ones((1, N)), 0.0, 8.0), MemoryJournal(), 0

    class Watching(PipelineScheduler):
        def missing(self) -> Mapping[int, int]:
            nonlocal idle
            found = super().missing()
            idle += len(found) < N
            return found

    pool = SimulatedPool(trace, Probe(2), unfinished="serial", compute="rows")
    learners = [Busy(f"m{m}", steps) for m in range(8)]
    check = Check(checks, [{"w": 2}] * 8)
    seconds = Master(learners, Watching(Pipeline(4, 2), N), pool, journal, check=check).run()
    return seconds, [record for record in journal.records if record["kind"] == "check"], idle


def test_where_no_host_is_ever_idle_the_first_check_comes_within_ten_jobs_and_later_ones_cost_a_hundredth() -> None:
    without, none, _ = in_virtual_time(0)
    seconds, records, idle = in_virtual_time(500)
    assert none == []
    assert idle == 0
    assert all(record["difference"] == 0 for record in records)
    # A job takes a quarter of 4 workers' 4 x (1 + 2) seconds; with 8 learners, those of 10 jobs end within 10 jobs' time and one.
    assert records[0]["ended"] <= 10 * without / 1000 + 3
    spent = sum(
        arrival[ARRIVAL.index("startup")] + arrival[ARRIVAL.index("compute")]
        for record in records[1:]
        for arrival in record["arrivals"]
    )
    assert 0.005 * N * seconds < spent <= SHARE * N * seconds
    assert seconds <= without * 1.02
    assert len({record["learner"] for record in records}) == 8


def test_differences_are_of_the_worst_parameter_alone() -> None:
    full = np.array([3.0, 4.0, 0.1, 0.0])
    off, wrong = np.array([0, 0, 0.05, 0]), np.array([0, 0, np.nan, 0])
    assert largest(full + off, full, [2, 1, 1]) == (pytest.approx(0.05 / 0.5, rel=1e-3), 1)
    assert largest(full, full, [2, 1, 1]).relative == 0
    assert np.isnan(largest(full + wrong, full, [2, 1, 1]).relative)
    assert is_rounding(full + 1e-7, full, full + 1e-7, 0, [2, 1, 1])
    assert not is_rounding(full + 1e-3, full, full + 1e-7, 0, [2, 1, 1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_figure_of_the_summary_is_the_gradient_s_alone(tmp_path: Path, dtype: torch.dtype) -> None:
    """The loss is a million times the gradient: with it in the norms, the figure would be as much smaller."""
    model = Net().to(dtype)
    data = torch.utils.data.TensorDataset(*(tensor.to(dtype) for tensor in points().tensors))
    one = distseq.Learner(
        "net",
        model,
        torch.optim.SGD(model.parameters(), 0.01),
        data=data,
        batch=12,
        steps=8,
        loss=lambda model, batch: squares(model, batch) + 1e6,
    )
    figure = train(tmp_path / "run", one, checks=8, workers=N, pool="simulated", compute="rows").summary
    eps = torch.finfo(dtype).eps
    assert 1e-2 * eps < figure["largest_gradient_difference"] < 100 * eps


@pytest.mark.parametrize("compute", ["rows", "decoded"])
def test_gradients_of_a_model_that_draws_are_checked_with_the_draws_of_their_blocks(
    tmp_path: Path, compute: str
) -> None:
    class Dropping(Net):
        def middle(self, h: Tensor) -> Tensor:
            return nn.functional.dropout(torch.tanh(h), 0.3, self.training)

    one = learner(Dropping(), steps=20)
    result = train(tmp_path / "run", one, checks=8, workers=N, pool="simulated", compute=compute)
    assert result.summary["failures"] == []
    assert result.summary["gradients_checked"] >= 3
    assert result.summary["largest_gradient_difference"] < 1e-12
