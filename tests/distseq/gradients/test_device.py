"""Rows on the host's device: tensors move there, rows come back as numpy, and a host without the device says so."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from distseq.artifacts.checkpoint import identity
from distseq.cluster.pool import Payload
from distseq.config.toml_file import from_dict
from distseq.gradients.device import choose_device, moved
from distseq.gradients.problem import Problem, losses, trained
from distseq.learners.fleet import Fleet
from distseq.learners.from_config import build_fleet

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
META = torch.device("meta")


class Pair(NamedTuple):
    first: torch.Tensor
    second: str


def fleet(tmp_path: Path, device: str, kind: str = "local", dtype: str = "float32") -> Fleet:
    return build_fleet(config(tmp_path, device, kind, dtype))


def config(tmp_path: Path, device: str, kind: str = "local", dtype: str = "float32") -> Any:
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog, and so on. " * 40)
    learner = {
        "name": "a",
        "model": "distseq.models.char_lstm:CharLSTM",
        "model_args": {"hidden": 6},
        "data": f"text:{text}",
        "data_args": {"window": 5},
        "batch": 9,
    }
    pool = {"kind": kind, "workers": 4, "device": device} | ({} if kind == "simulated" else {"hosts": 1})
    return from_dict({"run": {"dtype": dtype, "steps": 2}, "pool": pool, "learner": [learner]})


def payload(of: Fleet) -> Payload:
    o = of.learners[0].open(0)
    return Payload(0, 0, 0, o.parameters, o.ids, o.seed, "uncoded", 4)


def test_every_tensor_of_a_nested_batch_moves_and_the_rest_stays() -> None:
    x = torch.zeros(2, 3)
    batch = {"x": x, "deep": [x, {"y": x}, "text"], "pair": Pair(x, "name"), "tuple": (x, 3), "none": None}
    there = moved(batch, META)
    assert [t.device for t in (there["x"], there["deep"][0], there["deep"][1]["y"], there["tuple"][0])] == [META] * 4
    assert (there["deep"][2], there["tuple"][1], there["none"]) == ("text", 3, None)
    assert isinstance(there["pair"], Pair)
    assert (there["pair"].first.device, there["pair"].second) == (META, "name")
    assert batch["x"].device == torch.device("cpu")


def test_losses_are_computed_where_the_model_lies(tmp_path: Path) -> None:
    problem = fleet(tmp_path, "cpu").work.problem(0)
    batch = problem.source.batch(np.arange(3))
    there = problem.model.to(META)
    assert losses(Problem(there, problem.source, trained(there)), np.arange(3), batch).device == META


def test_the_driver_computes_on_its_cpu_and_hosts_where_the_job_says(tmp_path: Path) -> None:
    made = fleet(tmp_path, "auto")
    assert {p.device.type for p in made.work.problem(0).parameters} == {"cpu"}
    assert json.loads(made.spec.config)["device"] == "auto"


def test_a_run_may_go_on_on_another_device(tmp_path: Path) -> None:
    identities = {identity(config(tmp_path, device), fleet(tmp_path, device).description) for device in ("cpu", "auto")}
    assert len(identities) == 1


@NO_GPU
def test_auto_is_the_cpu_where_there_is_no_gpu(tmp_path: Path) -> None:
    made = fleet(tmp_path, "auto")
    ids, weights = np.arange(5), np.linspace(-1, 1, 5)
    np.testing.assert_array_equal(
        made.spec.load().row(payload(made), ids, weights), made.work.row(payload(made), ids, weights)
    )


@NO_GPU
@pytest.mark.parametrize("kind", ["local", "simulated"])
def test_a_host_without_a_gpu_says_so_before_the_first_row(tmp_path: Path, kind: str) -> None:
    import io

    from rich.console import Console

    import distseq

    no_gpu = "device=cuda needs a CUDA device, which this host lacks: set device to auto or cpu"
    error, where = {
        "local": (RuntimeError, r"^work failed on host-0 on \S+: ValueError: "),
        "simulated": (ValueError, "^"),
    }[kind]
    with pytest.raises(error, match=where + no_gpu):
        distseq.train(config(tmp_path, "cuda", kind), out=tmp_path / "run", console=Console(file=io.StringIO()))


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(ValueError, match="device must be one of cpu, cuda, auto: got 'tpu'"):
        choose_device("tpu")


@GPU
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-12)])
def test_rows_of_a_gpu_are_those_of_a_cpu_to_rounding(tmp_path: Path, dtype: str, tolerance: float) -> None:
    made = fleet(tmp_path, "cuda", dtype=dtype)
    ids, weights = np.arange(5), np.linspace(-1, 1, 5)
    here = made.work.row(payload(made), ids, weights)
    there = made.spec.load().row(payload(made), ids, weights)
    assert there.dtype == np.dtype(dtype)
    assert np.linalg.norm(there - here) <= tolerance * np.linalg.norm(here)
