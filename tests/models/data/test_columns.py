"""Files of numbers become datasets whose samples are rows, and every mistake in one is named in one line."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distseq.models.data.columns import Columns
from distseq.models.data.dataset import open_dataset


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(message: str, spec: str, **args: Any) -> None:
    """Opening fails with one line that begins so."""
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole beginning is compared
        open_dataset(spec, **args)
    assert str(error.value).startswith(message), error.value
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("shape", [(1,), (7,), (5, 3), (3, 0), (2, 1, 4, 3)])
@pytest.mark.parametrize(
    ("kind", "tensor"),
    [
        ("f2", torch.float32),
        (">f8", torch.float32),
        ("i1", torch.int64),
        ("u4", torch.int64),
        (">i8", torch.int64),
        ("?", torch.bool),
    ],
)
def test_a_sample_is_a_row_of_each_array(shape: tuple[int, ...], kind: str, tensor: torch.dtype) -> None:
    x = (np.arange(np.prod(shape)).reshape(shape) * 3 % 5).astype(kind)
    np.savez("a.npz", x=x, row=np.arange(shape[0]))
    data = open_dataset("arrays:a.npz")
    ids = np.arange(len(data))[::-1].repeat(2)
    batch = data.batch(ids)
    assert len(data) == shape[0]
    assert batch["x"].dtype == tensor
    np.testing.assert_array_equal(batch["x"], x[ids])
    np.testing.assert_array_equal(batch["row"], ids)


def test_a_batch_of_no_samples_keeps_its_shape() -> None:
    data = Columns("x", {"x": np.ones((4, 3))})
    assert data.batch(np.array([], np.int64))["x"].shape == (0, 3)


def test_a_batch_owns_its_memory() -> None:
    data = Columns("x", {"x": np.ones(4, np.float32)})
    data.batch(np.arange(4))["x"].zero_()
    assert data.batch(np.arange(4))["x"].sum() == 4


def test_floats_are_float64_where_that_is_asked_for() -> None:
    np.savez("a.npz", x=np.array([0.1, 1 / 3]))
    data = open_dataset("arrays:a.npz", dtype="float64")
    np.testing.assert_array_equal(data.batch(np.arange(2))["x"], np.array([0.1, 1 / 3]))
    assert data.fingerprint != open_dataset("arrays:a.npz").fingerprint
    refused("data 'arrays:a.npz': dtype must be one of float32, float64: got 'half'", "arrays:a.npz", dtype="half")


@given(st.lists(st.integers(0, 3), min_size=1, max_size=6), st.data())
def test_the_fingerprint_tells_values_names_types_and_shapes_apart(values: list[int], draw: st.DataObject) -> None:
    x = np.array(values)
    first = Columns("a", {"x": x, "y": x}).fingerprint
    assert first == Columns("elsewhere", {"y": x.copy(), "x": x}).fingerprint
    k = draw.draw(st.integers(0, len(values) - 1))
    other = x.copy()
    other[k] += 1
    changes = ({"x": other, "y": x}, {"x": x, "y": other}, {"x": x}, {"x": x, "z": x}, {"x": x * 1.0, "y": x})
    reshaped = {"x": x[:, None], "y": x}
    assert len({first, *(Columns("a", change).fingerprint for change in (*changes, reshaped))}) == 7


@pytest.mark.parametrize("index", [-1, 4])
def test_an_id_outside_is_refused(index: int) -> None:
    with pytest.raises(ValueError, match=rf"^sample ids of data 'x' must be in 0 \.\. 3: got \[{index}\]$"):
        Columns("x", {"x": np.ones(4)}).batch(np.array([1, index]))


def test_a_wrong_npz_is_named_in_one_line() -> None:
    refused("can't read data 'arrays:gone.npz': No such file or directory", "arrays:gone.npz")
    refused("can't read data 'arrays:.': Is a directory", "arrays:.")
    np.save("single.npy", np.ones(3))
    for name, content in (("text.npz", b"hello"), ("empty.npz", b""), ("cut.npz", b"PK\x03\x04...")):
        Path(name).write_bytes(content)
        refused(f"can't read data 'arrays:{name}': it is not an .npz file", f"arrays:{name}")
    refused(
        "can't read data 'arrays:single.npy': the file holds a single array, not an .npz archive", "arrays:single.npy"
    )
    np.savez("flipped.npz", x=np.arange(100))
    content = bytearray(Path("flipped.npz").read_bytes())
    content[-300] ^= 1
    Path("flipped.npz").write_bytes(content)
    refused("can't read data 'arrays:flipped.npz': BadZipFile: Bad CRC-32 for file 'x.npy'", "arrays:flipped.npz")
    with zipfile.ZipFile("other.npz", "w") as file:
        file.writestr("note.txt", "hello")
    refused("can't read data 'arrays:other.npz': member 'note.txt' is not an array", "arrays:other.npz")
    np.savez("none.npz")
    refused("data 'arrays:none.npz' has no columns", "arrays:none.npz")
    np.savez("uneven.npz", x=np.ones((3, 2)), y=np.ones(4))
    refused("columns of data 'arrays:uneven.npz' must have equal lengths: got {'x': 3, 'y': 4}", "arrays:uneven.npz")
    np.savez("zero.npz", x=np.ones(()))
    refused("column 'x' of data 'arrays:zero.npz' must be an array with rows: got a single number", "arrays:zero.npz")
    for kind in ("U3", "c16", "M8[s]", "longdouble"):
        np.savez("kind.npz", x=np.zeros(2, kind))
        refused("column 'x' of data 'arrays:kind.npz' must hold numbers of at most 64 bits: got ", "arrays:kind.npz")
    np.savez("pickled.npz", x=np.array([None]))
    refused(
        "can't read data 'arrays:pickled.npz': Object arrays cannot be loaded: array 'x' holds", "arrays:pickled.npz"
    )


def test_a_number_that_does_not_fit_is_refused_with_its_row() -> None:
    np.savez("a.npz", x=np.array([[0, 1], [2, -1e39]]), k=np.array([1, 2**63], np.uint64))
    refused(
        "column 'x' of data 'arrays:a.npz', index 1: -1e+39 does not fit float32, whose largest is 3.4", "arrays:a.npz"
    )
    refused(
        "column 'k' of data 'arrays:a.npz', index 1: 9223372036854775808 does not fit int64",
        "arrays:a.npz",
        dtype="float64",
    )
    np.savez("a.npz", x=np.array([1.0, np.inf, np.nan]), k=np.array([1, 2, 2**63 - 1], np.uint64))
    assert open_dataset("arrays:a.npz").batch(np.arange(3))["k"].tolist() == [1, 2, 2**63 - 1]


CSV = 'a,"b, c", y\n1,-2.5,0\n\n3e2,"4",1\n0.5, 7 ,2'


def test_a_csv_file_becomes_inputs_and_targets() -> None:
    Path("t.csv").write_text("\ufeff" + CSV, encoding="utf-8")
    batch = open_dataset("csv:t.csv", target="y").batch(np.array([2, 0]))
    assert batch["inputs"].tolist() == [[0.5, 7], [1, -2.5]]
    assert batch["targets"].tolist() == [2, 0]
    assert batch["inputs"].dtype == batch["targets"].dtype == torch.float32
    classes = open_dataset("csv:t.csv", target="y", classes=True, columns=["b, c"]).batch(np.array([1]))
    assert classes["targets"].dtype == torch.int64
    assert classes["inputs"].tolist() == [[4]]
    assert open_dataset("csv:t.csv").batch(np.arange(3))["inputs"].shape == (3, 3)


def test_only_the_columns_asked_for_must_be_numbers() -> None:
    Path("t.csv").write_text("name;x\nann;1\nbob;2\n")
    assert len(open_dataset("csv:t.csv", columns=["x"], delimiter=";")) == 2
    refused("data 'csv:t.csv' row 1 (line 2), column 'name': 'ann' is not a finite number", "csv:t.csv", delimiter=";")


@pytest.mark.parametrize(
    ("content", "args", "message"),
    [
        ("a,y\n1,2\n\n3,\n", {}, "data 'csv:t.csv' row 2 (line 4), column 'y': '' is not a finite number"),
        ("a,y\n1,2\nx,3\n", {}, "data 'csv:t.csv' row 2 (line 3), column 'a': 'x' is not a finite number"),
        ("a,y\n1,nan\n", {}, "data 'csv:t.csv' row 1 (line 2), column 'y': 'nan' is not a finite number"),
        ("a,y\n1,inf\n", {}, "data 'csv:t.csv' row 1 (line 2), column 'y': 'inf' is not a finite number"),
        ("a,y\n1,2\n1\n", {}, "data 'csv:t.csv' row 2 (line 3) has 1 cells, but the header has 2"),
        ("a,y\n1,2,3\n", {}, "data 'csv:t.csv' row 1 (line 2) has 3 cells, but the header has 2"),
        (
            "a,y\n1,0.5\n",
            {"target": "y", "classes": True},
            "data 'csv:t.csv' row 1 (line 2), column 'y': '0.5' is not a whole number",
        ),
        ("1,2\n3,4\n", {}, "data 'csv:t.csv' must begin with a header line of distinct column names: got '1'"),
        ("a,a\n3,4\n", {}, "data 'csv:t.csv' must begin with a header line of distinct column names: got 'a'"),
        ("a,\n3,4\n", {}, "data 'csv:t.csv' must begin with a header line of distinct column names: got ''"),
        ("", {}, "data 'csv:t.csv' must begin with a header line of column names: it is empty"),
        ("a,y\n1,2\n", {"target": "z"}, "data 'csv:t.csv' has no column 'z'; known: a, y"),
        ("a,y\n1,2\n", {"columns": ["b"]}, "data 'csv:t.csv' has no column 'b'; known: a, y"),
        ("a,y\n1,2\n", {"delimiter": ";;"}, "data 'csv:t.csv' is not valid CSV: "),
        ("a,y\n1,2\n", {"dtype": "int8"}, "data 'csv:t.csv': dtype must be one of "),
        ("y\n1\n", {"target": "y"}, "data 'csv:t.csv' has no column besides the target 'y'"),
        ("a\n1\n", {"classes": True}, "data 'csv:t.csv': classes needs a target"),
    ],
)
def test_a_wrong_csv_file_is_named_in_one_line(content: str, args: dict[str, Any], message: str) -> None:
    Path("t.csv").write_text(content)
    refused(message, "csv:t.csv", **args)


def test_a_csv_file_that_cannot_be_read_is_named() -> None:
    refused("can't read data 'csv:gone.csv': No such file or directory", "csv:gone.csv")
    Path("latin.csv").write_bytes(b"gr\xf6\xdfe\n1\n")
    refused("data 'csv:latin.csv' is not valid CSV: ", "csv:latin.csv")


def test_a_csv_file_without_rows_has_no_samples() -> None:
    Path("t.csv").write_text("a,y\n")
    assert len(open_dataset("csv:t.csv", target="y")) == 0
