"""`ml:ml_NAME.csv`: events as TGN and DyGLib keep them, with the features in ml_NAME.npy beside it."""

from pathlib import Path

import numpy as np

from distseq.coding.npy_file import map_npy
from distseq.models.data.columns import choose
from distseq.models.data.events.data import EventData
from distseq.models.data.events.readers import columns
from distseq.models.data.events.readers.build import build, naming
from distseq.models.data.files import check_file
from distseq.models.data.tables.csv_table import CsvTable


def open_ml_csv(path: str, features: bool = True, sort: bool = False, ticks: int = 1) -> EventData:
    """Columns u, i, ts, label, idx. Nodes count from 1 in the file, and from 0 in the stream; idx is the row of the features.

    message: the rows of ml_NAME.npy (E + 1, F), whose row 0 is padding; None without `features`. sort, ticks: as for `jodie`.
    ValueError, naming file and row, also if the .npy has another number of rows.
    """
    spec = f"ml:{path}"
    check_file(f"data {spec!r}", path)
    columns.check_ticks(spec, ticks)
    table = CsvTable(spec, path, named=columns.pandas_names)
    parsers = {name: columns.ids() for name in ("u", "i", "idx")} | {
        name: columns.numbers() for name in ("ts", "label")
    }
    choose(spec, table.names, list(parsers))
    found = columns.read_columns(spec, table, parsers)
    with naming(spec, table.where):
        t = columns.whole_times(found["ts"], ticks)
    message = read_rows(spec, Path(path).with_suffix(".npy"), len(t) + 1) if features else None
    if message is not None:
        message = _by_index(spec, table, message, found["idx"])
    ends = {"src": found["u"] - 1, "dst": found["i"] - 1}
    return EventData(
        build(spec, t, sort, table.where, message=message, label=columns.labels(found["label"]), **ends)[0]
    )


def read_rows(spec: str, path: Path, rows: int) -> np.ndarray:
    """The array of a .npy file, mapped. ValueError, naming it, if it can't be read or has another number of rows."""
    check_file(f"data {spec!r}: {path.name}", str(path))
    try:
        found = map_npy(path)
    except ValueError as error:
        raise ValueError(f"can't read data {spec!r}: {path.name}: {error}") from None
    if found.ndim != 2 or len(found) != rows:
        raise ValueError(f"data {spec!r}: {path.name} must have {rows} rows: got shape {found.shape}")
    return found


def _by_index(spec: str, table: CsvTable, rows: np.ndarray, index: np.ndarray) -> np.ndarray:
    """The rows of the events."""
    outside = (index < 1) | (index >= len(rows))
    if outside.any():
        row = int(np.argmax(outside))
        raise ValueError(
            f"{table.where(row)}: idx={index[row]} is no row of the features: they are 1 .. {len(rows) - 1}"
        )
    # As all published files are: the rows are then used where they lie.
    if (index == np.arange(1, len(rows))).all():
        return rows[1:]
    return np.asarray(rows[index])
