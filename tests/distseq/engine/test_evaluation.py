"""Evaluation is work of the pool: the figure of one machine, whoever dies, and training does not notice."""

import io
import math
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

import distseq
from distseq.cluster.hosts.host_pool import HostPool
from distseq.cluster.pool import Payload
from distseq.cluster.probe import Probe, feature
from distseq.cluster.simulated import SimulatedPool
from distseq.cluster.trace import Trace
from distseq.cluster.work import WorkSpec
from distseq.coding.schemes.registry import parse
from distseq.config.toml_file import from_dict
from distseq.engine.evaluation import FORWARD, Evaluate
from distseq.engine.interfaces import JobInput, Observer
from distseq.engine.journal import ARRIVAL, MemoryJournal, read_journal
from distseq.engine.master import Master
from distseq.gradients import work as task
from distseq.learners.from_config import build_fleet
from distseq.learners.learner import Learner
from distseq.models.data.held_out import LIMIT, HeldOut
from distseq.models.data.text import open_file
from distseq.scheduling.round_scheduler import RoundScheduler

STEPS, WINDOW = 4, 5
MODELS = """
import torch
from torch import nn

class Falling(nn.Module):
    '''A step of SGD with lr = 1 takes one from its height.'''

    def __init__(self):
        super().__init__()
        self.height = nn.Parameter(torch.zeros(1))

    def per_sample_loss(self, batch):
        if (batch["inputs"][:, 0] > 2).any():
            raise RuntimeError("too steep")
        return self.height * batch["inputs"][:, 0]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "models_evaluated.py").write_text(MODELS)
    lines = (f"{k} green bottles hanging on the wall, and {k * k} more.\n" for k in range(90))
    (tmp_path / "text.txt").write_text("".join(lines))
    np.savez(tmp_path / "data.npz", inputs=np.ones((30, 2), dtype=np.float32))
    np.savez(tmp_path / "good.npz", inputs=np.full((7, 2), 2, dtype=np.float32))
    np.savez(tmp_path / "bad.npz", inputs=np.arange(7, dtype=np.float32)[:, None])
    return tmp_path


def chars(folder: Path, name: str, **keys: Any) -> dict[str, Any]:
    model = {"model": "distseq.models.char_lstm:CharLSTM", "model_args": {"hidden": 6}}
    data = {"data": f"text:{folder}/text.txt", "data_args": {"window": WINDOW}, "batch": 20}
    return {"name": name, **model, **data, "optimizer_args": {"lr": 0.02}, **keys}


def falling(folder: Path, name: str, **keys: Any) -> dict[str, Any]:
    data = {"model": "models_evaluated:Falling", "data": f"arrays:{folder}/data.npz", "batch": 12}
    return {"name": name, **data, "optimizer": "sgd", "optimizer_args": {"lr": 1.0}, **keys}


POOLS: dict[str, dict[str, Any]] = {
    "decoded": {"kind": "simulated"},
    "rows": {"kind": "simulated", "compute": "rows"},
    "local": {"kind": "local", "hosts": 2},
    "ray": {"kind": "ray", "hosts": 2},
}


@pytest.fixture(params=["decoded", "rows", "local", pytest.param("ray", marks=pytest.mark.ray)])
def pool(request: pytest.FixtureRequest) -> dict[str, Any]:
    if request.param == "ray":
        request.getfixturevalue("ray_session")
    return {"workers": 4, "delays": "bursts:base=0.01", **POOLS[request.param]}


def train(
    folder: Path,
    pool: Mapping[str, Any],
    learners: list[dict[str, Any]],
    out: str = "run",
    every: int = 0,
    **options: Any,
) -> tuple[distseq.Result, str]:
    tables = {"run": {"steps": STEPS, "evaluate_every": every}, "pool": pool, "scheduler": {"scheme": "gc:1"}}
    printed = io.StringIO()
    console = Console(file=printed, width=400)
    return distseq.train(
        {**tables, "learner": learners}, out=folder / out, console=console, **options
    ), printed.getvalue()


def of_kind(result: distseq.Result, kind: str) -> list[dict[str, Any]]:
    return [record for record in read_journal(result.folder / "journal.jsonl") if record["kind"] == kind]


def on_one_machine(folder: Path, learner: Learner) -> float:
    held_out = HeldOut(open_file(f"{folder}/text.txt", WINDOW), LIMIT)
    with torch.no_grad():
        losses = learner.model.per_sample_loss(held_out.batch(np.arange(len(held_out))))  # type: ignore[operator]
    return float(losses.double().mean())


def test_every_pool_finds_the_figure_of_one_machine(folder: Path, pool: dict[str, Any]) -> None:
    learners = [
        chars(folder, "a"),
        chars(folder, "b", steps=2),
        falling(folder, "c", evaluation=f"arrays:{folder}/good.npz"),
    ]
    result, _ = train(folder, pool, [*learners, falling(folder, "d")], every=2)
    models = result.summary["models"]
    for learner in result.learners[:2]:
        loss = on_one_machine(folder, learner)
        assert models[learner.name]["evaluation_loss"] == pytest.approx(loss, rel=1e-6)
        assert models[learner.name]["bits_per_char"] == pytest.approx(loss / math.log(2), rel=1e-6)
    assert models["c"]["evaluation_loss"] == -2 * STEPS
    assert "bits_per_char" not in models["c"]
    assert "evaluation_loss" not in models["d"], "there is nothing that it could be evaluated on"
    made = {(record["learner"], record["step"]): record["loss"] for record in of_kind(result, "evaluation")}
    skipped = {(record["learner"], record["step"]) for record in of_kind(result, "evaluation skipped")}
    assert made.keys() | skipped == {("a", 2), ("a", 4), ("b", 2), ("c", 2), ("c", 4)}
    assert {("a", 4), ("b", 2), ("c", 4)} <= made.keys()
    assert made.get(("c", 2), -4) == -4, "the parameters were those of another step"


@pytest.mark.parametrize("kind", ["rows", "local"])
def test_evaluations_change_no_weight(folder: Path, kind: str) -> None:
    options = {"workers": 4, "delays": "bursts:base=0.01", **POOLS[kind]}
    with_it, _ = train(folder, options, [chars(folder, "a"), chars(folder, "b")], every=1)
    without, _ = train(folder, options, [chars(folder, "a"), chars(folder, "b")], out="without")
    assert len(of_kind(with_it, "evaluation")) > len(of_kind(without, "evaluation")) == 2
    for a, b in zip(with_it.learners, without.learners, strict=True):
        np.testing.assert_array_equal(a.publish(), b.publish())


def test_what_fails_in_evaluation_only_is_told_once_and_no_training_is_lost(folder: Path, pool: dict[str, Any]) -> None:
    learners = [falling(folder, "bad", evaluation=f"arrays:{folder}/bad.npz"), chars(folder, "good")]
    result, printed = train(folder, pool, learners, every=1)
    assert result.summary["failures"] == []
    assert result.summary["models"]["bad"]["evaluation_error"] == "RuntimeError: too steep"
    assert "evaluation_loss" not in result.summary["models"]["bad"]
    assert result.summary["models"]["good"]["bits_per_char"] > 0
    assert result.learners[0].publish() == [-STEPS]
    assert (result.folder / "weights" / "bad.safetensors").is_file()
    assert printed.count("evaluation of learner bad failed at step 1") == printed.count("Traceback") == 1
    (record,) = of_kind(result, "evaluation failed")
    assert (record["learner"], record["step"], record["error"]) == ("bad", 1, "RuntimeError: too steep")
    assert "in per_sample_loss" in record["traceback"]


def test_what_cannot_be_evaluated_at_all_is_refused_at_start(folder: Path) -> None:
    np.savez(folder / "steep.npz", inputs=np.full((3, 1), 9, dtype=np.float32))
    np.savez(folder / "none.npz", inputs=np.zeros((0, 1), dtype=np.float32))
    for keys, message in (
        ({"evaluation": f"arrays:{folder}/steep.npz"}, "learner m: RuntimeError: too steep"),
        ({"evaluation": f"arrays:{folder}/gone.npz"}, "gone.npz"),
        ({"evaluation": f"arrays:{folder}/none.npz"}, "no samples"),
        ({"evaluation_args": {"window": 3}}, "learner m: evaluation_args is given, but no evaluation"),
    ):
        with pytest.raises(ValueError, match=message):
            train(folder, POOLS["rows"], [falling(folder, "m", **keys)])
        assert not (folder / "run").exists()


def test_data_to_evaluate_on_must_be_the_same_on_every_host(folder: Path) -> None:
    job = {"learner": [falling(folder, "m", evaluation=f"arrays:{folder}/good.npz")]}
    spec = build_fleet(from_dict(job)).spec
    np.savez(folder / "good.npz", inputs=np.ones((7, 2), dtype=np.float32))
    work: Any = spec.load()
    work.problem(0)
    with pytest.raises(ValueError, match=r"data 'arrays:.*good.npz' differ between hosts"):
        work.evaluation(0)


class Crash(Observer):
    def evaluated(self, learner: str, step: int, loss: float, now: float) -> None:
        raise SystemExit("power is gone")


def test_a_run_that_breaks_while_it_is_evaluated_is_evaluated_when_it_is_resumed(folder: Path) -> None:
    learners = [chars(folder, "a"), chars(folder, "b")]
    with pytest.raises(SystemExit, match="power is gone"):
        train(folder, {"workers": 4, **POOLS["rows"]}, learners, watchers=[Crash()])
    result = distseq.train(resume=folder / "run", console=Console(file=io.StringIO()))
    for learner in result.learners:
        loss = on_one_machine(folder, learner)
        assert result.summary["models"][learner.name]["evaluation_loss"] == pytest.approx(loss, rel=1e-6)


def test_rows_of_an_evaluation_add_up_in_any_pieces_and_leave_no_gradient(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = build_fleet(from_dict({"learner": [chars(folder, "m")], "run": {"dtype": "float64"}}))
    o, count = fleet.learners[0].open(0), fleet.evaluated[0]
    payload = Payload(0, 0, 0, o.parameters, np.arange(count), 0, "uncoded", 3, version=1, kind="evaluation")
    ids, weights = np.arange(count), np.linspace(-1, 2, count)
    whole = fleet.work.row(payload, ids, weights)
    assert whole[1] == pytest.approx(weights.sum())
    monkeypatch.setattr(task, "AT_ONCE", 7)
    np.testing.assert_allclose(fleet.work.row(payload, ids, weights), whole, rtol=1e-12)
    pieces = [fleet.work.row(payload, *piece) for piece in zip(np.split(ids, [5]), np.split(weights, [5]), strict=True)]
    np.testing.assert_allclose(sum(pieces), whole, rtol=1e-12)
    np.testing.assert_array_equal(fleet.work.row(payload, ids[:0], weights[:0]), [0, 0])
    assert all(parameter.grad is None for parameter in fleet.work.problem(0).model.parameters())


class Counts:
    """A learner of jobs of eight samples; its step `fails` raises."""

    def __init__(self, name: str, steps: int, fails: int | None = None) -> None:
        self.name, self.steps, self.fails, self.made = name, steps, fails, 0

    def open(self, step: int) -> JobInput:
        return JobInput(np.zeros(0), np.arange(8))

    def apply(self, total: np.ndarray) -> Mapping[str, float]:
        if self.made == self.fails:
            raise FloatingPointError("not finite")
        self.made += 1
        return {}


def mean(samples: int) -> float:
    """What the probe's rows of two numbers make of an evaluation."""
    sums = feature(np.arange(samples), 2).sum(axis=0)
    return float(sums[0] / sums[1])


