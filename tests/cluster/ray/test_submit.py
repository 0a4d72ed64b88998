"""`distseq submit` and `distseq doctor` against a head node that has no distseq of its own."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.ray.head import Cluster

ROOT = Path(__file__).resolve().parents[3]
pytestmark = [pytest.mark.ray, pytest.mark.slow]

MODEL = """
import os

import distseq
import torch
from torch.nn.functional import cross_entropy


class Bigrams(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.zeros(97, 97))

    def per_sample_loss(self, batch):
        scores = self.logits[batch["inputs"]]
        losses = cross_entropy(scores.flatten(0, 1), batch["targets"].flatten(), reduction="none")
        return losses.view_as(batch["targets"]).mean(1)


def build(note):
    with open(note, "a") as file:
        file.write(f"{os.getpid()} {distseq.__file__}\\n")
    return Bigrams()
"""
JOB = """
[run]
steps = 3
[pool]
workers = 2
hosts = 1
[[learner]]
name = "a"
model = "own_models:build"
model_args = {{ note = "{note}" }}
data = "text:texts/some.txt"
data_args = {{ window = 4 }}
batch = 8
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder: a job, its model and data, and a distseq that must not be the one that runs."""
    work = tmp_path / "work"
    (work / "texts").mkdir(parents=True)
    (work / "texts/some.txt").write_text("to be or not to be, that is the question. " * 40)
    (work / "own_models.py").write_text(MODEL)
    (work / "job.toml").write_text(JOB.format(note=tmp_path / "note.txt"))
    (work / "distseq").mkdir()
    (work / "distseq/__init__.py").write_text("raise ImportError('the distseq of the working dir')")
    return work


def environment(cluster: Cluster, **more: str) -> dict[str, str]:
    """Of a client away from the cluster, without a token."""
    kept = {k: v for k, v in cluster.environment.items() if not k.startswith("RAY_AUTH")}
    return {**kept, "HOME": "/nonexistent", "PYTHONPATH": str(ROOT), **more}


def distseq(*arguments: str) -> list[str]:
    # -P: the distseq of the current folder is not the one that submits.
    return [sys.executable, "-P", "-m", "distseq", *arguments]


def run(
    cluster: Cluster, folder: Path, command: str, *arguments: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    line = distseq(command, "--address", cluster.address, *arguments)
    return subprocess.run(
        line, env=environment(cluster, **variables), cwd=folder, capture_output=True, text=True, check=False
    )


def test_a_config_file_trains_with_the_distseq_that_submits_it(cluster: Cluster, folder: Path) -> None:
    (folder.parent / "token").write_text(f"{cluster.token}\n")
    result = run(cluster, folder, "submit", "job.toml", "--steps", "4", "--token-file", "../token")
    assert result.returncode == 0, result.stdout + result.stderr
    (out,) = (cluster.home / "distseq-runs").glob("job-*")
    assert json.loads((out / "summary.json").read_text())["jobs"] == 4
    assert f"run folder: {out}" in result.stdout.replace("\n", "")
    job = re.search(r"to copy it: distseq fetch (job-\w+) --address", result.stderr)
    assert job is not None, result.stderr
    fetched = run(cluster, folder, "fetch", job[1], "--out", "here", "--token-file", "../token")
    assert (fetched.returncode, fetched.stdout) == (0, "here\n"), fetched.stderr
    files = sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file() and path.name[0] != ".")
    assert sorted(path.relative_to(folder / "here") for path in (folder / "here").rglob("*") if path.is_file()) == files
    assert all((folder / "here" / path).read_bytes() == (out / path).read_bytes() for path in files)
    unknown = run(cluster, folder, "fetch", "job-0", "--token-file", "../token")
    assert unknown.stderr == f"error: the Ray cluster at {cluster.address} knows no job 'job-0'\n"
    notes = [line.split() for line in (folder.parent / "note.txt").read_text().splitlines()]
    assert len({pid for pid, _ in notes}) > 1  # the driver and the host of its workers
    assert all("/py_modules_files/" in file for _, file in notes)


def test_a_command_that_fails_gives_its_exit_code_and_finds_distseq(cluster: Cluster, folder: Path) -> None:
    code = "import sys, distseq.coding.schemes.registry; print('from', distseq.__file__); sys.exit(7)"
    result = run(cluster, folder, "submit", "--", "python", "-c", code, RAY_AUTH_TOKEN=cluster.token)
    assert result.returncode == 7
    assert "/py_modules_files/" in result.stdout
    assert result.stderr.splitlines()[-1].endswith("failed: Job entrypoint command failed with exit code 7")


def test_without_waiting_the_id_is_all_that_is_written(cluster: Cluster, folder: Path) -> None:
    result = run(cluster, folder, "submit", "--no-wait", "--", "true", RAY_AUTH_TOKEN=cluster.token)
    assert result.returncode == 0
    assert result.stderr == ""
    (job,) = result.stdout.split()
    assert job.startswith("job-")


def test_an_interrupt_stops_the_job(cluster: Cluster, folder: Path) -> None:
    command = distseq("submit", "--address", cluster.address, "--", "sh", "-c", "echo started; sleep 300")
    process = subprocess.Popen(
        command,
        env=environment(cluster, RAY_AUTH_TOKEN=cluster.token),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert any(line == "started\n" for line in process.stdout)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "asking Ray job" in said
    assert said.splitlines()[-1].endswith("was stopped")


def test_a_wrong_token_or_none_is_explained(cluster: Cluster, folder: Path) -> None:
    wrong = run(cluster, folder, "submit", "job.toml", RAY_AUTH_TOKEN="0" * 64)
    none = run(cluster, folder, "submit", "job.toml")
    assert (wrong.returncode, none.returncode) == (2, 2)
    assert f"error: the cluster at {cluster.address} rejects the token of RAY_AUTH_TOKEN (403)" in wrong.stderr
    assert f"error: the cluster at {cluster.address} requires a token and was sent none (401)" in none.stderr
    assert len(wrong.stderr.splitlines()) == len(none.stderr.splitlines()) == 1


def test_the_doctor_sees_every_node_from_outside(cluster: Cluster, folder: Path) -> None:
    result = run(cluster, folder, "doctor", "--json", RAY_AUTH_TOKEN=cluster.token)
    answer = json.loads(result.stdout)
    found = {finding["about"]: finding for finding in answer["findings"]}
    assert (result.returncode, answer["ok"]) == (0, True), result.stdout
    assert "1 node, 4 CPUs" in found["cluster"]["text"]
    (node,) = (finding for about, finding in found.items() if about.startswith("node "))
    assert node["level"] == "ok"
    assert f"python {sys.version.split()[0]}" in node["text"]
