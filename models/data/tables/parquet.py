"""`parquet:FILE`: columns of numbers, of lists of equal length, or of tensors of one shape."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from distseq.models.data.columns import Columns, check_dtype, choose
from distseq.models.data.dataset import one_line
from distseq.models.data.files import check_file
from distseq.models.data.tables.arrow_values import ColumnValues
from distseq.models.data.tables.growing import Growing

# Bytes of a batch, about, and its most rows: what is read at a time beside what is kept.
BATCH_BYTES, BATCH_ROWS = 1 << 24, 1 << 16


def open_parquet(path: str, columns: list[str] | None = None, dtype: str = "float32") -> Columns:
    """All columns of the file, or those in `columns`. ValueError, naming column and row, for a missing value."""
    spec = f"parquet:{path}"
    check_dtype(spec, dtype)
    grown: dict[str, Growing] = {}
    for batch in batches(path, columns):
        for name, values in batch.items():
            grown.setdefault(name, Growing()).append(values)
    return Columns(spec, {name: each.array() for name, each in grown.items()}, dtype)


def batches(path: str, columns: list[str] | None = None) -> Iterator[dict[str, np.ndarray]]:
    """The chosen columns (rows, ...), some rows at a time; at least one batch. ValueError for what can't be read."""
    spec = f"parquet:{path}"
    check_file(f"data {spec!r}", path)
    try:
        # Without pre_buffer, a whole row group would be read at once.
        with parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20, page_checksum_verification=True) as file:
            names = choose(spec, file.schema_arrow.names, columns)
            yield from _read(spec, file, names)
    except ValueError as error:
        # Ours name the data set. Arrow's, and those of the text in a damaged file, are ValueErrors as well.
        if isinstance(error, pa.ArrowException | UnicodeError):
            raise ValueError(f"can't read data {spec!r}: {one_line(error)}") from None
        raise
    # Passed on, for the process that reads a file over to tell by.
    except MemoryError:
        raise
    # A damaged file may make it raise anything.
    except Exception as error:
        raise ValueError(f"can't read data {spec!r}: {one_line(error)}") from None


def _read(spec: str, file: parquet.ParquetFile, names: list[str]) -> Iterator[dict[str, np.ndarray]]:
    values = {name: ColumnValues(spec, name) for name in names}
    size = sum(file.metadata.row_group(k).total_byte_size for k in range(file.metadata.num_row_groups))
    rows = BATCH_BYTES * max(file.metadata.num_rows, 1) // max(size, 1)
    first = 0
    for batch in file.iter_batches(min(max(rows, 1), BATCH_ROWS), columns=names, use_threads=False):
        yield {name: each.convert(batch.column(name), first) for name, each in values.items()}
        first += batch.num_rows
    if first != file.metadata.num_rows:
        raise ValueError(f"data {spec!r} is damaged: it should have {file.metadata.num_rows} rows and has {first}")
    if not first:
        empty = file.schema_arrow.empty_table()
        yield {name: each.convert(empty.column(name).combine_chunks(), 0) for name, each in values.items()}
