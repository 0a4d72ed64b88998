"""A cluster of several nodes on this machine: a node dies, another joins, and no gradient changes."""

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

import distseq
from distseq.config.toml_file import load_config
from distseq.engine.journal import read_journal

pytestmark = [pytest.mark.ray, pytest.mark.slow]
STEPS = 40
GATED = """
import time
from pathlib import Path

from distseq.models.char_lstm import CharLSTM

HOLD = Path(__file__).with_name("hold")


class Gated(CharLSTM):
    def per_sample_loss(self, batch):
        while HOLD.exists():
            time.sleep(0.05)
        return super().per_sample_loss(batch)
"""
JOB = """
[run]
steps = 40
checks = 0  # the master would wait for the gate itself

[pool]
workers = 4

[scheduler]
scheme = "gc:1"

[checkpoint]
every = 0

[defaults]
model = "gated:Gated"
model_args = { hidden = 6 }
data = "text:TEXT"
data_args = { window = 5 }
batch = 24

[[learner]]
name = "a"

[[learner]]
name = "b"
batch = 30
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    text = tmp_path / "text.txt"
    text.write_text("".join(f"{k} green bottles hanging on the wall, and {k * k} more.\n" for k in range(90)))
    (tmp_path / "gated.py").write_text(GATED)
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "job.toml"
    path.write_text(JOB.replace("TEXT", str(text)))
    return path


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head of two CPUs, with a token."""
    from ray.cluster_utils import Cluster

    from distseq.cluster.ray.session import set_variables

    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    before = {name: os.environ.get(name) for name in token}
    set_variables(token)
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    yield made
    made.shutdown()
    for name, value in before.items():
        os.environ.pop(name)
        if value is not None:
            os.environ[name] = value
    # Ray keeps what it has read until it is told to read again.
    set_variables({})


class Run:
    """`distseq train` in a process of its own, and how far its journal says that it is."""

    def __init__(self, job: Path, address: str, *options: str) -> None:
        self.out, self.hold = job.parent / "run", job.parent / "hold"
        command = [sys.executable, "-m", "distseq", "train", str(job), "--address", address, "--out", str(self.out)]
        folders = [str(job.parent), *sys.path]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, folders))}
        self.process = subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )

    def records(self, kind: str) -> list[Any]:
        path = self.out / "journal.jsonl"
        return [record for record in read_journal(path) if record["kind"] == kind] if path.exists() else []

    def news(self) -> list[str]:
        return [record["news"] for record in self.records("hosts")]

    def until(self, jobs: int) -> None:
        """Until so many jobs are done."""
        self._await(lambda: len(self.records("job")) >= jobs)

    def notices(self, act: Callable[[], object], word: str, times: int) -> None:
        """Hold all rows, so that the run does not end meanwhile, until this is in the hosts' news, so often in all."""
        self.hold.touch()
        act()
        self._await(lambda: " ".join(self.news()).count(word) >= times)
        self.hold.unlink()

    def _await(self, done: Callable[[], bool]) -> None:
        end = time.monotonic() + 120
        while not done():
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < end, self.news()
            time.sleep(0.2)

    def end(self) -> str:
        said, _ = self.process.communicate(timeout=200)
        assert self.process.returncode == 0, said
        return said


@pytest.mark.parametrize(
    "elastic",
    [pytest.param(False, marks=pytest.mark.long), True],
    ids=["fixed", "elastic"],
)
def test_a_node_dies_and_another_joins_while_training(job: Path, cluster: Any, elastic: bool) -> None:
    run = Run(job, cluster.address, *["--elastic"] * elastic)
    run.until(6)  # the driver is on the head's node, which is not the one to die
    nodes: list[Any] = []
    run.notices(lambda: nodes.append(cluster.add_node(num_cpus=2)), "joined", 2)
    run.until(20)
    run.notices(lambda: cluster.remove_node(nodes[0], allow_graceful=False), "left", 2)
    run.until(40)
    run.notices(lambda: cluster.add_node(num_cpus=2), "joined", 4)
    assert "joined" in run.end()
    steps = [(record["learner"], record["step"]) for record in run.records("job")]
    assert sorted(steps) == [(name, step) for name in "ab" for step in range(STEPS)]
    workers = [record["workers"] for record in run.records("hosts")]
    assert {2, 4} <= set(workers) if elastic else set(workers) == {4}

    alone = distseq.train(
        load_config(job), pool="simulated", compute="rows", out=job.parent / "alone", console=Console(quiet=True)
    )
    for learner in alone.learners:
        weights = load_file(run.out / "weights" / f"{learner.name}.safetensors")
        for key, tensor in learner.state_dict().items():
            if elastic:  # other parts are rounded elsewhere
                torch.testing.assert_close(weights[key], tensor, rtol=1e-3, atol=1e-4)
            else:
                assert torch.equal(weights[key], tensor)
