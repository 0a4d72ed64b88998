"""A number in a CSV file is read as it stands there, or refused with its row, line and column."""

import csv
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from distseq.models.data.dataset import open_dataset
from distseq.models.data.tables import csv_table


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(text: str | bytes, message: str, **args: Any) -> None:
    Path("t.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message) as error:
        open_dataset("csv:t.csv", **args)
    assert "'csv:t.csv'" in str(error.value)
    assert "\n" not in str(error.value)


def read(text: str | bytes, **args: Any) -> dict[str, torch.Tensor]:
    Path("t.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    data = open_dataset("csv:t.csv", **args)
    return data.batch(np.arange(len(data)))


REFUSED = (
    "1_1 0x10 nan NaN -inf Infinity NA null None true 2024-01-31 12:00 1e 1e5.0 1'000 --1 1- $5 5% 1d3 ٣ １ nan(1) 1e400 1,5 "
    "1,000 1.000,5"
)


@pytest.mark.parametrize("cell", ["", " ", "1 000", "1\0", *REFUSED.split()])
def test_a_cell_that_is_no_plain_number_is_refused_with_its_place(cell: str) -> None:
    where = rf"^data 'csv:t.csv' row 2 \(line 3\), column 'y': {re.escape(repr(cell))} is not a finite number$"
    refused(f'x;y\n1;2\n3;"{cell}"\n', where, delimiter=";")


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("1", 1),
        ("+5", 5),
        ("1.", 1),
        (".5", 0.5),
        (" 7 ", 7),
        ("-0", -0.0),
        ("1E-3", 1e-3),
        ("\t2", 2),
        ("007", 7),
        ("1e-400", 0),
    ],
)
def test_a_plain_number_is_read(cell: str, value: float) -> None:
    for text in (cell, f'"{cell}"'):
        got = read(f"x,y\n{text},0.5\n", dtype="float64")["inputs"][0, 0].item()
        assert got == value
        assert math.copysign(1, got) == math.copysign(1, value)


@pytest.mark.parametrize("ids", [(2**53 + 1, 2**53 + 3), (2**63 - 1, -(2**63)), (-(2**53) - 1, 1), (10**18 + 1, 7)])
def test_an_id_is_exact_as_a_class_and_refused_as_a_float(ids: tuple[int, int]) -> None:
    text = f"x,id\n0.5,{ids[0]}\n1.5,{ids[1]}\n"
    assert read(text, target="id", classes=True)["targets"].tolist() == list(ids)
    for dtype in ("float32", "float64"):
        refused(
            text, rf"row 1 \(line 2\), column 'id': '{ids[0]}' is a whole number that float64 would round", dtype=dtype
        )
        refused(text, r"column 'id': .* would round to another; classes = true holds it$", dtype=dtype, target="id")


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 2**64 - 1, 10**30])
def test_a_class_outside_int64_is_refused(number: int) -> None:
    text = f"x,id\n0.5,1\n1.5,{number}\n"
    refused(text, rf"row 2 \(line 3\), column 'id': '{number}' does not fit int64$", target="id", classes=True)


def test_a_class_may_be_written_as_a_whole_float() -> None:
    assert read("x,c\n0,3.0\n1,1e2\n2,-100\n", target="c", classes=True)["targets"].tolist() == [3, 100, -100]
    large = "x,c\n0,9007199254740993.0\n1,9.007199254740993e15\n2,-9223372036854775807e0\n"
    assert read(large, target="c", classes=True)["targets"].tolist() == [2**53 + 1, 2**53 + 1, -(2**63) + 1]
    refused("x,c\n0,9007199254740993.5\n", r"'9007199254740993.5' is not a whole number$", target="c", classes=True)
    refused("x,c\n0,1e300\n", r"'1e300' does not fit int64$", target="c", classes=True)
    refused(
        "x,c\n0,3\n1,0.5\n", r"row 2 \(line 3\), column 'c': '0.5' is not a whole number$", target="c", classes=True
    )


