"""A config file is examined without being run."""

import os
from pathlib import Path

import pytest

from distseq.cli.doctor import job
from distseq.cli.doctor.findings import Subject, examine
from distseq.coding.schemes.registry import parse
from distseq.scheduling.pipeline import Pipeline

JOB = """
[pool]
kind = "local"
workers = 1
[[learner]]
name = "a"
model = "distseq.models.char_lstm:CharLSTM"
model_args = { hidden = 4 }
data = "text:text.txt"
data_args = { window = 4 }
batch = 8
"""
ABOUT = ["config file", "scheme", "models", "data", "learners", "workers", "memory", "run folder"]


def examined(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **facts: object) -> dict[str, tuple[str, str]]:
    """What is found of a job of this text in a folder of its own; `facts` are known beforehand."""
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("to be or not to be, that is the question. " * 40)
    Path("job.toml").write_text(text)
    subject = Subject(Path("job.toml"), "auto" if facts else None)
    for name, fact in facts.items():
        subject.once(name, lambda fact=fact: fact)  # type: ignore[misc]
    return {about: (level, said) for about, level, said in examine(job.CHECKS, subject)}


def test_a_good_job_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = JOB.replace("workers = 1", "workers = 1\nhosts = 1").replace(
        "[[learner]]", '[scheduler]\nscheme = "uncoded"\n[[learner]]'
    )
    found = examined(text, tmp_path, monkeypatch)
    assert {about: level for about, (level, _) in found.items()} == dict.fromkeys(ABOUT, "ok")
    assert sorted(os.listdir()) == ["job.toml", "text.txt"]


@pytest.mark.parametrize(
    ("old", "new", "about", "reason"),
    [
        ("[pool]", "[pol]", "config file", "unknown key 'pol' in the config file; nearest: pool"),
        ("workers = 1", "workers = 1\n[scheduler]\nscheme = 'gc:4'", "scheme", "got n=1, s=4"),
        ("workers = 1", "workers = 4\n[scheduler]\nscheme = 'msgc:1,2,2'", "scheme", "msgc:1,2,2 has delay T=1"),
        ("distseq.models.char_lstm:CharLSTM", "gone_models:build", "models", "No module named 'gone_models'"),
        ("text:text.txt", "text:gone.txt", "data", "gone.txt"),
        ("hidden = 4", "hiden = 4", "learners", "hiden"),
        ("batch = 8", "batch = 8\noptimizer = 'adamm'", "learners", "adamm"),
    ],
)
def test_what_is_wrong_with_a_job_is_said_where_it_is(
    old: str, new: str, about: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = examined(JOB.replace(old, new), tmp_path, monkeypatch)
    level, said = found[about]
    assert level == "error"
    assert reason in said


def cluster(cpus: float) -> dict[str, object]:
    return {
        "driver": {},
        "nodes": [{"node": "a", "resources": {"CPU": cpus}, "cpus": cpus, "memory": 1 << 28, "versions": {}}],
    }


def test_workers_are_counted_against_the_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = JOB.replace('"local"', '"ray"').replace("workers = 1", "workers = 6")
    assert examined(text, tmp_path, monkeypatch, nodes=cluster(6.0))["workers"][0] == "ok"
    level, said = examined(text, tmp_path, monkeypatch, nodes=cluster(4.0))["workers"]
    assert (level, said.partition(":")[0]) == (
        "warning",
        "6 workers share 4 hosts (the cluster has room for 4 of 1 CPU)",
    )
    two = text.replace("workers = 6", "workers = 6\ncpus = 2")
    assert examined(two, tmp_path, monkeypatch, nodes=cluster(12.0))["workers"][0] == "ok"
    text = text.replace("workers = 6", "workers = 6\nhosts = 5")
    level, said = examined(text, tmp_path, monkeypatch, nodes=cluster(4.0))["workers"]
    assert (level, said.partition(":")[0]) == ("error", "there is no room for 5 hosts")


def test_memory_is_counted_against_the_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = JOB.replace('"local"', '"ray"').replace("workers = 1", "workers = 6")
    level, said = examined(text, tmp_path, monkeypatch, nodes=cluster(6.0))["memory"]
    assert level == "warning"
    assert "the cluster has 256 MiB free" in said


def test_the_estimate_grows_with_rows_of_open_jobs() -> None:
    # Two models of 10 bytes: 4 copies of each at the master; 8 workers hold one row of each of 1 and of 2 jobs.
    assert job.estimate([10, 20], Pipeline(3, 2).scheme(8), Pipeline(3, 2)) == (120 + 180, 60 + 30)
    assert job.estimate([10, 10], parse("gc:1", 8)) == (80 + 80, 40 + 10)
    assert job.estimate([10, 10], parse("srsgc:1,2,1", 8)) == (80 + 160, 40 + 20)


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    (tmp_path / "runs").mkdir(mode=0o500)
    level, said = examined(JOB, tmp_path, monkeypatch)["run folder"]
    assert (level, "--out" in said) == ("error", True)
