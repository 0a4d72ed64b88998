"""Parquet files, and saved Hugging Face data sets, which need a package that distseq does not install."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet as parquet_files

from distseq.models.data.dataset import open_dataset


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def parquet() -> Any:
    return lambda name, columns, **more: parquet_files.write_table(pa.table(columns), name, **more)


@pytest.fixture
def datasets() -> Any:
    return pytest.importorskip("datasets", reason="hf: data needs datasets, which is optional: pip install datasets")


def refused(message: str, spec: str, **args: Any) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole beginning is compared
        open_dataset(spec, **args)
    assert str(error.value).startswith(message), error.value
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("prefix", "package"), [("parquet", "pyarrow"), ("hf", "datasets")])
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    prefix: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "distseq.models.data.tables.parquet", raising=False)
    refused(
        f"data '{prefix}:x' needs {package}, which is not installed: python -m pip install {package}", f"{prefix}:x"
    )


def test_a_parquet_file_holds_columns_of_numbers_and_lists(parquet: Any) -> None:
    columns = {
        "x": [0.5, 1.5, 2.5],
        "k": [1, 2, 3],
        "v": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
        "b": [True, False, True],
    }
    parquet("t.parquet", columns, row_group_size=2)
    data = open_dataset("parquet:t.parquet")
    batch = data.batch(np.array([2, 0, 0]))
    assert {name: tensor.dtype for name, tensor in batch.items()} == {
        "x": torch.float32,
        "k": torch.int64,
        "v": torch.float32,
        "b": torch.bool,
    }
    assert batch["v"].tolist() == [[5, 6], [1, 2], [1, 2]]
    assert batch["b"].tolist() == [True, True, True]
    assert batch["k"].tolist() == [3, 1, 1]
    np.savez("t.npz", **{name: np.array(values) for name, values in columns.items()})
    assert data.fingerprint == open_dataset("arrays:t.npz").fingerprint


def test_a_wrong_parquet_file_is_named_in_one_line(parquet: Any) -> None:
    refused("can't read data 'parquet:gone': No such file or directory", "parquet:gone")
    Path("text").write_text("hello, this is not parquet")
    refused("can't read data 'parquet:text': ArrowInvalid: ", "parquet:text")
    parquet(
        "t", {"x": [1, None, 3], "s": ["a", "b", "c"], "v": [[1], [2, 3], []], "ok": [1, 2, 3], "n": [[1], [None], [2]]}
    )
    refused("column 'x' of data 'parquet:t' has no value at index 1", "parquet:t")
    refused("column 's' of data 'parquet:t' must hold numbers", "parquet:t", columns=["s"])
    refused(
        "lists in column 'v' of data 'parquet:t' must have equal lengths: got 1 and, at index 1, 2",
        "parquet:t",
        columns=["v"],
    )
    refused("data 'parquet:t' has no column 'y'; known: x, s, v, ok, n", "parquet:t", columns=["y"])
    assert len(open_dataset("parquet:t", columns=["ok"])) == 3
    with pytest.raises(ValueError, match=r"^sample ids of data 'parquet:t' must be in 0 \.\. 2: got \[3\]$"):
        open_dataset("parquet:t", columns=["ok"]).batch(np.array([3]))


def test_a_saved_data_set_holds_columns_of_numbers_and_lists(datasets: Any) -> None:
    columns = {"x": [k / 2 for k in range(2345)], "v": [[k, -k] for k in range(2345)], "s": ["a"] * 2345}
    whole = datasets.Dataset.from_dict(columns)
    whole.save_to_disk("whole")
    data = open_dataset("hf:whole", columns=["x", "v"])
    batch = data.batch(np.array([2344, 3]))
    assert len(data) == 2345
    assert batch["x"].tolist() == [1172, 1.5]
    assert batch["v"].tolist() == [[2344, -2344], [3, -3]]
    assert (batch["x"].dtype, batch["v"].dtype) == (torch.float32, torch.int64)
    # A selection has an index mapping over the same rows; its fingerprint is that of its content.
    whole.select(range(5)).save_to_disk("few")
    datasets.Dataset.from_dict({name: values[:5] for name, values in columns.items()}).save_to_disk("same")
    few, same = (open_dataset(f"hf:{name}", columns=["x", "v"]) for name in ("few", "same"))
    assert few.fingerprint == same.fingerprint != data.fingerprint


def test_a_split_of_a_saved_data_set_is_named(datasets: Any) -> None:
    one = datasets.Dataset.from_dict({"x": [1.0, 2.0]})
    datasets.DatasetDict({"train": one, "test": one.select([0])}).save_to_disk("both")
    one.save_to_disk("one")
    assert len(open_dataset("hf:both", split="test")) == 1
    refused("data 'hf:both' has the splits train, test: got split=None", "hf:both")
    refused("data 'hf:both' has the splits train, test: got split='dev'", "hf:both", split="dev")
    refused("data 'hf:one' has no splits: got split='train'", "hf:one", split="train")


def test_a_wrong_saved_data_set_is_named_in_one_line(datasets: Any) -> None:
    refused("can't read data 'hf:gone': there is no such folder", "hf:gone")
    Path("empty").mkdir()
    refused("can't read data 'hf:empty': FileNotFoundError: ", "hf:empty")
    datasets.Dataset.from_dict({"s": ["a", "b"], "v": [[1], [2, 3]], "n": [1, None], "ok": [1, 2]}).save_to_disk("t")
    refused("column 's' of data 'hf:t' must hold numbers", "hf:t", columns=["s"])
    refused(
        "lists in column 'v' of data 'hf:t' must have equal lengths: got 1 and, at index 1, 2", "hf:t", columns=["v"]
    )
    refused("column 'n' of data 'hf:t' has no value at index 1", "hf:t", columns=["n"])
    refused("data 'hf:t' has no column 'y'; known: s, v, n, ok", "hf:t", columns=["y"])
    datasets.Dataset.from_dict({"v": [[1, 2]] * 1000 + [[1, 2, 3]] * 5}).save_to_disk("wide")
    refused("lists in column 'v' of data 'hf:wide' must have equal lengths: got 2 and, at index 1000, 3", "hf:wide")
    with pytest.raises(ValueError, match=r"^sample ids of data 'hf:t' must be in 0 \.\. 1: got \[-1\]$"):
        open_dataset("hf:t", columns=["ok"]).batch(np.array([-1]))


def test_a_saved_data_set_keeps_values_and_shapes(datasets: Any) -> None:
    features = datasets.Features(
        {"x": datasets.Value("float64"), "k": datasets.Value("uint64"), "a": datasets.Array2D((2, 3), "float32")}
    )
    columns = {"x": [1 / 3, 2.0], "k": [2**63 - 1, 2**53 + 1], "a": [[[1, 2, 3], [4, 5, 6]]] * 2}
    datasets.Dataset.from_dict(columns, features=features).save_to_disk("t")
    batch = open_dataset("hf:t", dtype="float64").batch(np.array([1, 0]))
    assert batch["x"].tolist() == [2.0, 1 / 3]
    assert batch["k"].tolist() == [2**53 + 1, 2**63 - 1]
    assert batch["a"].tolist() == [[[1, 2, 3], [4, 5, 6]]] * 2


def test_a_saved_value_that_does_not_fit_is_refused(datasets: Any) -> None:
    datasets.Dataset.from_dict({"v": [[1, 2]] * 1001 + [[3, None]], "x": [0.0] * 1001 + [1e39]}).save_to_disk("t")
    refused("column 'v' of data 'hf:t' has no value in a list at index 1001", "hf:t", columns=["v"])
    refused("column 'x' of data 'hf:t', index 1001: 1e+39 does not fit float32", "hf:t", columns=["x"])
    datasets.Dataset(pa.table({"k": pa.array([0, 2**63], pa.uint64())})).save_to_disk("k")
    refused("column 'k' of data 'hf:k', index 1: 9223372036854775808 does not fit int64", "hf:k")
