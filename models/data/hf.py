"""`hf:DIR`: a data set saved to disk by Hugging Face's `datasets`, which must be installed."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distseq.models.data.columns import check_dtype, check_numbers, choose, sha256_of, to_tensor
from distseq.models.data.dataset import check_ids, first_few, missing_package, one_line

# Rows that are hashed at a time: the data may be larger than the memory. Part of the fingerprint, so it cannot change.
CHUNK = 1000


class Saved:
    """Numeric columns of an arrow data set. Rows stay on disk until they are requested.

    ValueError, naming the column, for missing values or values of different type or shape.
    """

    def __init__(self, spec: str, data: Any, columns: list[str] | None, dtype: str) -> None:
        check_dtype(spec, dtype)
        names = choose(spec, data.column_names, columns)
        self._spec, self._dtype, self._data = spec, dtype, data.select_columns(names).with_format("numpy")
        digest = hashlib.sha256(f"{sorted(names)} {len(data)} {dtype}".encode())
        kinds: dict[str, tuple[np.dtype, tuple[int, ...]]] = {}
        for start in range(0, len(data), CHUNK):
            self._no_gaps(start)
            rows = self._rows(np.arange(start, min(start + CHUNK, len(data))))
            for name, values in rows.items():
                kind = (values.dtype, values.shape[1:])
                if kinds.setdefault(name, kind) != kind:
                    raise ValueError(
                        f"column {name!r} of data {spec!r} must hold values of one type and shape: "
                        f"values from index {start} on differ"
                    )
            digest.update(sha256_of(rows).encode())
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._data)

    def batch(self, indices: np.ndarray) -> dict[str, torch.Tensor]:
        """Rows (B, ...) of each column."""
        check_ids(indices, len(self), self._spec)
        return {name: to_tensor(rows, self._dtype) for name, rows in self._rows(indices).items()}

    def _no_gaps(self, start: int) -> None:
        """ValueError for a missing value among CHUNK rows."""
        # Looked for in arrow, because numpy would show it as NaN.
        table = self._data.with_format("arrow")[start : start + CHUNK]
        for name in table.column_names:
            if table[name].null_count:
                row = start + table[name].is_null().to_pylist().index(True)
                raise ValueError(f"column {name!r} of data {self._spec!r} has no value at index {row}")

    def _rows(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        try:
            rows = {name: np.asarray(values) for name, values in self._data[indices.tolist()].items()}
        # Decoders of the user's features may raise anything.
        except Exception as error:
            raise ValueError(f"data {self._spec!r}, samples {first_few(indices)}: {one_line(error)}") from None
        for name, values in rows.items():
            if values.dtype == object:
                raise ValueError(
                    f"column {name!r} of data {self._spec!r} must hold numbers, or lists of equal length, "
                    f"without missing values: samples {first_few(indices)} don't"
                )
            check_numbers(self._spec, name, values)
        return rows


def open_hf(path: str, split: str | None = None, columns: list[str] | None = None, dtype: str = "float32") -> Saved:
    """The data set in a folder, or one `split` of it. ValueError if it can't be read, or has other splits."""
    spec = f"hf:{path}"
    try:
        import datasets
    except ImportError:
        raise missing_package(spec, "datasets") from None
    if not Path(path).is_dir():
        raise ValueError(f"can't read data {spec!r}: there is no such folder")
    try:
        data = datasets.load_from_disk(path)
    # A damaged folder may make it raise anything.
    except Exception as error:
        raise ValueError(f"can't read data {spec!r}: {one_line(error)}") from None
    if isinstance(data, datasets.DatasetDict) != (split is not None) or (split is not None and split not in data):
        has = f"the splits {', '.join(data)}" if isinstance(data, datasets.DatasetDict) else "no splits"
        raise ValueError(f"data {spec!r} has {has}: got split={split!r}")
    return Saved(spec, data if split is None else data[split], columns, dtype)
