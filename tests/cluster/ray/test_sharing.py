"""`distseq train` beside other work on a cluster: another run, a Ray job, an actor, and hosts that are killed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

import distseq
from distseq.config.toml_file import load_config
from tests.cluster.ray.head import Cluster, ray

ROOT = Path(__file__).resolve().parents[3]
pytestmark = [pytest.mark.ray, pytest.mark.slow]

MODEL = """
import os
import time
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

HOLD, PIDS = (Path(__file__).with_name(name) for name in ("hold", "pids"))


class Bigrams(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.zeros(97, 97))

    def per_sample_loss(self, batch):
        import ray

        if ray.is_initialized() and ray.get_runtime_context().get_actor_id():
            with open(PIDS, "a") as file:
                file.write(f"{os.getpid()} {ray.get_runtime_context().gcs_address}\\n")
            while HOLD.exists():
                time.sleep(0.05)
            print("a row of a worker", flush=True)
        scores = self.logits[batch["inputs"]]
        losses = cross_entropy(scores.flatten(0, 1), batch["targets"].flatten(), reduction="none")
        return losses.view_as(batch["targets"]).mean(1)
"""
JOB = """
[run]
steps = 4
checks = 0
[pool]
workers = 4
hosts = 4
[scheduler]
scheme = "gc:1"
[[learner]]
name = "a"
model = "own_bigrams:Bigrams"
data = "text:TEXT"
data_args = { window = 4 }
batch = 12
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "some.txt").write_text("to be or not to be, that is the question. " * 40)
    (tmp_path / "own_bigrams.py").write_text(MODEL)
    job = JOB.replace("TEXT", str(tmp_path / "some.txt"))
    (tmp_path / "job.toml").write_text(job)
    (tmp_path / "free.toml").write_text(job.replace("hosts = 4", ""))
    alone = job.replace("hosts = 4", 'kind = "simulated"\ncompute = "rows"')
    (tmp_path / "alone.toml").write_text(alone)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def environment(cluster: Cluster, **more: str) -> dict[str, str]:
    return {**cluster.environment, "PYTHONPATH": str(ROOT), "RAY_DEDUP_LOGS": "0", **more}


def train(cluster: Cluster, folder: Path, *words: str, **more: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "distseq", "train", "job.toml", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, cwd=folder, env=environment(cluster, **more), text=True, **pipes)  # type: ignore[call-overload,no-any-return]


def until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 200
    while not done():
        assert time.monotonic() < end
        time.sleep(0.1)


def pids(folder: Path) -> list[int]:
    file = folder / "pids"
    return [int(line.split()[0]) for line in file.read_text().splitlines()] if file.exists() else []


def same_weights(folder: Path, out: Path) -> None:
    """The weights are, to the bit, those of a run in which nothing happened."""
    alone = distseq.train(
        load_config(folder / "alone.toml"), out=out.with_name(f"{out.name}-alone"), console=Console(quiet=True)
    )
    weights = load_file(out / "weights" / "a.safetensors")
    torch.testing.assert_close(weights["logits"], alone.learners[0].state_dict()["logits"], rtol=0, atol=0)


def test_the_second_of_two_runs_says_whom_it_waits_for_and_starts_when_that_ends(
    cluster: Cluster, folder: Path
) -> None:
    (folder / "hold").touch()
    first = train(cluster, folder, "--address", cluster.store, "--out", "first")
    until(lambda: len(set(pids(folder))) == 4)
    second = train(cluster, folder, "--address", cluster.store, "--out", "second")
    assert second.stdout is not None
    line = next(line for line in second.stdout if line.startswith("waiting for 4 hosts"))
    holder = rf"4 held by distseq-[0-9a-f]{{8}} \(process {first.pid} on .*\)"
    assert re.search(
        rf"waiting for 4 hosts of 1 CPU: 0 of 4 CPU free, {holder} \(\d+ s of at most 300, ready_within\)", line
    )
    (folder / "hold").unlink()
    said, rest = first.communicate(timeout=200)[0], second.communicate(timeout=200)[0]
    assert (first.returncode, second.returncode) == (0, 0), said + rest
    for name in ("first", "second"):
        same_weights(folder, folder / name)


