"""A data set that is missing, differs or fails on a host: one line that names host, learner, data set and sample."""

import io
import os
import re
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import distseq
from distseq.config.toml_file import from_dict
from distseq.engine.failures import FailedError
from distseq.gradients.data import DataError, Source, open_data
from distseq.learners.from_config import build_fleet

OWN = """
import os

import numpy as np
import torch
from torch import nn


class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.line = nn.Linear(2, 1)

    def per_sample_loss(self, batch):
        return (self.line(batch["x"]).squeeze(1) - batch["deep"]["y"]) ** 2


class Draws(Line):
    def per_sample_loss(self, batch):
        torch.manual_seed(3)
        return super().per_sample_loss(batch) * torch.rand(())


class DrawsWithNumpy(Line):
    def per_sample_loss(self, batch):
        np.random.seed(3)
        return super().per_sample_loss(batch) * np.random.rand()


class Set:
    '''Has its fault everywhere but in the process `good`.'''

    def __init__(self, fault=None, good=0):
        self.fault = fault if os.getpid() != good else None
        if self.fault == "missing":
            raise FileNotFoundError(2, "No such file or directory", "/mnt/points")
        self.fingerprint = ("b" if self.fault == "differs" else "a") * 64

    def __len__(self):
        return 40

    def batch(self, indices):
        if self.fault == "one" and 13 in indices:
            raise OSError("cannot open image\\nsecond line")
        if self.fault == "together" and len(indices) > 1:
            raise RuntimeError("stack expects each tensor to be equal size")
        if self.fault == "short":
            indices = indices[1:]
        x = torch.from_numpy(np.stack([indices / 40, 1 - indices / 20], axis=1)).float()
        if self.fault == "infinite":
            x[torch.from_numpy(indices == 13), 1] = torch.inf
        return {"x": x, "deep": {"y": x.sum(1)}}
"""
DATA = "set_of_user:Set"


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set_of_user.py").write_text(OWN)


def job(model: str = "Line", **data_args: Any) -> dict[str, Any]:
    learner = {"name": "tiny", "model": f"set_of_user:{model}", "batch": 80, "data": DATA, "data_args": data_args}
    pool = {"kind": "local", "workers": 2, "hosts": 2}
    return {"run": {"steps": 3}, "pool": pool, "learner": [learner]}


LINES = {
    "missing": rf"data '{DATA}' cannot be opened: FileNotFoundError: [Errno 2] No such file or directory: '/mnt/points'",
    "differs": f"data '{DATA}' differ between hosts: sha256 {'b' * 12} on this host, {'a' * 12} at the master; install ",
    "one": f"data '{DATA}', sample 13: OSError: cannot open image",
    "together": f"data '{DATA}', batch of ids [",
    "short": f"data '{DATA}': the first dimension of a batch of ",
    "infinite": f"data '{DATA}', sample 13: x is not finite, so the gradient would not be finite",
}


@pytest.mark.parametrize("fault", ["missing", "differs", "one"])
def test_a_fault_on_a_host_names_host_learner_data_set_and_sample(fault: str) -> None:
    with pytest.raises(FailedError) as error:
        distseq.train(job(fault=fault, good=os.getpid()), out="run", console=Console(file=io.StringIO()))
    line = str(error.value)
    host = rf"learner tiny failed at step 0 on host-[01] on {re.escape(socket.gethostname())}: "
    assert re.match(f"{host}DataError: {re.escape(LINES[fault])}", line), line
    assert "\n" not in line
    assert line.count("tiny") == line.count(DATA) == 1


@pytest.mark.parametrize("fault", ["missing", "one", "together", "short", "infinite"])
def test_a_fault_on_the_driver_is_one_line_before_anything_starts(fault: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole beginning is compared
        build_fleet(from_dict(job(fault=fault)))  # samples 0, 13, 26 and 39 are tried
    assert str(error.value).startswith(f"learner tiny: {LINES[fault]}")
    assert "\n" not in str(error.value)


def source(data: str = DATA, **data_args: Any) -> Source:
    return Source(data, open_data(data, data_args), "a" * 64)


def check_finite(ids: np.ndarray, **data_args: Any) -> None:
    read = source(**data_args)
    read.check_finite(ids, read.batch(ids))


def test_the_first_sample_that_raises_alone_is_named() -> None:
    with pytest.raises(DataError, match=r"sample 13: OSError: cannot open image$"):
        source(fault="one").batch(np.array([3, 9, 13, 13, 2]))
    with pytest.raises(DataError, match=r"batch of ids \[3, 9\]: RuntimeError: stack expects"):
        source(fault="together").batch(np.array([3, 9]))


def test_a_batch_of_another_length_is_refused_wherever_the_tensor_lies() -> None:
    with pytest.raises(DataError, match=r"batch of 3 samples must be 3: got shape \(2, 2\) of x$"):
        source(fault="short").batch(np.arange(3))


def test_the_first_sample_that_is_not_finite_is_named_and_finite_ones_pass() -> None:
    check_finite(np.array([5, 6]), fault="infinite")
    with pytest.raises(DataError, match=r"sample 13: x is not finite, so the gradient would not be finite$"):
        check_finite(np.array([5, 13, 13]), fault="infinite")


def test_a_data_set_of_ours_that_names_itself_is_not_named_twice(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        source("csv:gone.csv")
    assert str(error.value) == "can't read data 'csv:gone.csv': No such file or directory"
    with pytest.raises(DataError, match=r"^data 'text:gone' cannot be opened: ValueError: can't read text"):
        source("text:gone")


@pytest.mark.parametrize(
    ("model", "wanted", "ahead"),
    [("Line", True, True), ("Line", False, False), ("Draws", True, False), ("DrawsWithNumpy", True, False)],
)
def test_hosts_read_ahead_unless_told_otherwise_or_where_a_model_draws(model: str, wanted: bool, ahead: bool) -> None:
    config = job(model)
    config["pool"]["prefetch"] = wanted
    assert build_fleet(from_dict(config)).spec.prefetch == ahead
