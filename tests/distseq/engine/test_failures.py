"""A learner that fails is stopped and reported once; the others go on as if it were not there, and it can be resumed."""

import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

import distseq
from distseq.artifacts.checkpoint import newest
from distseq.artifacts.checkpointer import Checkpointer
from distseq.cli.main import cli, one_line_errors
from distseq.cluster.errors import FaultError, PoolError
from distseq.cluster.hosts.host_pool import HostPool
from distseq.cluster.pool import Payload, Pool
from distseq.cluster.probe import feature
from distseq.cluster.simulated import SimulatedPool
from distseq.cluster.system.atomic_files import write_bytes
from distseq.cluster.trace import Trace
from distseq.cluster.work import WorkSpec
from distseq.coding.schemes.registry import parse
from distseq.config.schema import CheckpointConfig
from distseq.config.toml_file import load_config
from distseq.engine.failures import FailedError
from distseq.engine.interfaces import JobInput
from distseq.engine.journal import read_journal
from distseq.engine.master import Master
from distseq.learners.from_config import build_fleet
from distseq.learners.learner import Learner
from distseq.scheduling.round_scheduler import RoundScheduler

STEPS, BAD = 6, 3
MODELS = """
import os
import signal
import time
from pathlib import Path

import torch
from torch import nn

class Falling(nn.Module):
    '''A step of SGD with lr = 1 takes one from its height. While the flag is there, it fails at step `at`.'''

    def __init__(self, flag="", at=0, how="raise"):
        super().__init__()
        self.height = nn.Parameter(torch.zeros(1))
        self.flag, self.at, self.how = flag, at, how

    def per_sample_loss(self, batch):
        height = self.height
        if height.item() <= -self.at and Path(self.flag).is_file():
            if self.how == "raise":
                raise RuntimeError("no way down")
            if self.how == "segfault":
                os.kill(os.getpid(), signal.SIGSEGV)
            if self.how in ("segfault", "hang"):
                time.sleep(1e6)
            height = height * float("nan")
        return height * batch["inputs"][:, 0]

class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.line = nn.Linear(2, 1)

    def per_sample_loss(self, batch):
        return (self.line(batch["inputs"]).squeeze(1) - batch["inputs"][:, 1] ** 2) ** 2
"""
JOB = f"""
[run]
steps = {STEPS}
[pool]
kind = "simulated"
workers = 4
delays = "bursts:base=0.01"
[scheduler]
scheme = "msgc:1,2,1"
[checkpoint]
every = 4
[defaults]
data = "arrays:data.npz"
batch = 12
[[learner]]
name = "one"
model = "models_that_fail:Line"
[[learner]]
name = "falls"
model = "models_that_fail:Falling"
model_args = {{ flag = "flag", at = {BAD}, how = "HOW" }}
optimizer = "sgd"
optimizer_args = {{ lr = 1.0 }}
[[learner]]
name = "two"
model = "models_that_fail:Line"
optimizer_args = {{ lr = 0.1 }}
"""
ERRORS = {"raise": "RuntimeError: no way down", "nan": "the decoded gradient is not finite"}


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config file of three learners; the one that falls fails at step BAD, as long as the file `flag` is there."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "models_that_fail.py").write_text(MODELS)
    (tmp_path / "flag").write_text("")
    inputs = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    inputs[:, 0] = 1
    np.savez(tmp_path / "data.npz", inputs=inputs)
    return written(tmp_path, "raise")


def written(folder: Path, how: str) -> Path:
    text = (
        JOB.replace("HOW", how).replace('"flag"', f'"{folder / "flag"}"').replace("data.npz", f"{folder / 'data.npz'}")
    )
    (folder / "job.toml").write_text(text)
    return folder / "job.toml"


def train(*job: Path, **options: Any) -> tuple[distseq.Result, str]:
    printed = io.StringIO()
    return distseq.train(*job, console=Console(file=printed, width=400), **options), printed.getvalue()