def test_a_whole_number_that_float32_rounds_is_refused_in_a_column_of_whole_numbers() -> None:
    ids = "x,id\n0.5,3\n0.5,16777217\n"
    refused(
        ids,
        r"row 2 \(line 3\), column 'id': '16777217' is a whole number that float32 would round .* dtype = \"float64\"$",
    )
    assert read(ids, dtype="float64")["inputs"][:, 1].tolist() == [3, 16777217]
    # A column of measurements is rounded as all its numbers are; so is a float that is written as one.
    for other in ("0.25", "1e-3"):
        assert read(f"id\n{other}\n16777217\n")["inputs"][1, 0].item() == 16777216
    assert read("id\n3.0\n16777217.0\n")["inputs"][1, 0].item() == 16777216
    assert read("id\n16777216\n16777218\n")["inputs"].flatten().tolist() == [16777216, 16777218]


def test_a_number_that_becomes_infinite_in_float32_is_refused() -> None:
    for column in ({}, {"target": "y"}):
        refused(
            "x,y\n1,0.5\n2,-1e39\n", r"row 2 \(line 3\), column 'y': '-1e39' does not fit float32.*float64", **column
        )
    assert read("x,y\n1,1e39\n", dtype="float64")["inputs"].tolist() == [[1, 1e39]]
    # Just above the largest float32, and rounded to it.
    assert read("x\n3.4028235e38\n")["inputs"].isfinite().all()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_line_ends_and_a_byte_order_mark_change_nothing(end: str, mark: bytes) -> None:
    text = mark + end.join(["a,y", "1,2", "", "3,4"]).encode()
    assert read(text)["inputs"].tolist() == [[1, 2], [3, 4]]
    refused(text + f"{end}5,x{end}".encode(), r"row 3 \(line 5\), column 'y': 'x' is not a finite number$")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b,\n1,2,\n", r"header line of distinct column names: got '' \(an index that pandas wrote, or a del"),
        ("a,b\n1,2,\n", r"row 1 \(line 2\) has 3 cells, but the header has 2$"),
        ("a,b\n1,2\n3,4\n5\n6,7\n", r"row 3 \(line 4\) has 1 cells, but the header has 2$"),
        ("a,b\n1,000,2\n", r"row 1 \(line 2\) has 3 cells"),
        ('a,b\n"1,2\n3,4\n', r"row 1 \(line 3\) has 1 cells"),
        (" a,a \n1,2\n", r"distinct column names: got 'a'$"),
        ("0.1,2e3\n1,2\n", r"header line of distinct column names: got '0.1'$"),
        ("nan,b\n1,2\n", r"header line of distinct column names: got 'nan'$"),
        ("a,-inf\n1,2\n", r"header line of distinct column names: got '-inf'$"),
        ("\na,b\n1,2\n", r"must begin with a header line of column names: it is empty$"),
        ("a,b\n1,2\n".encode("utf-16"), r"is not valid CSV: Error: its header is not UTF-8 text$"),
        (b"gr\xf6sse,b\n1,2\n", r"is not valid CSV: Error: its header is not UTF-8 text$"),
        (b"a,b\n1,\xff\n", r"row 1 \(line 2\), column 'b': '\ufffd' is not a finite number$"),
    ],
)
def test_a_table_of_another_form_is_refused_with_its_line(text: str | bytes, message: str) -> None:
    refused(text, message)


def test_a_line_number_is_that_of_an_editor_behind_blank_lines_and_quoted_line_ends() -> None:
    assert read('s,x\n"two\nlines",1\n\nb,2\n', columns=["x"])["inputs"].tolist() == [[1], [2]]
    refused('s,x\n"two\nlines",1\n\nb,x\n', r"row 2 \(line 5\), column 'x'", columns=["x"])


def test_a_table_may_be_wide() -> None:
    names = [f"a rather long name of a column with number {k}" for k in range(20_000)]
    wide = read("\n".join([",".join(names), *(",".join([f"{row}.123456789012345"] * len(names)) for row in range(2))]))
    assert wide["inputs"].shape == (2, 20_000)
    assert wide["inputs"][1].min() > 1.1


