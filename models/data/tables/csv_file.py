"""`csv:FILE`: a table of numbers with a header line; sample i is row i."""

import numpy as np

from distseq.models.data.columns import Columns, check_dtype, choose
from distseq.models.data.files import check_file
from distseq.models.data.tables.csv_numbers import NumberColumn
from distseq.models.data.tables.csv_table import CsvTable
from distseq.models.data.tables.growing import Growing


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
    column, for a cell that is not a finite number or that `dtype` does not hold.
    """
    spec = f"csv:{path}"
    check_dtype(spec, dtype)
    if not isinstance(classes, bool):
        raise ValueError(f"data {spec!r}: classes must be true or false: got {classes!r}")
    if classes and target is None:
        raise ValueError(f"data {spec!r}: classes needs a target")
    if not isinstance(delimiter, str) or len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n\0':
        raise ValueError(
            f"data {spec!r} is not valid CSV: the delimiter must be one ASCII character: got {delimiter!r}"
        )
    check_file(f"data {spec!r}", path)
    table = CsvTable(spec, path, delimiter)
    wanted = choose(spec, table.names, columns)
    if target is not None:
        choose(spec, table.names, [target])
        wanted = [name for name in wanted if name != target]
        if not wanted:
            raise ValueError(f"data {spec!r} has no column besides the target {target!r}")
    inputs, targets = _read(table, wanted, target, classes, dtype)
    return Columns(spec, {"inputs": inputs} | ({} if target is None else {"targets": targets}), dtype)


def _read(
    table: CsvTable, wanted: list[str], target: str | None, classes: bool, dtype: str
) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (rows, len(wanted)) float64, and targets (rows,), float64 or int64."""
    parsers = {name: NumberColumn(dtype) for name in wanted}
    if target is not None:
        parsers[target] = NumberColumn(dtype, classes)
    inputs, targets, row = Growing(), Growing(), 0
    for values in table.batches(parsers):
        inputs.append(np.stack([values[name] for name in wanted], 1))
        if target is not None:
            targets.append(values[target])
        row += len(values[wanted[0]])
    if not row:
        return np.empty((0, len(wanted))), np.empty(0, np.int64 if classes else np.float64)
    return inputs.array(), targets.array()