def one_machine(job: Path) -> dict[str, np.ndarray]:
    """Weights of the learners that do not fail, trained one after the other in this process."""
    fleet = build_fleet(load_config(job))
    for m, learner in enumerate(fleet.learners):
        for step in range(STEPS) if learner.name != "falls" else ():
            o = learner.open(step)
            payload = Payload(100 * m + step, m, step, o.parameters, o.ids, o.seed, "uncoded", 4)
            learner.apply(fleet.work.row(payload, o.ids, np.ones(len(o.ids))).astype(np.float64))
    return {learner.name: learner.publish() for learner in fleet.learners if learner.name != "falls"}


def of_kind(run: Path, kind: str) -> list[dict[str, Any]]:
    return [record for record in read_journal(run / "journal.jsonl") if record["kind"] == kind]


def assert_others_trained(result: distseq.Result, job: Path) -> None:
    expected = one_machine(job)
    for learner in result.learners:
        if learner.name != "falls":
            np.testing.assert_allclose(learner.publish(), expected[learner.name], rtol=1e-5, atol=1e-6)


@pytest.fixture(params=["simulated", "rows", "local", pytest.param("ray", marks=pytest.mark.ray)])
def on(request: pytest.FixtureRequest, job: Path) -> Callable[[str], dict[str, Any]]:
    """Options of a run on each pool, once its config file is written."""
    if request.param == "ray":
        request.getfixturevalue("ray_session")

    def options(how: str) -> dict[str, Any]:
        written(job.parent, how)
        if request.param == "rows":
            job.write_text(job.read_text().replace("workers = 4", 'workers = 4\ncompute = "rows"'))
        return {} if request.param == "rows" else {"pool": request.param}

    return options


@pytest.mark.parametrize("how", ["raise", pytest.param("nan", marks=pytest.mark.long)])
def test_the_others_go_on_and_the_failure_is_told_once(
    job: Path, on: Callable[[str], dict[str, Any]], how: str
) -> None:
    options = on(how)
    result, printed = train(job, out=job.parent / "run", **options)
    assert_others_trained(result, job)
    (failure,) = result.summary["failures"]
    assert (failure["learner"], failure["step"], failure["error"]) == ("falls", BAD, ERRORS[how])
    assert result.summary["jobs"] == 2 * STEPS + BAD
    assert result.summary["models"]["falls"]["steps"] == BAD
    (record,) = of_kind(result.folder, "failed")
    assert record == {"kind": "failed", **failure, "traceback": record["traceback"]}
    assert ("in per_sample_loss" in record["traceback"]) == (how == "raise")
    assert printed.count("learner falls failed at step 3") == 1
    assert printed.count("Traceback") == printed.count("in per_sample_loss") == (how == "raise")
    assert sorted(path.name for path in (result.folder / "weights").iterdir()) == ["one.safetensors", "two.safetensors"]
    assert json.loads((result.folder / "summary.json").read_text()) == result.summary


SEGFAULT = "was ended by SIGSEGV|died"
HANG = r"took [\d.]+ s, longer than its limit of 3 s \(row_timeout\)"


@pytest.mark.parametrize(
    ("pool", "how", "cause"),
    [
        ("local", "segfault", SEGFAULT),
        pytest.param("local", "hang", HANG, marks=pytest.mark.slow),
        pytest.param("ray", "segfault", SEGFAULT, marks=pytest.mark.ray),
        pytest.param("ray", "hang", HANG, marks=[pytest.mark.ray, pytest.mark.long]),
    ],
    ids=["local-segfault", "local-hang", "ray-segfault", "ray-hang"],
)
def test_a_learner_whose_rows_kill_their_process_or_never_end_fails_alone(
    job: Path, pool: str, how: str, cause: str, request: pytest.FixtureRequest
) -> None:
    if pool == "ray":
        request.getfixturevalue("ray_session")
    written(job.parent, how)
    job.write_text(job.read_text().replace("workers = 4", "workers = 4\nhosts = 2\nrow_timeout = 3"))
    result, printed = train(job, out=job.parent / "run", pool=pool)
    assert_others_trained(result, job)
    (failure,) = result.summary["failures"]
    assert (failure["learner"], failure["step"]) == ("falls", BAD)
    assert re.match(rf"its host was lost in each of 3 attempts at one row; last cause: .*({cause})", failure["error"])
    assert failure["host"].startswith("host-")
    assert printed.count("learner falls failed at step 3") == 1
    assert result.summary["jobs"] == 2 * STEPS + BAD


