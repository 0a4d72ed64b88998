"""A data set of named arrays of equal length, which converts only the rows that are requested."""

import hashlib
from collections.abc import Mapping

import numpy as np
import torch

from distseq.models.data.dataset import check_ids

FLOATS = ("float32", "float64")


class Columns:
    """Sample i is row i of every array. Floats become `dtype`, integers int64; booleans stay.

    ValueError, naming the data set, for arrays that are no numbers or differ in length.
    """

    def __init__(self, spec: str, columns: Mapping[str, np.ndarray], dtype: str = "float32") -> None:
        check_dtype(spec, dtype)
        if not columns:
            raise ValueError(f"data {spec!r} has no columns")
        for name, column in columns.items():
            check_numbers(spec, name, column)
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns of data {spec!r} must have equal lengths: got {lengths}")
        self._spec, self._columns, self._dtype = spec, dict(columns), dtype
        self._samples = next(iter(lengths.values()))
        self.fingerprint = sha256_of(columns, dtype)

    def __len__(self) -> int:
        return self._samples

    def batch(self, indices: np.ndarray) -> dict[str, torch.Tensor]:
        """Rows (B, ...) of each column."""
        check_ids(indices, len(self), self._spec)
        return {name: to_tensor(column[indices], self._dtype) for name, column in self._columns.items()}


def check_dtype(spec: str, dtype: str) -> None:
    """ValueError for a floating-point type that models are not trained in."""
    if dtype not in FLOATS:
        raise ValueError(f"data {spec!r}: dtype must be one of {', '.join(FLOATS)}: got {dtype!r}")


def check_numbers(spec: str, name: str, column: np.ndarray) -> None:
    """ValueError unless a column holds rows of numbers that a tensor can hold."""
    # can_cast refuses uint64, whose upper half int64 would turn into negative numbers.
    whole = column.dtype.kind in "iu" and np.can_cast(column.dtype, np.int64)
    if not whole and not (column.dtype.kind in "bf" and column.dtype.itemsize <= 8):
        raise ValueError(f"column {name!r} of data {spec!r} must hold numbers of at most 64 bits: got {column.dtype}")
    if column.ndim < 1:
        raise ValueError(f"column {name!r} of data {spec!r} must be an array with rows: got a single number")


def choose(spec: str, present: list[str], wanted: list[str] | None) -> list[str]:
    """The wanted columns, or all if `wanted` is None. ValueError for one that doesn't exist."""
    for name in wanted or ():
        if name not in present:
            raise ValueError(f"data {spec!r} has no column {name!r}; known: {', '.join(present)}")
    return present if wanted is None else wanted


def to_tensor(rows: np.ndarray, dtype: str) -> torch.Tensor:
    """The rows as a tensor of bool, int64 or `dtype`."""
    # astype always copies: the tensor must not share memory with a file that is mapped read-only.
    kinds: dict[str, str] = {"b": "bool", "f": dtype}
    return torch.from_numpy(rows.astype(kinds.get(rows.dtype.kind, "int64")))


def sha256_of(columns: Mapping[str, np.ndarray], *more: object) -> str:
    """sha256 of the names, types, shapes and values of columns, and of `more` that decides what a batch is."""
    # Sorted, so that the order of columns in a file does not matter: hosts compare this to know that they read the same data.
    digest = hashlib.sha256(repr(more).encode())
    for name, column in sorted(columns.items()):
        digest.update(f"\n{name!r} {column.dtype.str} {column.shape}\n".encode())
        digest.update(np.ascontiguousarray(column).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