def test_a_name_with_an_underscore_between_digits_is_a_name() -> None:
    assert read("2020_01,0x1\n1,2\n")["inputs"].tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"columns": "a"}, r"columns must be a list of names: got 'a'$"),
        ({"columns": []}, r"columns must be a list of names: got \[\]$"),
        ({"delimiter": ""}, r"delimiter must be one ASCII character: got ''$"),
        ({"delimiter": "§"}, r"delimiter must be one ASCII character"),
        ({"delimiter": '"'}, r"delimiter must be one ASCII character"),
        ({"delimiter": 5}, r"delimiter must be one ASCII character: got 5$"),
        ({"target": 5}, r"has no column 5; known: a, y$"),
        ({"target": "y", "classes": "false"}, r"classes must be true or false: got 'false'$"),
        ({"target": "y", "classes": 1}, r"classes must be true or false: got 1$"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(args: dict[str, Any], message: str) -> None:
    refused("a,y\n1,2\n", message, **args)


def test_mistakes_beyond_the_first_block_have_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_table, "BLOCK", 200)
    monkeypatch.setattr(csv_table, "LINE", 200)
    lines = [f"{k},{k / 4}" for k in range(1000)]
    assert read("\n".join(["a,y", *lines]))["inputs"].tolist() == [[k, k / 4] for k in range(1000)]
    lines[777] = "777,oh"
    refused("\n".join(["a,y", *lines]), r"row 778 \(line 779\), column 'y': 'oh' is not a finite number$")
    lines[777] = "777"
    refused("\n".join(["a,y", *lines]), r"row 778 \(line 779\) has 1 cells")
    refused("a,y\n1," + "1" * 1000, r"is not valid CSV: .* a line is longer than 200 characters$")


PLAIN = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def plainly(text: str) -> list[list[float]] | None:
    """What a file of columns a and b holds, read by the csv module and float(); None if it must be refused."""
    rows = [cells for cells in csv.reader(text.splitlines(keepends=True)) if cells][1:]
    if any(len(cells) != 2 for cells in rows):
        return None
    cells = [cell.strip(" \t\r\n\f\v") for row in rows for cell in row]
    if any(not PLAIN.fullmatch(cell) or not math.isfinite(float(cell)) for cell in cells):
        return None
    if any(re.fullmatch(r"[+-]?[0-9]+", cell) and int(cell) != float(cell) for cell in cells):
        return None
    return [[float(cell) for cell in row] for row in rows]


CELLS = st.one_of(
    st.integers(-(2**66), 2**66).map(str),
    st.floats().map(repr),
    st.text("0123456789.eE+-_ xna", max_size=6),
    st.sampled_from(['"1"', '"1', '1"', '""', '"2""', "", '"3\n"', "1,2"]),
)


@settings(max_examples=150, deadline=None)
@example([["9007199254740993", "1"]], "\n", True)
@example([["1", "-0.0"], ["", "2"]], "\r\n", False)
@given(
    st.lists(st.lists(CELLS, min_size=1, max_size=3), max_size=4),
    st.sampled_from(["\n", "\r\n", "\n\n"]),
    st.booleans(),
)
def test_a_file_is_read_as_the_csv_module_and_float_read_it_or_refused(
    rows: list[list[str]], end: str, last: bool
) -> None:
    text = end.join(["a,b", *map(",".join, rows)]) + (end if last else "")
    Path("t.csv").write_text(text, newline="")
    expected = plainly(text)
    if expected is None:
        with pytest.raises(ValueError, match=r"^data 'csv:t\.csv' "):
            open_dataset("csv:t.csv", dtype="float64")
    else:
        data = open_dataset("csv:t.csv", dtype="float64")
        got = data.batch(np.arange(len(data)))["inputs"].numpy()
        assert got.tobytes() == np.array(expected).reshape(-1, 2).tobytes()


def test_the_fingerprint_is_the_same_as_ever() -> None:
    """Taken before the readers stood on Arrow: a run is resumed only with data of the same fingerprint."""
    text = '\ufeffa,"b, c", y\n1,-2.5,0\n\n3e2,"4",1\n0.5, 7 ,2'
    Path("t.csv").write_text(text, encoding="utf-8")
    assert {
        name: open_dataset("csv:t.csv", **args).fingerprint[:16]
        for name, args in {
            "all": {},
            "target": {"target": "y"},
            "classes": {"target": "y", "classes": True, "dtype": "float64"},
        }.items()
    } == FINGERPRINTS


FINGERPRINTS = {"all": "f5ca079a37649786", "target": "4b34cf6e0c8b5726", "classes": "4ef2aba48c365669"}
