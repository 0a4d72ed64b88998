"""From a config file to a run folder, as a user does it."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from safetensors.torch import load_file

import distseq
from distseq.artifacts.summary import show
from distseq.config.toml_file import load_config
from distseq.engine.interfaces import Observer
from distseq.engine.journal import read_journal

JOB = """
[run]
steps = 6
checks = 3

[pool]
kind = "simulated"
workers = 8
delays = "bursts:base=0.1"

[scheduler]
scheme = "msgc:1,2,2"

[defaults]
model = "distseq.models.char_lstm:CharLSTM"
model_args = { hidden = 6 }
data = "text:TEXT"
data_args = { window = 5 }
batch = 20
optimizer_args = { lr = 0.02 }

[[learner]]
name = "a"

[[learner]]
name = "b"
batch = 30
steps = 3

[[learner]]
name = "c"
optimizer = "sgd"
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    text = tmp_path / "text.txt"
    text.write_text("".join(f"{k} green bottles hanging on the wall, and {k * k} more.\n" for k in range(90)))
    path = tmp_path / "job.toml"
    path.write_text(JOB.replace("TEXT", str(text)))
    return path


def train(job: Path, out: str, **options: Any) -> tuple[distseq.Result, str]:
    printed = io.StringIO()
    result = distseq.train(job, out=job.parent / out, console=Console(file=printed, width=200), **options)
    return result, printed.getvalue()


def test_a_run_leaves_configuration_journal_weights_and_summary(job: Path) -> None:
    result, _ = train(job, "run")
    assert sorted(path.name for path in result.folder.iterdir()) == [
        "checkpoints",
        "config.toml",
        "journal.jsonl",
        "summary.json",
        "weights",
    ]
    assert load_config(result.folder / "config.toml") == load_config(job)
    assert json.loads((result.folder / "summary.json").read_text()) == result.summary
    for learner in result.learners:
        saved = load_file(result.folder / "weights" / f"{learner.name}.safetensors")
        for key, tensor in learner.state_dict().items():
            np.testing.assert_array_equal(saved[key], tensor)


def test_the_journal_holds_every_job_round_and_arrival(job: Path) -> None:
    result, _ = train(job, "run")
    records = list(read_journal(result.folder / "journal.jsonl"))
    assert [record["kind"] for record in records].count("run") == 1
    steps = [(record["learner"], record["step"]) for record in records if record["kind"] == "job"]
    assert sorted(steps) == [("a", k) for k in range(6)] + [("b", k) for k in range(3)] + [("c", k) for k in range(6)]
    rounds = [record for record in records if record["kind"] == "round"]
    assert len(rounds) == result.summary["rounds"]
    assert all(record["arrivals"] for record in rounds[:3])


def test_the_summary_compares_schemes_and_checks_gradients(job: Path) -> None:
    summary = train(job, "run")[0].summary
    assert list(summary["replayed_seconds_per_job"]) == ["msgc:1,2,2", "uncoded", "gc:2"]
    assert summary["jobs"] == 15
    assert summary["gradients_checked"] >= 3
    assert 0 < summary["largest_gradient_difference"] < 1e-6
    for model in summary["models"].values():
        assert 0 < model["unigram_bits_per_char"] < 7
        assert 0 < model["bits_per_char"] < 7


def test_a_pipelined_run_needs_no_rounds_and_journals_its_arrivals_with_its_jobs(job: Path) -> None:
    result, _ = train(job, "run", scheduler="pipeline", parts=3, copies=2, delays="heavy-tail:base=0.1")
    summary = result.summary
    assert (summary["scheme"], summary["closing"], summary["rounds"], summary["jobs"]) == ("pipeline:3,2", None, 0, 15)
    assert list(summary["replayed_seconds_per_job"]) == ["pipeline:3,2", "uncoded", "gc:1"]
    assert 0 < summary["largest_gradient_difference"] < 1e-6
    records = list(read_journal(result.folder / "journal.jsonl"))
    jobs = [record for record in records if record["kind"] == "job"]
    assert {record["scheme"] for record in jobs} == {"gc:7,q=3"}, "how their batches were laid out"
    assert {record["kind"] for record in records} == {"run", "job", "check", "evaluation"}
    rows = {(r["job"], group, worker) for r in jobs for group, worker in r["rows"]}
    arrived = {(job, group, worker) for r in jobs for worker, job, group, *_, stale in r["arrivals"] if not stale}
    assert len(rows) == 45
    assert rows == arrived
    show(console := Console(file=io.StringIO(), width=200), summary, "run")
    assert "15 jobs, " in console.file.getvalue()  # type: ignore[attr-defined]


