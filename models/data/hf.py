"""`hf:DIR`: a data set saved to disk by Hugging Face's `datasets`, which must be installed."""

import hashlib
from collections.abc import Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distseq.models.data.columns import check_dtype, check_numbers, check_range, choose, sha256_of, to_tensor
from distseq.models.data.dataset import check_ids, first_few, missing_package, one_line
from distseq.models.data.tables.arrow_values import ColumnValues

if TYPE_CHECKING:
    import torch

# Rows that are hashed at a time: the data may be larger than the memory. Part of the fingerprint, so it cannot change.
CHUNK = 1000


class Saved:
    """Numeric columns of an arrow data set. Rows stay on disk until they are requested.

    ValueError, naming the column, for missing values, values of different type or shape, or numbers that do not fit.
    """

    def __init__(self, spec: str, data: Any, columns: list[str] | None, dtype: str, decoded: Set[str]) -> None:
        check_dtype(spec, dtype)
        names = choose(spec, data.column_names, columns)
        self._spec, self._dtype = spec, dtype
        # Features that `datasets` must decode, such as images, come as its numpy format shows them; numbers and lists come from
        # Arrow as they are, because that format rounds float64 to float32 and shows missing values as NaN.
        plain, rest = [n for n in names if n not in decoded], [n for n in names if n in decoded]
        self._plain = data.select_columns(plain).with_format("arrow") if plain else None
        self._rest = data.select_columns(rest).with_format("numpy") if rest else None
        self._length = len(data)
        self._values = {name: ColumnValues(spec, name) for name in plain}
        digest = hashlib.sha256(f"{sorted(names)} {len(data)} {dtype}".encode())
        kinds: dict[str, tuple[np.dtype, tuple[int, ...]]] = {}
        for start in range(0, len(data), CHUNK):
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
        return self._length

    def batch(self, indices: np.ndarray) -> "dict[str, torch.Tensor]":
        """Rows (B, ...) of each column."""
        check_ids(indices, len(self), self._spec)
        return {name: to_tensor(rows, self._dtype) for name, rows in self._rows(indices).items()}

    def _rows(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        try:
            table = None if self._plain is None else self._plain[indices.tolist()]
            rows = {} if self._rest is None else {n: np.asarray(v) for n, v in self._rest[indices.tolist()].items()}
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
        if table is not None:
            first = int(indices[0]) if len(indices) else 0
            rows |= {name: self._numbers(name, table.column(name), first) for name in table.column_names}
        return rows

    def _numbers(self, name: str, column: Any, first: int) -> np.ndarray:
        """(rows, ...) as bool, int64 or a float that `dtype` holds. When all is hashed, `first` is the index of the first row."""
        values = self._values[name].convert(column.combine_chunks(), first)
        check_numbers(self._spec, name, values)
        check_range(self._spec, name, values, self._dtype, first)
        if values.dtype.kind == "b":
            return values
        if values.dtype.kind in "iu":
            return values.astype(np.int64)
        # float32 wherever it is enough: fingerprints have been taken of it.
        return values.astype(np.float64 if values.dtype.itemsize == 8 and self._dtype == "float64" else np.float32)


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
    data = data if split is None else data[split]
    decoded = {name for name, feature in data.features.items() if datasets.features.features.require_decoding(feature)}
    return Saved(spec, data, columns, dtype, decoded)