def in_virtual_time(learners: list[Counts], evaluate: Evaluate) -> list[dict[str, Any]]:
    """Journal of a run on four workers that start up in one second, with 8 s of compute for a batch."""
    trace, journal = Trace(np.ones((1, 4)), 0.0, 8.0), MemoryJournal()
    pool = SimulatedPool(trace, Probe(2), unfinished="overlap", compute="rows")
    Master(learners, RoundScheduler(parse("uncoded", 4)), pool, journal, evaluate=evaluate).run()
    return [record for record in journal.records if record["kind"].startswith("evaluation")]


def test_an_evaluation_costs_the_forward_pass_of_its_samples_and_overlaps_no_other() -> None:
    # A step takes 1 + 8 / 4 seconds; 72 samples are nine batches of forward passes.
    records = in_virtual_time([Counts("m", 5)], Evaluate([72], every=1))
    took = 1 + FORWARD * 9 * 2
    assert took == 7
    kinds = [(record["kind"], record["step"]) for record in records]
    assert kinds == [
        ("evaluation skipped", 2),
        ("evaluation skipped", 3),
        ("evaluation", 1),
        ("evaluation skipped", 5),
        ("evaluation", 4),
        ("evaluation", 5),
    ]
    for record in records:
        if record["kind"] == "evaluation":
            assert record["ended"] - record["begun"] == pytest.approx(took)
            assert record["loss"] == mean(72)
            assert len(record["arrivals"]) == 4


