"""A data set of named arrays of equal length, which converts only the rows that are requested."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from distseq.models.data.dataset import check_ids

if TYPE_CHECKING:
    import torch

FLOATS = ("float32", "float64")
# Bytes of rows that are looked at together: what checks and hashes need beside the data.
BLOCK = 1 << 22


class Columns:
    """Sample i is row i of every array. Floats become `dtype`, integers int64; booleans stay.

    ValueError, naming the data set, for arrays that are no numbers or differ in length, or a number that does not fit.
    """

    def __init__(self, spec: str, columns: Mapping[str, np.ndarray], dtype: str = "float32") -> None:
        check_dtype(spec, dtype)
        if not columns:
            raise ValueError(f"data {spec!r} has no columns")
        for name, column in columns.items():
            check_numbers(spec, name, column)
            check_range(spec, name, column, dtype)
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns of data {spec!r} must have equal lengths: got {lengths}")
        self._spec, self._columns, self._dtype = spec, dict(columns), dtype
        self._samples = next(iter(lengths.values()))
        self.fingerprint = sha256_of(columns, dtype)

    def __len__(self) -> int:
        return self._samples

    def batch(self, indices: np.ndarray) -> "dict[str, torch.Tensor]":
        """Rows (B, ...) of each column."""
        check_ids(indices, len(self), self._spec)
        return {name: to_tensor(column[indices], self._dtype) for name, column in self._columns.items()}


def check_dtype(spec: str, dtype: str) -> None:
    """ValueError for a floating-point type that models are not trained in."""
    if dtype not in FLOATS:
        raise ValueError(f"data {spec!r}: dtype must be one of {', '.join(FLOATS)}: got {dtype!r}")


def check_numbers(spec: str, name: str, column: np.ndarray) -> None:
    """ValueError unless a column holds rows of numbers."""
    if column.dtype.kind not in "biuf" or column.dtype.itemsize > 8:
        raise ValueError(f"column {name!r} of data {spec!r} must hold numbers of at most 64 bits: got {column.dtype}")
    if column.ndim < 1:
        raise ValueError(f"column {name!r} of data {spec!r} must be an array with rows: got a single number")


def check_range(spec: str, name: str, column: np.ndarray, dtype: str, first: int = 0) -> None:
    """ValueError, naming the row, for a number that becomes infinite in `dtype`, or that int64 does not hold.

    `first` is the index of the column's first row.
    """
    kind, width = column.dtype.kind, column.dtype.itemsize
    if not (kind == "u" and width == 8) and not (kind == "f" and width > np.dtype(dtype).itemsize):
        return
    held = "int64" if kind == "u" else dtype
    limit = np.iinfo(np.int64).max if kind == "u" else np.finfo(dtype).max
    for start, rows in _blocks(column):
        # What rounds to infinity, not what is above the limit: numbers half a step above it still round to it.
        outside = rows > limit if kind == "u" else np.isinf(_cast(rows, dtype)) & np.isfinite(rows)
        if outside.any():
            at = np.argwhere(outside)[0]
            way = "" if kind == "u" else '; dtype = "float64" holds it'
            raise ValueError(
                f"column {name!r} of data {spec!r}, index {first + start + int(at[0])}: {rows[tuple(at)]} does not fit {held}, "
                f"whose largest is {limit}{way}"
            )


def _cast(rows: np.ndarray, dtype: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        return rows.astype(dtype)


def _blocks(column: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, rows) of pieces of about BLOCK bytes."""
    step = max(1, BLOCK // max(1, column[:1].nbytes))
    return ((start, column[start : start + step]) for start in range(0, len(column), step))


def choose(spec: str, present: list[str], wanted: list[str] | None) -> list[str]:
    """The wanted columns, or all if `wanted` is None. ValueError for one that doesn't exist, or exists twice."""
    if wanted is not None and (not isinstance(wanted, list | tuple) or not wanted):
        raise ValueError(f"data {spec!r}: columns must be a list of names: got {wanted!r}")
    chosen, count = present if wanted is None else list(wanted), Counter(present)
    for name in chosen:
        if name not in count:
            known = ", ".join(each[:100] for each in present[:20]) + (" ..." if len(present) > 20 else "")
            raise ValueError(f"data {spec!r} has no column {name!r}; known: {known}")
        if count[name] > 1:
            raise ValueError(f"data {spec!r} has {count[name]} columns {name!r}")
    return chosen


def to_tensor(rows: np.ndarray, dtype: str) -> "torch.Tensor":
    """The rows as a tensor of bool, int64 or `dtype`."""
    # Here, because a process that only checks files (check.py) needs no torch, whose import takes a second.
    import torch

    # astype always copies: the tensor must not share memory with a file that is mapped read-only.
    kinds: dict[str, str] = {"b": "bool", "f": dtype}
    return torch.from_numpy(rows.astype(kinds.get(rows.dtype.kind, "int64")))


def sha256_of(columns: Mapping[str, np.ndarray], *more: object) -> str:
    """sha256 of the names, types, shapes and values of columns, and of `more` that decides what a batch is."""
    # Sorted, so that the order of columns in a file does not matter: hosts compare this to know that they read the same data.
    digest = hashlib.sha256(repr(more).encode())
    for name, column in sorted(columns.items()):
        digest.update(f"\n{name!r} {column.dtype.str} {column.shape}\n".encode())
        # Block by block: a column of a table is not contiguous, and a copy of all of it would double the memory.
        for _, rows in _blocks(column):
            digest.update(np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
