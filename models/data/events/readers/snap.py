"""`snap:FILE.txt`: one event a line, "u v t", as SNAP's temporal networks and many others are published."""

import itertools
import warnings
from collections.abc import Iterator

import numpy as np

from distseq.models.data.dataset import one_line
from distseq.models.data.events.data import EventData
from distseq.models.data.events.readers import columns as times
from distseq.models.data.events.readers.build import bipartite, build, naming
from distseq.models.data.files import check_file

# Names of columns and their types; "-" skips one.
KINDS = {"u": "i8", "v": "i8", "t": "f8", "w": "f4", "label": "f8", "-": "S1"}
COMMENTS = ("#", "%")
# Characters of a line that a message repeats.
LONGEST = 100


def open_snap(
    path: str,
    columns: str = "u v t",
    delimiter: str | None = None,
    sort: bool = False,
    ticks: int = 1,
    renumber: bool = False,
    apart: bool = False,
) -> EventData:
    """Whole numbers u and v and a time t in each line, separated by blanks, tabs or the `delimiter`; # and % begin comments.

    columns: what a line holds, from "u v t", "w" (a weight, the message), "label" and "-" (not read). renumber: nodes get the
    numbers from 0 on in the order of their ids, so that ids may be far apart. apart: u and v are numbered apart, as users and
    items are; items then follow users. sort, ticks: as for `jodie`. ValueError, naming file and line.
    """
    spec = f"snap:{path}"
    check_file(f"data {spec!r}", path)
    times.check_ticks(spec, ticks)
    names = columns.split() if isinstance(columns, str) else []
    known = set(names) <= set(KINDS) and all(names.count(name) == 1 for name in set(names) - {"-"})
    if not known or not {"u", "v", "t"} <= set(names):
        raise ValueError(
            f"data {spec!r}: columns must name u, v and t once, and may name w, label and -: got {columns!r}"
        )
    table = _read(spec, path, names, delimiter)

    def where(row: int) -> str:
        return f"data {spec!r} line {_line(path, row)}"

    u, v = table["u"], table["v"]
    if renumber:
        u, v = (np.unique(u, return_inverse=True)[1], np.unique(v, return_inverse=True)[1]) if apart else _joint(u, v)
    with naming(spec, where):
        t = times.whole_times(table["t"], ticks)
        ends = bipartite(u, v) if apart else {"src": u, "dst": v}
    message = table["w"][:, None] if "w" in names else None
    label = times.labels(table["label"]) if "label" in names else None
    return EventData(build(spec, t, sort, where, message=message, label=label, **ends)[0])


def _joint(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    both = np.unique(np.concatenate([u, v]), return_inverse=True)[1]
    return both[: len(u)], both[len(u) :]


def _read(spec: str, path: str, names: list[str], delimiter: str | None) -> np.ndarray:
    """(E,) the columns of all lines, by name. ValueError for the first line that does not hold them."""
    fields = [f"skipped {k}" if name == "-" else name for k, name in enumerate(names)]
    dtype = np.dtype([(field, KINDS[name]) for field, name in zip(fields, names, strict=True)])
    try:
        if not any(_lines(path)):
            raise ValueError(f"data {spec!r} has no events")
        with open(path, encoding="utf-8-sig") as file, warnings.catch_warnings():
            # Some versions of numpy cut a fraction off an id, and warn.
            warnings.simplefilter("error", DeprecationWarning)
            try:
                return np.loadtxt(file, dtype, COMMENTS, delimiter, ndmin=1)
            except (ValueError, DeprecationWarning) as error:
                reason = one_line(error)
        for number, line in _lines(path):
            if not _holds(line.split(delimiter), names):
                held = line.strip()[:LONGEST]
                raise ValueError(f"data {spec!r} line {number}: {held!r} does not hold {' '.join(names)}")
    except UnicodeDecodeError as error:
        raise ValueError(f"data {spec!r} is not UTF-8 text: {error.reason} at byte {error.start}") from None
    raise ValueError(f"can't read data {spec!r}: {reason}")


def _holds(cells: list[str], names: list[str]) -> bool:
    try:
        # Strict: another number of cells is a ValueError too.
        for cell, name in zip(cells, names, strict=True):
            int(cell) if KINDS[name] == "i8" else float(cell) if name != "-" else None
    except ValueError:
        return False
    return True


def _lines(path: str) -> Iterator[tuple[int, str]]:
    """(number from 1, text without comment) of each line with an event."""
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            for mark in COMMENTS:
                line = line.partition(mark)[0]
            if line.strip():
                yield number, line


def _line(path: str, row: int) -> int:
    """The line of an event that is counted from 0."""
    return next(itertools.islice(_lines(path), row, None))[0]
