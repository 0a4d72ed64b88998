"""A data set that is missing, differs or fails on a host: one line that names host, learner, data set and sample."""

import io
import os
import re
import signal
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from rich.console import Console

import distseq
from distseq.config.toml_file import from_dict
from distseq.engine.failures import FailedError
from distseq.gradients import data as data_module
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
    ("model", "wanted"), [("Line", True), ("Line", False), ("Draws", True), ("DrawsWithNumpy", True)]
)
def test_hosts_read_ahead_unless_told_otherwise(model: str, wanted: bool) -> None:
    config = job(model)
    config["pool"]["prefetch"] = wanted
    assert build_fleet(from_dict(config)).spec.prefetch == wanted


def test_a_file_that_kills_the_process_that_reads_it_over_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parquet's reader is a C++ program: a damaged file must not end the run that reads it."""
    (tmp_path / "deadly_reader.py").write_text("import os\ndef die(spec, args): os.kill(os.getpid(), 11)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(data_module, "READ_OVER", "deadly_reader:die")
    file = tmp_path / "t.parquet"
    parquet.write_table(pa.table({"x": [1.0, 2.0], "y": [0.0, 1.0]}), file)
    said = rf"^{{}}can't read data 'parquet:{re.escape(str(file))}': it is damaged, a process that read it died of SIGSEGV$"
    with pytest.raises(DataError, match=said.format("")):
        open_data(f"parquet:{file}", {})
    model = torch.nn.Linear(1, 1)
    with pytest.raises(ValueError, match=said.format("learner a: ")):
        distseq.Learner(
            "a",
            model,
            torch.optim.SGD(model.parameters(), 0.1),
            data=f"parquet:{file}",
            batch=1,
            steps=1,
            loss=lambda model, batch: model(batch["x"][:, None]).squeeze(1),
        )


def test_a_file_is_read_over_once_and_its_own_errors_are_those_of_opening_it(tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    parquet.write_table(pa.table({"x": [1.0, 2.0]}), file)
    open_data(f"parquet:{file}", {})
    child = data_module._CHILD._process
    assert child is not None
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    # Were it read over again, there would be another process.
    assert len(open_data(f"parquet:{file}", {})) == 2
    assert data_module._CHILD._process is child
    parquet.write_table(pa.table({"x": [1.0, None, 2.0]}), file)
    with pytest.raises(DataError, match=r"^column 'x' of data 'parquet:.*' has no value at index 1$"):
        open_data(f"parquet:{file}", {})
    data_module._CHILD.close()


def test_a_page_that_says_that_it_is_huge_is_refused_before_this_process_reads_it(tmp_path: Path) -> None:
    """Found by the fuzzer: Arrow allocates what a page's header says that it unpacks to."""
    file = tmp_path / "t.parquet"
    parquet.write_table(pa.table({"x": np.arange(40) / 4}), file, compression="gzip")
    content = file.read_bytes()
    # The header of the first page: its kind, then the number of bytes that it unpacks to, 320 as a zigzag varint.
    assert content[4:9] == b"\x15\x04\x15\x80\x05"
    file.write_bytes(content[:7] + b"\xfe\xff\xff\xff\x0f" + content[9:])
    with pytest.raises(DataError, match=r"it is damaged, a process that read it needed more than 1\.1 GB of memory$"):
        open_data(f"parquet:{file}", {})


ODD = """
import torch

class Method:
    def __len__(self): return 8
    def fingerprint(self): return "a"
    def batch(self, ids): return {"x": torch.ones(len(ids))}

class Number(Method):
    fingerprint = 5

class Negative(Method):
    fingerprint = "a"
    def __len__(self): return -1

class Half(Method):
    fingerprint = "a"
    def __len__(self): return 2.5

class Leaves(Method):
    fingerprint = "a"
    def batch(self, ids): raise SystemExit(3)
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Method", r"^the fingerprint of data 'odd_data:Method' must be text: got a method: is @property missing\?$"),
        ("Number", r"^the fingerprint of data 'odd_data:Number' must be text: got a int$"),
        ("Negative", r"^data 'odd_data:Negative' has no length: __len__\(\) should return >= 0$"),
        ("Half", r"^data 'odd_data:Half' has no length: 'float' object cannot be interpreted as an integer$"),
    ],
)
def test_a_data_set_without_length_or_fingerprint_is_named(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "odd_data.py").write_text(ODD)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DataError, match=message):
        open_data(f"odd_data:{name}", {})


def test_a_data_set_that_ends_the_program_ends_in_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "odd_data.py").write_text(ODD)
    monkeypatch.syspath_prepend(tmp_path)
    source = Source("odd_data:Leaves", open_data("odd_data:Leaves", {}))
    with pytest.raises(DataError, match=r"^data 'odd_data:Leaves', sample 2: SystemExit: 3$"):
        source.batch(np.array([2, 3]))