def test_a_learner_that_has_failed_is_evaluated_no_more() -> None:
    records = in_virtual_time([Counts("bad", 5, fails=1), Counts("good", 5)], Evaluate([72, 8], every=1))
    assert {record["learner"] for record in records} == {"good"}
    assert records[-1]["step"] == 5


class KillOnce(Observer):
    """SIGKILLs the first host at the first row of an evaluation: when all steps are made and something has arrived."""

    def __init__(self, pool: HostPool, steps: int) -> None:
        self.pool, self.steps, self.killed, self.losses = pool, steps, False, list[float]()

    def job_applied(self, *job: object) -> None:
        self.steps -= 1

    def polled(self, *rest: object) -> None:
        if not self.steps and not self.killed:
            self.killed = True
            os.kill(self.pool.pids()[0], signal.SIGKILL)

    def evaluated(self, learner: str, step: int, loss: float, now: float) -> None:
        self.losses.append(loss)


def test_a_worker_s_death_during_an_evaluation_costs_time_only(real_pool: Callable[..., HostPool]) -> None:
    pool = real_pool(8, WorkSpec("distseq.cluster.probe:Probe", '{"size": 2, "seconds": 0.2}'), hosts=2)
    journal, killer = MemoryJournal(), KillOnce(pool, 2)
    try:
        scheduler = RoundScheduler(parse("uncoded", 8))
        Master([Counts("m", 2)], scheduler, pool, journal, [killer], evaluate=Evaluate([40])).run()
    finally:
        pool.close()
    assert killer.killed
    assert killer.losses == [mean(40)]
    (record,) = [record for record in journal.records if record["kind"] == "evaluation"]
    assert max(one[ARRIVAL.index("attempt")] for one in record["arrivals"]) == 2
