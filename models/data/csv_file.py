"""`csv:FILE`: a table of numbers with a header line; sample i is row i."""

import csv
import math
from array import array
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from distseq.models.data.columns import Columns, check_dtype, choose

if TYPE_CHECKING:
    from _csv import Reader


def open_csv(
    path: str,
    target: str | None = None,
    columns: list[str] | None = None,
    classes: bool = False,
    delimiter: str = ",",
    dtype: str = "float32",
) -> Columns:
    """Batches of `inputs` (B, F) and, if there is a `target` column, `targets` (B,), int64 if they are `classes`.

    `columns` of the inputs: by default all but the target. ValueError, naming row (1 is the first below the header), line and
    column, for a cell that is not a finite number.
    """
    spec = f"csv:{path}"
    check_dtype(spec, dtype)
    if classes and target is None:
        raise ValueError(f"data {spec!r}: classes needs a target")
    try:
        # utf-8-sig, because spreadsheets put a byte order mark before the first column's name.
        with open(path, encoding="utf-8-sig", newline="") as file:
            table = _read(spec, csv.reader(file, delimiter=delimiter), target, columns)
    except OSError as error:
        raise ValueError(f"can't read data {spec!r}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error, TypeError) as error:
        raise ValueError(f"data {spec!r} is not valid CSV: {error}") from None
    if target is None:
        return Columns(spec, {"inputs": table}, dtype)
    targets = table[:, -1]
    if classes and (targets != np.round(targets)).any():
        row = int(np.flatnonzero(targets != np.round(targets))[0])
        raise ValueError(f"data {spec!r} row {row + 1}, column {target!r}: {targets[row]} is not a whole number")
    return Columns(spec, {"inputs": table[:, :-1], "targets": targets.astype(np.int64) if classes else targets}, dtype)


def _read(spec: str, lines: "Reader", target: str | None, columns: list[str] | None) -> np.ndarray:
    """(rows, columns) float64: the values of the selected columns, with the target last."""
    header = _header(spec, next(lines, []))
    wanted = choose(spec, header, columns)
    if target is not None:
        choose(spec, header, [target])
        wanted = [*(name for name in wanted if name != target), target]
        if len(wanted) == 1:
            raise ValueError(f"data {spec!r} has no column besides the target {target!r}")
    places = [header.index(name) for name in wanted]
    # Eight bytes for each number; a list of Python floats would take 32.
    values = array("d")
    for row, cells in _rows(lines):
        where = f"data {spec!r} row {row} (line {lines.line_num})"
        if len(cells) != len(header):
            raise ValueError(f"{where} has {len(cells)} cells, but the header has {len(header)}")
        values.extend(_number(cells[k], f"{where}, column {header[k]!r}") for k in places)
    return np.array(values).reshape(-1, len(wanted))


def _header(spec: str, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    if not names:
        raise ValueError(f"data {spec!r} must begin with a header line of column names: it is empty")
    # A name that is a number means that the file has no header, and that its first sample would be lost.
    for name in names:
        if not name or _is_number(name) or names.count(name) > 1:
            raise ValueError(f"data {spec!r} must begin with a header line of distinct column names: got {name!r}")
    return names


def _rows(lines: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    """(number, cells) of each line that is not blank, counting from 1."""
    return enumerate((cells for cells in lines if cells), 1)


def _number(cell: str, where: str) -> float:
    if not _is_number(cell) or not math.isfinite(float(cell)):
        raise ValueError(f"{where}: {cell!r} is not a finite number")
    return float(cell)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
