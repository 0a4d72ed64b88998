"""Columns of a CSV file of events: whole ids, times in ticks, labels."""

from collections.abc import Mapping

import numpy as np

from distseq.models.data.events import check
from distseq.models.data.tables.csv_numbers import NumberColumn
from distseq.models.data.tables.csv_table import CsvTable
from distseq.models.data.tables.growing import Growing


def ids() -> NumberColumn:
    """A column of whole numbers, int64."""
    return NumberColumn("float64", classes=True)


def numbers() -> NumberColumn:
    """A column of numbers, float64."""
    return NumberColumn("float64")


def read_columns(spec: str, table: CsvTable, wanted: Mapping[str, NumberColumn]) -> dict[str, np.ndarray]:
    """(E,) each. ValueError, naming the row, for a cell that is refused; or if there are no rows."""
    grown = {name: Growing() for name in wanted}
    for values in table.batches(wanted):
        for name, each in values.items():
            grown[name].append(each)
    columns = {name: each.array() for name, each in grown.items()}
    if not all(map(len, columns.values())):
        raise ValueError(f"data {spec!r} has no events")
    return columns


def pandas_names(header: list[str], first: list[str]) -> list[str]:
    """Names of the columns of a file that pandas wrote, whose index has none."""
    del first
    return [name.strip() for name in header]


def check_ticks(spec: str, ticks: int) -> None:
    """ValueError unless `ticks` is at least 1."""
    if ticks < 1:
        raise ValueError(f"data {spec!r}: ticks must be at least 1: got {ticks}")


def whole_times(values: np.ndarray, ticks: int) -> np.ndarray:
    """(E,) int64: times in units of 1 / ticks, rounded to the nearest; with ticks = 1 they must be whole. BadEventError."""
    if ticks == 1:
        why = "is a fraction, and times are whole numbers: ticks = 1000 counts in thousandths"
        check.refuse("t", values, np.isfinite(values) & (values != np.rint(values)), why)
    return check.whole("t", np.rint(values * ticks), floats=True)


def labels(values: np.ndarray) -> np.ndarray:
    """(E,) int64 if all are whole numbers, else float64 as they are."""
    return values.astype(np.int64) if (np.rint(values) == values).all() else values