def test_training_learns(job: Path) -> None:
    summary = train(job, "run", steps=60)[0].summary
    model = summary["models"]["a"]
    assert model["bits_per_char"] < model["unigram_bits_per_char"]


def test_one_seed_gives_one_result_and_another_seed_another(job: Path) -> None:
    first, second, other = (train(job, out, seed=seed)[0] for out, seed in (("1", 0), ("2", 0), ("3", 1)))
    assert (first.folder / "journal.jsonl").read_text() == (second.folder / "journal.jsonl").read_text()
    for a, b, c in zip(first.learners, second.learners, other.learners, strict=True):
        np.testing.assert_array_equal(a.publish(), b.publish())
        assert (a.publish() != c.publish()).any()


def test_options_replace_what_the_config_file_says(job: Path) -> None:
    result, _ = train(
        job, "run", steps=2, scheme="gc:1", workers=5, closing="mu", mu=0.5, delays="none", unfinished="lost"
    )
    config = load_config(result.folder / "config.toml")
    assert (config.run.steps, config.scheduler.scheme, config.scheduler.closing) == (2, "gc:1", "mu")
    assert (config.pool.workers, config.pool.delays, config.pool.unfinished) == (5, "none", "lost")
    assert result.summary["jobs"] == 6


def test_plain_lines_show_progress_where_there_is_no_terminal(job: Path) -> None:
    _, printed = train(job, "run")
    assert "job 15/15" in printed
    assert "bits/char" in printed


def test_what_a_folder_of_text_leaves_out_is_said_once(job: Path, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for name in ("a.txt", "b.md"):
        (tmp_path / "texts" / name).write_text("to be or not to be, that is the question\n" * 50)
    job.write_text(job.read_text().replace(f"text:{tmp_path}/text.txt", f"folder:{tmp_path}/texts"))
    _, printed = train(job, "run", steps=1)
    said = f"note: data 'folder:{tmp_path}/texts' leaves out 1 file that is not *.txt: b.md"
    assert printed.replace("\n", " ").count(said) == 1


def test_a_batch_smaller_than_the_number_of_parts_is_warned_of_and_trains(job: Path) -> None:
    result, printed = train(job, "run", workers=32, steps=2)
    assert printed.count("warning: batches smaller than the number of parts of msgc:1,2,2 leave parts empty: a ") == 1
    assert result.summary["largest_gradient_difference"] < 1e-6


def test_a_dense_code_that_float32_cannot_carry_is_refused_with_nothing_left_behind(job: Path) -> None:
    with pytest.raises(ValueError, match="amplifies float32"):
        train(job, "run", scheme="gc:27,code=cyclic", workers=128)
    assert not (job.parent / "run").exists()


def test_data_that_differ_on_a_host_stop_the_run(job: Path) -> None:
    from distseq.learners.from_config import build_fleet

    fleet = build_fleet(load_config(job))
    text = job.parent / "text.txt"
    text.write_text(text.read_text() + "changed")
    with pytest.raises(ValueError, match=r"^data 'text:.*' differ between hosts: sha256"):
        fleet.spec.load().problem(0)  # type: ignore[attr-defined]


def test_a_gradient_that_is_not_finite_stops_its_learner(job: Path) -> None:
    job.write_text(job.read_text().replace('optimizer = "sgd"', 'optimizer = "sgd"\noptimizer_args = { lr = 1e38 }'))
    summary = train(job, "run")[0].summary
    assert [(one["learner"], one["error"]) for one in summary["failures"]] == [
        ("c", "the decoded gradient is not finite")
    ]
    assert "bits_per_char" in summary["models"]["a"]
    assert "bits_per_char" not in summary["models"]["c"]


class Losses(Observer):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def job_applied(self, learner: str, *rest: object) -> None:
        self.seen.append(learner)


def test_watchers_are_told_of_every_job(job: Path) -> None:
    watcher = Losses()
    train(job, "run", watchers=[watcher])
    assert sorted(watcher.seen) == ["a"] * 6 + ["b"] * 3 + ["c"] * 6


OWN = """
import torch
from torch import nn

class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.line = nn.Linear(2, 1)

    def per_sample_loss(self, batch):
        x, y = batch if isinstance(batch, list) else (batch["inputs"], batch["targets"])
        return (self.line(x).squeeze(1) - y) ** 2

class Points(torch.utils.data.Dataset):
    def __len__(self):
        return 50

    def __getitem__(self, i):
        return torch.tensor([i / 50, 1 - i / 25]), torch.tensor(i / 50)
"""


def test_tables_and_torch_data_train_under_a_schedule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "line_of_user.py").write_text(OWN)
    (tmp_path / "t.csv").write_text("a,y,b\n" + "".join(f"{i / 50},{i / 50},{1 - i / 25}\n" for i in range(50)))
    data = [
        {"name": "table", "data": "csv:t.csv", "data_args": {"target": "y"}},
        {"name": "torch", "data": "torch:line_of_user:Points"},
    ]
    shared = {"model": "line_of_user:Line", "batch": 20, "optimizer_args": {"lr": 0.3}, "schedule": "cosine"}
    job = {"pool": {"kind": "simulated", "compute": "rows"}, "defaults": shared, "learner": data}
    result = distseq.train(job, out="run", console=Console(file=io.StringIO()), steps=60, delays="bursts:base=0.1")
    for learner in result.learners:
        assert learner.optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)
        records = read_journal(result.folder / "journal.jsonl")
        losses = [one["loss"] for one in records if one["kind"] == "job" and one["learner"] == learner.name]
        assert losses[-1] < 1e-3 < losses[0]
    assert 0 <= result.summary["largest_gradient_difference"] < 1e-6


