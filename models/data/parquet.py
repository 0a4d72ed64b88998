"""`parquet:FILE`: columns of numbers, or of lists of equal length; needs pyarrow."""

from typing import Any

import numpy as np

from distseq.models.data.columns import Columns, choose
from distseq.models.data.dataset import missing_package, one_line


def open_parquet(path: str, columns: list[str] | None = None, dtype: str = "float32") -> Columns:
    """All columns of the file, or those in `columns`. ValueError, naming column and row, for a missing value."""
    spec = f"parquet:{path}"
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise missing_package(spec, "pyarrow") from None
    try:
        with parquet.ParquetFile(path) as file:
            names = choose(spec, file.schema_arrow.names, columns)
            table = file.read(names)
    except OSError as error:
        raise ValueError(
            f"can't read data {spec!r}: {'no such file' if error.errno == 2 else one_line(error)}"
        ) from None
    except pa.ArrowInvalid as error:
        raise ValueError(f"can't read data {spec!r}: {one_line(error)}") from None
    return Columns(spec, {name: _values(spec, name, table.column(name)) for name in names}, dtype)


def _values(spec: str, name: str, column: Any) -> np.ndarray:
    """The numbers of a column, (rows,) or (rows, width)."""
    # Looked for in arrow, because numpy would show missing values as NaN.
    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise ValueError(f"column {name!r} of data {spec!r} has no value at index {row}")
    values: Any = column.to_numpy()
    if values.dtype != object or not len(values) or not isinstance(values[0], np.ndarray):
        return np.asarray(values)
    widths = np.array([len(value) for value in values])
    if (widths != widths[0]).any():
        row = int(np.flatnonzero(widths != widths[0])[0])
        raise ValueError(
            f"lists in column {name!r} of data {spec!r} must have equal lengths: "
            f"got {widths[0]} and, at index {row}, {widths[row]}"
        )
    return np.stack(values)
