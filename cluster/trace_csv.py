"""Reads and writes delays as CSV: a column for each worker, a row for each invocation, in seconds.

A first line without a number is a header of names. An empty cell, NaN or inf is a lost invocation.
"""

import csv
import re
from pathlib import Path

import numpy as np

SUFFIX = ".csv"
# Digits of ASCII, or a word for a lost invocation: float() would also take 1_0, and digits of other scripts.
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
LOST = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
# Characters of a cell that a message repeats.
LONGEST = 100


def is_csv(path: Path) -> bool:
    """Whether a path names a CSV file."""
    return path.suffix.lower() == SUFFIX


def read_times(path: Path) -> np.ndarray:
    """(rounds, workers) float64: the seconds in a CSV file, NaN where the invocation is lost.

    ValueError, naming line and column, for a cell that is not a number of seconds; OSError if the file cannot be read.
    """
    # utf-8-sig, because spreadsheets write a byte order mark.
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        try:
            lines = [(reader.line_num, cells) for cells in reader]
        except csv.Error as error:
            raise ValueError(f"line {reader.line_num}: {error}") from None
    # Blank lines at the end are an editor's; elsewhere one could be a lost row, and is refused.
    while lines and not lines[-1][1]:
        lines.pop()
    if lines and not any(_is_number(cell) for cell in lines[0][1]) and any(lines[0][1]):
        _check_header(*lines.pop(0))
    if not lines:
        raise ValueError("the file has no row of seconds")
    workers = len(lines[0][1])
    return np.array([_row(number, cells, workers) for number, cells in lines])


def csv_bytes(times: np.ndarray) -> bytes:
    """CSV that `read_times` reads back: seconds (rounds, workers) under a header of workers; lost invocations are "nan"."""
    # repr, the shortest text that gives the same float64 again.
    header = ",".join(f"worker {i}" for i in range(times.shape[1]))
    rows = [",".join(repr(s) if np.isfinite(s) else "nan" for s in row) for row in times.tolist()]
    return "\n".join([header, *rows, ""]).encode()


def _check_header(number: int, names: list[str]) -> None:
    if "" in (name.strip() for name in names):
        column = [name.strip() for name in names].index("") + 1
        raise ValueError(f"line {number}, column {column}: the header has no name here; remove a column of row numbers")


def _row(number: int, cells: list[str], workers: int) -> list[float]:
    if not cells:
        raise ValueError(f"line {number} is blank; write nan for a lost invocation")
    if len(cells) != workers:
        raise ValueError(f"line {number} has {len(cells)} columns, but the first row has {workers}")
    return [_seconds(number, column, cell) for column, cell in enumerate(cells, 1)]


def _seconds(number: int, column: int, cell: str) -> float:
    if not cell.strip():
        return np.nan
    if not _is_number(cell):
        raise ValueError(f"line {number}, column {column}: {_shortened(cell)!r} is not a number of seconds")
    seconds = float(cell)
    if seconds < 0:
        raise ValueError(f"line {number}, column {column}: {_shortened(cell)} seconds are negative")
    if np.isinf(seconds) and not LOST.fullmatch(cell.strip()):
        raise ValueError(
            f"line {number}, column {column}: {_shortened(cell)} does not fit float64; write inf if it is lost"
        )
    return seconds


def _is_number(cell: str) -> bool:
    text = cell.strip()
    return bool(NUMBER.fullmatch(text) or LOST.fullmatch(text))


def _shortened(cell: str) -> str:
    """A cell as far as a message repeats it."""
    text = cell.strip()
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