@pytest.mark.ray
def test_the_same_job_on_ray_gives_the_same_weights(job: Path, ray_session: None) -> None:
    job.write_text(job.read_text().replace('kind = "simulated"', 'kind = "simulated"\ncompute = "rows"'))
    simulated, _ = train(job, "simulated", scheme="msgc:1,2,2")
    on_ray, _ = train(job, "ray", pool="ray", delays="bursts:base=0.01")
    for a, b in zip(simulated.learners, on_ray.learners, strict=True):
        np.testing.assert_array_equal(a.publish(), b.publish())
    assert on_ray.summary["largest_gradient_difference"] < 1e-6


ADAPTIVE: list[dict[str, Any]] = [
    {"pool": "simulated", "unfinished": "lost"},
    {"pool": "simulated", "unfinished": "serial"},
    {"pool": "local", "hosts": 2, "delays": "bursts:base=0.02"},
]


@pytest.mark.parametrize("options", ADAPTIVE, ids=lambda one: "-".join(map(str, one.values())))
def test_a_job_that_names_no_scheme_is_scheduled_by_what_is_observed(job: Path, options: dict[str, Any]) -> None:
    job.write_text(job.read_text().replace('scheme = "msgc:1,2,2"', ""))
    result, printed = train(job, "run", steps=12, **options)
    summary = result.summary
    assert (summary["scheme"], summary["exact"], summary["jobs"]) == ("auto", True, 36)
    assert summary["largest_gradient_difference"] < 1e-5
    choices = [one for one in read_journal(result.folder / "journal.jsonl") if one["kind"] == "choice"]
    assert [one["chosen"] for one in choices] == summary["chosen"]
    assert printed.count("scheduling: ") == len(choices)
    assert "auto" in summary["replayed_seconds_per_job"]


def test_an_adaptive_run_goes_on_where_it_was_stopped(job: Path) -> None:
    job.write_text(job.read_text().replace('scheme = "msgc:1,2,2"', ""))
    whole, _ = train(job, "whole", steps=8, pool="simulated")
    train(job, "part", steps=4, pool="simulated")
    again = distseq.train(resume=job.parent / "part", steps=8, console=Console(file=io.StringIO()))
    for ours, theirs in zip(again.learners, whole.learners, strict=True):
        np.testing.assert_allclose(ours.publish(), theirs.publish(), atol=1e-4)