@pytest.mark.parametrize("how", ["raise", pytest.param("nan", marks=pytest.mark.long)])
def test_a_resumed_run_tries_again_where_the_learner_was(job: Path, how: str) -> None:
    written(job.parent, how)
    run = train(job, out=job.parent / "run")[0].folder
    kept, _ = newest(run / "checkpoints")
    assert kept.steps == {"one": STEPS, "falls": BAD, "two": STEPS}
    assert kept.snapshots["falls"].model["height"].item() == -BAD
    again, _ = train(resume=run)
    assert [one["step"] for one in again.summary["failures"]] == [BAD]
    (job.parent / "flag").unlink()
    last, _ = train(resume=run)
    assert last.summary["failures"] == []
    assert last.learners[1].publish() == [-STEPS]
    assert_others_trained(last, job)
    made = [(record["learner"], record["step"]) for record in of_kind(run, "job")]
    assert sorted(made) == sorted((name, step) for name in ("one", "falls", "two") for step in range(STEPS))
    assert len(of_kind(run, "failed")) == 2


def test_when_all_have_failed_the_run_has_failed_and_is_kept(job: Path) -> None:
    text = job.read_text()
    job.write_text(
        text[: text.index("[[learner]]")]
        + text[text.index('[[learner]]\nname = "falls"') :].split('[[learner]]\nname = "two"')[0]
    )
    with pytest.raises(FailedError, match="learner falls failed at step 3: RuntimeError: no way down; go on with"):
        train(job, out=job.parent / "run", scheme="gc:1")
    summary = json.loads((job.parent / "run/summary.json").read_text())
    assert [one["learner"] for one in summary["failures"]] == ["falls"]
    (job.parent / "flag").unlink()
    assert train(resume=job.parent / "run")[0].learners[0].publish() == [-STEPS]


def test_a_learner_that_fails_when_it_is_tried_is_refused_with_the_whole_job(job: Path) -> None:
    job.write_text(job.read_text().replace(f"at = {BAD}", "at = 0"))
    with pytest.raises(ValueError, match="learner falls: RuntimeError: no way down"):
        train(job, out=job.parent / "refused")
    assert not (job.parent / "refused").exists()


