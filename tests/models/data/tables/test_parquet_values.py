"""A column of a Parquet file keeps its values and shape, or is refused with its name and row."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from distseq.models.data.dataset import open_dataset
from distseq.models.data.tables import parquet as reader


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(**columns: Any) -> None:
    parquet.write_table(pa.table(columns), "t", row_group_size=2)


def read(**columns: Any) -> dict[str, torch.Tensor]:
    written(**columns)
    data = open_dataset("parquet:t", dtype="float64")
    return data.batch(np.arange(len(data)))


def refused(message: str, **columns: Any) -> None:
    written(**columns)
    with pytest.raises(ValueError, match=message) as error:
        open_dataset("parquet:t")
    assert "'parquet:t'" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", [pa.int8(), pa.int64(), pa.uint32(), pa.uint64()])
def test_whole_numbers_stay_whole_and_exact(kind: pa.DataType) -> None:
    largest = min(np.iinfo(kind.to_pandas_dtype()).max, 2**63 - 1)
    x = read(x=pa.array([0, largest, largest - 1], kind))["x"]
    assert x.dtype == torch.int64
    assert x.tolist() == [0, largest, largest - 1]


def test_a_whole_number_beyond_int64_is_refused() -> None:
    refused(
        r"column 'x' of data 'parquet:t', index 2: 9223372036854775808 does not fit int64",
        x=pa.array([0, 1, 2**63], pa.uint64()),
    )


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64()])
def test_floats_keep_their_values(kind: pa.DataType) -> None:
    values = [0.5, -1.25, float("inf"), float("nan")]
    np.testing.assert_array_equal(read(x=pa.array(values, kind))["x"], values)


def test_a_float_that_becomes_infinite_in_float32_is_refused() -> None:
    message = (
        r"column 'v' .*, index 1: -1e\+39 does not fit float32, whose largest is 3.4.*; dtype = \"float64\" holds it$"
    )
    refused(message, v=pa.array([[1.0, 2.0], [3.0, -1e39]]))
    assert read(v=pa.array([[1.0, 2.0], [3.0, -1e39]]))["v"][1, 1] == -1e39


@pytest.mark.parametrize("kind", [pa.list_(pa.int64()), pa.list_(pa.int64(), 2), pa.large_list(pa.int64())])
def test_lists_are_rows_of_an_array(kind: pa.DataType) -> None:
    x = read(x=pa.array([[1, 2], [3, 4], [5, 2**60 + 1]], kind))["x"]
    assert x.dtype == torch.int64
    assert x.tolist() == [[1, 2], [3, 4], [5, 2**60 + 1]]


def test_lists_of_lists_keep_their_shape() -> None:
    x = read(x=pa.array([[[1, 2], [3, 4], [5, 6]]] * 3))["x"]
    assert x.shape == (3, 3, 2)
    assert x[0].tolist() == [[1, 2], [3, 4], [5, 6]]
    refused(r"lists in column 'x' .* equal lengths: got 2 and, at index 1, 1$", x=pa.array([[[1, 2]], [[3]]]))
    refused(r"lists in column 'x' .* equal lengths: got 1 and, at index 2, 3$", x=pa.array([[1], [2], [3, 4, 5]]))


@pytest.mark.parametrize("permutation", [None, [1, 0]])
def test_tensors_keep_their_shape(permutation: list[int] | None) -> None:
    kind = pa.fixed_shape_tensor(pa.float32(), [2, 3], permutation=permutation)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(18, dtype="f4")), 6)
    x = read(x=pa.ExtensionArray.from_storage(kind, flat))["x"]
    stored = np.arange(18).reshape(3, 2, 3)
    np.testing.assert_array_equal(x, stored if permutation is None else stored.transpose(0, 2, 1))


def test_a_dictionary_of_numbers_is_its_numbers() -> None:
    assert read(x=pa.array([7, 5, 7, 9]).dictionary_encode())["x"].tolist() == [7, 5, 7, 9]
    refused(
        r"column 'x' .* must hold numbers.*got string: write numbers, such as the code",
        x=pa.array(["a", "b"]).dictionary_encode(),
    )
    refused(r"no value at index 1$", x=pa.DictionaryArray.from_arrays(pa.array([0, None]), pa.array([3, 4])))


@pytest.mark.parametrize(
    ("column", "index"),
    [
        (pa.array([1, 2, None]), " at index 2"),
        (pa.array([1.0, None, 2.0]), " at index 1"),
        (pa.array([True, None]), " at index 1"),
        (pa.array([None, None]), " at index 0"),
        (pa.array([[1], None, [2]]), " at index 1"),
        (pa.array([[1, 2], [3, 4], [5, None]]), " in a list at index 2"),
        (pa.array([[1, 2], [3, None]], pa.list_(pa.int32(), 2)), " in a list at index 1"),
        (pa.array([[[1, 2], [3, 4]], [[5, 6], [None, 8]]]), " in a list at index 1"),
        (pa.array([[[1, 2], [3, 4]], [None, [5, 6]]]), " in a list at index 1"),
    ],
)
def test_a_missing_value_is_refused_also_in_a_list(column: pa.Array, index: str) -> None:
    refused(rf"^column 'x' of data 'parquet:t' has no value{index}$", x=column)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            pa.array([Decimal("1.10")]),
            r"got decimal128\(3, 2\): write it as float64, or as int64 in the smallest unit$",
        ),
        (pa.array([0], pa.timestamp("us")), r"got timestamp\[us\]: write the seconds as numbers$"),
        (pa.array([0], pa.date32()), r"got date32\[day\]: write the seconds as numbers$"),
        (pa.array([0], pa.duration("s")), r"got duration\[s\]: write the seconds"),
        (pa.array(["1"]), r"got string: write numbers, such as the code of each category$"),
        (pa.array([["1"]]), r"got string: "),
        (pa.array([b"1"]), r"got binary$"),
        (pa.array([{"a": 1}]), r"got struct<a: int64>: write its fields as columns of their own$"),
        (pa.array([[{"a": 1}]]), r"got struct<"),
        (pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())), r"got map<"),
    ],
)
def test_what_is_no_number_is_refused_with_a_way_out(column: pa.Array, message: str) -> None:
    refused(
        rf"^column 'x' of data 'parquet:t' must hold numbers, or lists of numbers, of at most 64 bits: {message}",
        x=column,
    )


def test_only_the_columns_asked_for_must_be_numbers_and_a_dot_is_part_of_a_name() -> None:
    written(**{"a": ["x", "y"], "a.b": [1, 2]})
    assert open_dataset("parquet:t", columns=["a.b"]).batch(np.array([1]))["a.b"].tolist() == [2]


def test_two_columns_of_one_name_are_refused() -> None:
    parquet.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"]), "t")
    with pytest.raises(ValueError, match=r"^data 'parquet:t' has 2 columns 'x'$"):
        open_dataset("parquet:t")


def test_a_file_without_rows_keeps_its_columns() -> None:
    x = read(x=pa.array([], pa.list_(pa.float32(), 3)), k=pa.array([], pa.int16()))
    assert x["x"].shape == (0, 3)
    assert x["k"].dtype == torch.int64


def test_many_batches_are_one_column(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "BATCH_ROWS", 7)
    values = np.arange(300).reshape(100, 3)
    parquet.write_table(pa.table({"x": values.tolist()}), "t", row_group_size=33)
    np.testing.assert_array_equal(open_dataset("parquet:t").batch(np.arange(100))["x"], values)
    parquet.write_table(pa.table({"x": [[1]] * 50 + [[2, 3]] + [[4]] * 50}), "t", row_group_size=33)
    with pytest.raises(ValueError, match=r"equal lengths: got 1 and, at index 50, 2$"):
        open_dataset("parquet:t")


def test_a_damaged_page_is_refused_where_the_file_has_checksums() -> None:
    parquet.write_table(
        pa.table({"x": np.arange(100)}), "t", write_page_checksum=True, use_dictionary=False, compression="none"
    )
    content = bytearray(Path("t").read_bytes())
    content[content.index(np.arange(100).tobytes()) + 80] ^= 1
    Path("t").write_bytes(content)
    with pytest.raises(ValueError, match=r"^can't read data 'parquet:t': .*CRC"):
        open_dataset("parquet:t")
