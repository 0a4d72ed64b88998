"""Named arrays of one length as a dataset: what files of numbers become. Only the rows asked for are converted."""

import hashlib
from collections.abc import Mapping

import numpy as np
import torch

from distseq.models.data.dataset import check_ids

FLOATS = ("float32", "float64")


class Columns:
    """Sample i is the i-th row of every array. Floats become `dtype`, whole numbers int64, truth values stay."""

    def __init__(self, spec: str, columns: Mapping[str, np.ndarray], dtype: str = "float32") -> None:
        check_dtype(spec, dtype)
        if not columns:
            raise ValueError(f"data {spec!r} hold no columns")
        for name, column in columns.items():
            check_numbers(spec, name, column)
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns of data {spec!r} must have one first dimension: got {lengths}")
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
    """ValueError for a type of floats that models are not trained in."""
    if dtype not in FLOATS:
        raise ValueError(f"data {spec!r}: dtype must be one of {', '.join(FLOATS)}: got {dtype!r}")


def check_numbers(spec: str, name: str, column: np.ndarray) -> None:
    """ValueError unless a column holds numbers that a tensor can, in rows."""
    whole = column.dtype.kind in "iu" and np.can_cast(column.dtype, np.int64)
    if not whole and not (column.dtype.kind in "bf" and column.dtype.itemsize <= 8):
        raise ValueError(
            f"column {name!r} of data {spec!r} must hold numbers that fit into 64 bits: got {column.dtype}"
        )
    if column.ndim < 1:
        raise ValueError(f"column {name!r} of data {spec!r} must have a first dimension: got a single number")


def choose(spec: str, present: list[str], wanted: list[str] | None) -> list[str]:
    """The columns that are wanted, or all. ValueError for one that isn't there."""
    for name in wanted or ():
        if name not in present:
            raise ValueError(f"data {spec!r} have no column {name!r}; there are {', '.join(present)}")
    return present if wanted is None else wanted


def to_tensor(rows: np.ndarray, dtype: str) -> torch.Tensor:
    """A tensor of its own memory: bool, int64 or `dtype`."""
    kinds: dict[str, str] = {"b": "bool", "f": dtype}
    return torch.from_numpy(rows.astype(kinds.get(rows.dtype.kind, "int64")))


def sha256_of(columns: Mapping[str, np.ndarray], *more: object) -> str:
    """sha256 of names, types, shapes and values of columns, whatever their order, and of what else decides a batch."""
    digest = hashlib.sha256(repr(more).encode())
    for name, column in sorted(columns.items()):
        digest.update(f"\n{name!r} {column.dtype.str} {column.shape}\n".encode())
        digest.update(np.ascontiguousarray(column).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