def test_the_command_line_says_who_failed_in_one_line_and_ends_with_1(
    job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", str(job), "--out", str(job.parent / "run"), "--json"]
    assert one_line_errors(lambda: cli(words, prog_name="distseq", standalone_mode=False)) == 1
    out, err = capsys.readouterr()
    assert [one["learner"] for one in json.loads(out)["failures"]] == ["falls"]
    line = "learner falls failed at step 3: RuntimeError: no way down"
    assert err.splitlines()[-1] == f"error: {line}; go on with: distseq train --resume {job.parent / 'run'}"
    assert err.count("Traceback") == 1


def test_a_learner_that_breaks_in_the_middle_of_a_step_is_kept_as_it_was_before(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job.parent / "flag").unlink()
    step = torch.optim.SGD.step

    def half(self: torch.optim.SGD, *rest: Any) -> None:
        step(self, *rest)
        if self.param_groups[0]["params"][0].item() == -BAD - 1:
            raise OSError("the optimizer's file is gone")

    monkeypatch.setattr(torch.optim.SGD, "step", half)
    result, printed = train(job, out=job.parent / "run")
    assert [one["error"] for one in result.summary["failures"]] == ["OSError: the optimizer's file is gone"]
    assert printed.count("Traceback") == printed.count("in half") == 1
    kept, _ = newest(result.folder / "checkpoints")
    assert kept.steps["falls"] <= BAD
    assert kept.snapshots["falls"].model["height"].item() == -kept.steps["falls"], "a half-made step was kept"
    assert result.learners[1].publish() == [-kept.steps["falls"]]
    assert (kept.steps["one"], kept.steps["two"]) == (STEPS, STEPS)
    assert_others_trained(result, job)
    monkeypatch.setattr(torch.optim.SGD, "step", step)
    assert train(resume=result.folder)[0].learners[1].publish() == [-STEPS]


def falling() -> Learner:
    model = nn.Linear(3, 1)
    data = torch.utils.data.TensorDataset(torch.zeros(9, 3))
    return Learner("m", model, torch.optim.SGD(model.parameters(), lr=1.0), data=data, loss=ones, batch=2, steps=9)


def ones(model: nn.Module, batch: list[torch.Tensor]) -> torch.Tensor:
    return torch.ones(len(batch[0]))


def test_a_sum_that_cannot_be_applied_changes_nothing() -> None:
    learner = falling()
    before = learner.publish()
    with pytest.raises(ValueError, match="a row must have 8 numbers: got 5"):
        learner.apply(np.ones(5))
    with pytest.raises(FloatingPointError, match="not finite"):
        learner.apply(np.full(8, np.inf))
    assert learner.whole
    np.testing.assert_array_equal(learner.publish(), before)


def test_a_broken_learner_without_a_checkpoint_is_never_written(tmp_path: Path) -> None:
    full = True

    def disk(path: Path, data: bytes) -> None:
        if full:
            raise OSError(28, "No space left on device")
        write_bytes(path, data)

    learner, printed = falling(), io.StringIO()
    console = Console(file=printed, width=400)
    checkpointer = Checkpointer(
        tmp_path / "c", [learner], "c", CheckpointConfig(1, 3), console, lambda: False, write=disk
    )
    checkpointer.begin([0], 0, resumed=False)
    learner.optimizer.step = None  # type: ignore[method-assign, assignment]
    with pytest.raises(FaultError, match="TypeError"):
        learner.apply(np.ones(8))
    assert not learner.whole
    assert checkpointer.failed(0) == 0
    assert "learner m broke in the middle of a step, and no checkpoint in" in printed.getvalue()
    full = False
    checkpointer.applied([0], 1)
    assert not checkpointer.finish()
    checkpointer.close()
    assert not list((tmp_path / "c").glob("[0-9]*"))


class Long:
    """Rows of learner 0 from step 1 on have another length where they touch sample 0: one worker's."""

    def row(self, payload: Payload, ids: np.ndarray, weights: np.ndarray) -> np.ndarray:
        size = 5 if (payload.learner, payload.step) == (0, 1) and 0 in ids else 4
        row: np.ndarray = weights @ feature(ids, size)
        return row.astype(np.float32)


class Sums:
    def __init__(self, name: str) -> None:
        self.name, self.steps, self.totals = name, 4, list[np.ndarray]()

    def open(self, step: int) -> JobInput:
        return JobInput(np.zeros(0), np.arange(step // 2, 20))

    def apply(self, total: np.ndarray) -> Mapping[str, float]:
        self.totals.append(total)
        return {}


@pytest.fixture
def pool(real_pool: Callable[..., HostPool]) -> Iterator[Pool]:
    made = real_pool(4, WorkSpec(f"{__name__}:Long"), hosts=2)
    yield made
    made.close()


def assert_only_the_first_fails(pool: Pool) -> None:
    learners = [Sums("bad"), Sums("good")]
    master = Master(learners, RoundScheduler(parse("uncoded", 4)), pool)
    master.run()
    (failed,) = master.failures
    assert (failed.learner, failed.step, failed.traceback) == ("bad", 1, "")
    assert failed.error.startswith("rows of one job must have equal lengths: got ")
    assert len(learners[0].totals) == 1
    assert len(learners[1].totals) == 4
    for step, total in enumerate(learners[1].totals):
        np.testing.assert_array_equal(total, feature(learners[1].open(step).ids, 4).sum(axis=0))


def test_rows_that_differ_in_length_fail_their_learner_alone(pool: Pool) -> None:
    assert_only_the_first_fails(pool)


def test_rows_that_differ_in_length_fail_their_learner_alone_in_virtual_time() -> None:
    assert_only_the_first_fails(SimulatedPool(Trace(np.ones((1, 4)), 0.0, 0.0), Long()))


def test_a_pool_that_gives_up_while_collecting_still_ends_the_run() -> None:
    class Broken(SimulatedPool):
        def collect(self, *job: object) -> np.ndarray:
            raise PoolError("memory is gone")

    with pytest.raises(PoolError, match="memory is gone"):
        Master([Sums("m")], RoundScheduler(parse("uncoded", 4)), Broken(Trace(np.ones((1, 4)), 0.0, 0.0), Long())).run()
