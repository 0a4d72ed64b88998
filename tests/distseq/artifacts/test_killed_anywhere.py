"""A run that is killed at any operation on its files is resumed, or begun again in the same folder, to the same weights."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

import distseq
from tests.distseq.artifacts.crashing import Disk, assert_same_bits, weights

STEPS = 3


@pytest.fixture(scope="module")
def disk() -> Disk:
    return Disk()


def learners() -> list[distseq.Learner]:
    def loss(model: torch.nn.Module, batch: Any) -> torch.Tensor:
        return torch.as_tensor((model(batch[0]) - batch[1]).square().mean(1))

    made = []
    for name in ("a", "b"):
        torch.manual_seed(len(made))
        model = torch.nn.Linear(2, 1)
        data = torch.utils.data.TensorDataset(torch.randn(16, 2), torch.randn(16, 1))
        optimizer = torch.optim.Adam(model.parameters(), 0.1)
        made.append(
            distseq.Learner(name, model, optimizer, data=data, evaluation=data, batch=4, steps=STEPS, loss=loss)
        )
    return made


def train(**where: Any) -> distseq.Result:
    options = {"pool": "simulated", "workers": 2, "scheme": "uncoded", "checkpoint_every": 2, "checkpoint_keep": 2}
    return distseq.train(learners(), console=Console(file=io.StringIO()), **options, **where)


def begin_or_go_on(run: Path) -> distseq.Result:
    # Without its configuration there is nothing to resume; that it is missing means that nothing was begun.
    return train(resume=run) if (run / "config.toml").exists() else train(out=run)


def assert_whole(run: Path, result: distseq.Result, whole: list[np.ndarray]) -> None:
    assert_same_bits(weights(result), whole)
    assert result.summary["jobs"] == 2 * STEPS
    assert all(one["evaluation_loss"] > 0 for one in result.summary["models"].values())
    names = {path.name for path in run.rglob("*")}
    assert {"a.safetensors", "b.safetensors", "summary.json", "config.toml", "journal.jsonl"} <= names
    assert not [name for name in names if name.startswith(".")], "no lock, no temporary file"


def kill_at(tmp_path: Path, disk: Disk, step: int) -> None:
    whole = weights(train(out=tmp_path / "whole"))
    operation, disk.reached = 0, True
    while disk.reached:
        run = tmp_path / "new" / f"run-{operation}"
        with disk.killing(tmp_path / "new", operation):
            train(out=run)
        assert_whole(run, begin_or_go_on(run), whole)
        operation += step
    assert operation > 50, "that many operations a run has"


def test_a_run_killed_at_some_of_its_operations_ends_with_the_same_weights(tmp_path: Path, disk: Disk) -> None:
    kill_at(tmp_path, disk, 17)


@pytest.mark.long
def test_a_run_killed_at_any_operation_ends_with_the_same_weights(tmp_path: Path, disk: Disk) -> None:
    kill_at(tmp_path, disk, 1)


@pytest.mark.slow
@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.long)])
def test_a_resumed_run_killed_at_any_operation_ends_with_the_same_weights(
    tmp_path: Path, disk: Disk, step: int
) -> None:
    whole = weights(train(out=tmp_path / "whole"))
    operation, disk.reached = 0, True
    while disk.reached:
        run = tmp_path / f"run-{operation}"
        with disk.killing(run, 45):
            train(out=run)
        assert disk.reached
        with disk.killing(run, operation):
            train(resume=run)
        assert_whole(run, begin_or_go_on(run), whole)
        operation += step
    assert operation > 20, "that many operations a resumed run has"