def test_a_run_that_waits_for_too_long_gives_up_and_leaves_nothing(cluster: Cluster, folder: Path) -> None:
    (folder / "hold").touch()
    first = train(cluster, folder, "--address", cluster.store, "--out", "first", "--hosts", "3")
    until(lambda: len(set(pids(folder))) == 3)
    second = train(cluster, folder, "--address", cluster.store, "--out", "second", "--ready-within", "3")
    said, _ = second.communicate(timeout=200)
    (folder / "hold").unlink()
    first.communicate(timeout=200)
    assert second.returncode == 1
    assert re.search(
        r"error: the cluster had no room within 3 s for 4 hosts of 1 CPU: 1 of 4 CPU free, 3 held by distseq-", said
    )
    assert "wait longer with ready_within" in said
    assert not (folder / "second").exists()
    assert first.returncode == 0


def test_a_job_uses_the_cluster_it_runs_on_and_shows_what_workers_print(cluster: Cluster, folder: Path) -> None:
    command = ray("job", "submit", "--address", cluster.address, "--working-dir", str(folder), "--")
    line = f"PYTHONPATH={ROOT} {sys.executable} -m distseq train job.toml --out {folder}/run"
    result = subprocess.run([*command, "sh", "-c", line], env=environment(cluster), capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"\(Host pid=\d+.*\).* a row of a worker", result.stdout)
    assert json.loads((folder / "run/summary.json").read_text())["jobs"] == 4
    same_weights(folder, folder / "run")


def test_an_actor_killed_in_its_first_row_costs_nothing_but_time(cluster: Cluster, folder: Path) -> None:
    (folder / "hold").touch()
    run = train(cluster, folder, "--address", cluster.store, "--out", "run")
    until(lambda: len(set(pids(folder))) == 4)
    os.kill(pids(folder)[0], signal.SIGKILL)
    (folder / "hold").unlink()
    said, _ = run.communicate(timeout=200)
    assert run.returncode == 0, said
    assert len(re.findall(r"^host-\d is replaced: .*$", said, re.MULTILINE)) == 1
    same_weights(folder, folder / "run")


ACTOR = """
import sys
import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy as Strategy
from rich.console import Console

ray.init(address=sys.argv[1], logging_level="error", log_to_driver=False)


folder = sys.argv[2]


@ray.remote(num_cpus=1)
def trial(out, hosts):
    import distseq
    from distseq.config.toml_file import load_config

    config, quiet = load_config(f"{folder}/{'free' if hosts is None else 'job'}.toml"), Console(quiet=True)
    try:
        distseq.train(config, out=f"{folder}/{out}", hosts=hosts, console=quiet)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    used = ray.util.placement_group_table().values()
    return [group["name"] for group in used if group["state"] == "CREATED"]


group = placement_group([{"CPU": 1}] * 3, name="outer")
ray.get(group.ready())
within = Strategy(group, 0, placement_group_capture_child_tasks=True)
print(ray.get(trial.options(scheduling_strategy=within).remote("captured", None)))
print(ray.get(trial.options(scheduling_strategy=within).remote("too-many", 3)))
ray.util.remove_placement_group(group)
print(ray.get(trial.remote("plain", 3)))
"""


def test_in_a_trial_the_hosts_go_into_its_placement_group_and_in_an_actor_beside_it(
    cluster: Cluster, folder: Path
) -> None:
    (folder / "script.py").write_text(ACTOR)
    command = [sys.executable, "script.py", cluster.store, str(folder)]
    path = os.pathsep.join([str(ROOT), str(folder)])
    result = subprocess.run(
        command, cwd=folder, env=environment(cluster, PYTHONPATH=path), capture_output=True, text=True, timeout=200
    )
    assert result.returncode == 0, result.stderr
    captured, refused, plain = result.stdout.splitlines()
    assert captured == "['outer']"
    assert refused.startswith(
        "ValueError: 3 hosts of 1 CPU do not fit into the placement group of this actor or trial, which has room for 2 beside"
    )
    assert plain == "[]"
    same_weights(folder, folder / "captured")
