"""A CSV file with a header line, read as columns of numbers some rows at a time; an error names row, line and column."""

import csv
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, TextIO, TypeVar

import numpy as np
import pyarrow as pa
from pyarrow import csv as arrow_csv

from distseq.models.data.dataset import one_line
from distseq.models.data.tables.csv_numbers import BadCellError, NumberColumn, is_number, shortened

if TYPE_CHECKING:
    from _csv import Reader

V = TypeVar("V")
# Bytes read at a time, at least, and bytes for each column of a line, which must fit. Of a file of 97 MB, blocks of 1 MiB take
# 137 MB in all, 79 MB of them numbers, blocks of 8 MiB 266 MB, in the same time (docs/decisions/025).
BLOCK, PER_CELL = 1 << 20, 64
# Characters of the longest line.
LINE = 1 << 24


class CsvTable:
    """A CSV file whose header has been read: `names` of its columns.

    named: the names, from the cells of the header and of the first row, which is empty if there is none. By default the header
        must hold distinct names. ValueError, naming the file, if there are none or it can't be read.
    """

    def __init__(
        self,
        spec: str,
        path: str,
        delimiter: str = ",",
        named: Callable[[list[str], list[str]], list[str]] | None = None,
    ) -> None:
        self._spec, self._path, self._delimiter = spec, path, delimiter
        try:
            with self._text() as file:
                lines = self._lines(file)
                cells = next(lines, [])
                _check_text(cells)
                self.names = _header(spec, cells) if named is None else []
                first = _first_row(lines)
        except (OSError, csv.Error) as error:
            raise self._invalid(error) from None
        if named is not None:
            self.names = named(cells, first or [])
        # Arrow is told the names if they are not those in the file, and then skips the header.
        self._told = named is not None
        # Name -> as it stands in the file, which is how Arrow knows the column.
        self._raw = dict(zip(self.names, self.names if self._told else cells, strict=True))
        self._counted = "header" if len(cells) == len(self.names) else "first row"
        self._empty = first == []

    def batches(self, parsers: Mapping[str, NumberColumn]) -> Iterator[dict[str, np.ndarray]]:
        """The numbers of some columns, (rows,) each. ValueError for the first that is refused."""
        row = 0
        for batch in () if self._empty else self._cells(list(parsers)):
            yield self._first_mistake(
                {name: partial(one.parse, batch.column(self._raw[name]), row) for name, one in parsers.items()}
            )
            row += batch.num_rows
        self._first_mistake({name: one.check for name, one in parsers.items()})

    def _first_mistake(self, actions: Mapping[str, Callable[[], V]]) -> dict[str, V]:
        """What the action of each column returns. ValueError for the BadCellError of the lowest row."""
        done, mistakes = {}, []
        for name, action in actions.items():
            try:
                done[name] = action()
            except BadCellError as error:
                mistakes.append((error.row, name, str(error)))
        if mistakes:
            row, name, why = min(mistakes, key=lambda mistake: mistake[0])
            raise ValueError(f"{self.where(row)}, column {shortened(name)!r}: {why}")
        return done

    def _cells(self, names: list[str]) -> Iterator[pa.RecordBatch]:
        """The cells of some columns as text, about BLOCK bytes of the file at a time."""
        raw = [self._raw[name] for name in names]
        # A header of long names must fit as well.
        block = max(BLOCK, sum(PER_CELL + 4 * len(name) for name in self._raw))
        try:
            # An open file, not its path: by the ending of a path Arrow would choose a decompression.
            with pa.OSFile(self._path) as file:
                yield from arrow_csv.open_csv(
                    file,
                    arrow_csv.ReadOptions(
                        use_threads=False,
                        block_size=block,
                        column_names=self.names if self._told else None,
                        skip_rows_after_names=int(self._told),
                    ),
                    # Text, which Arrow would otherwise take for whatever the first block looks like.
                    arrow_csv.ParseOptions(delimiter=self._delimiter, newlines_in_values=True),
                    arrow_csv.ConvertOptions(
                        check_utf8=False,
                        column_types=dict.fromkeys(raw, pa.string()),
                        include_columns=raw,
                        strings_can_be_null=False,
                    ),
                )
        except (OSError, pa.ArrowException) as error:
            self._check_lengths()
            raise self._invalid(error) from None

    def _text(self) -> TextIO:
        # utf-8-sig, because spreadsheets put a byte order mark before the first column's name. Other bytes than UTF-8 are refused
        # in the header and in numbers; in columns of text that nobody asked for they do no harm.
        return open(self._path, encoding="utf-8-sig", errors="surrogateescape", newline="")

    def _lines(self, file: TextIO) -> "Reader":
        return csv.reader(_bounded(file), delimiter=self._delimiter)

    def where(self, row: int) -> str:
        """Names a row, counted from 0, with its line; Arrow counts no lines."""
        with self._text() as file:
            lines = self._lines(file)
            next(lines)
            try:
                line = next((f" (line {lines.line_num})" for k, _ in _rows(lines) if k == row + 1), "")
            except csv.Error:
                line = ""
        return f"data {self._spec!r} row {row + 1}{line}"

    def _check_lengths(self) -> None:
        """ValueError for the first row that has another number of cells than the header."""
        with self._text() as file:
            lines = self._lines(file)
            next(lines)
            try:
                for row, cells in _rows(lines):
                    if len(cells) != len(self.names):
                        where = f"data {self._spec!r} row {row} (line {lines.line_num})"
                        raise ValueError(
                            f"{where} has {len(cells)} cells, but the {self._counted} has {len(self.names)}"
                        )
            except csv.Error as error:
                raise self._invalid(error) from None

    def _invalid(self, error: Exception) -> ValueError:
        return ValueError(f"data {self._spec!r} is not valid CSV: {one_line(error)}")


def _check_text(cells: list[str]) -> None:
    """csv.Error for names with bytes that are not UTF-8."""
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        raise csv.Error("its header is not UTF-8 text") from None


def _header(spec: str, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    if not names:
        raise ValueError(f"data {spec!r} must begin with a header line of column names: it is empty")
    # A name that is a number means that the file has no header, and that its first sample would be lost.
    count = Counter(names)
    for name in names:
        if not name or is_number(name) or count[name] > 1:
            hint = "" if name else " (an index that pandas wrote, or a delimiter at the end of the line?)"
            raise ValueError(
                f"data {spec!r} must begin with a header line of distinct column names: got {shortened(name)!r}{hint}"
            )
    return names


def _bounded(file: TextIO) -> Iterator[str]:
    """The lines of a file. csv.Error for one that is longer than LINE."""
    # Not by iteration, which would read a file without line ends at once.
    while line := file.readline(LINE):
        if len(line) == LINE and line[-1] not in "\r\n":
            raise csv.Error(f"a line is longer than {LINE} characters")
        yield line


def _first_row(lines: "Reader") -> list[str] | None:
    """Its cells, none if there is no row. None for one that is too long for this parser."""
    try:
        return next((cells for _, cells in _rows(lines)), [])
    # Arrow will say whether it is too long for Arrow too.
    except csv.Error:
        return None


def _rows(lines: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    """(number, cells) of each line that is not blank, counting from 1."""
    return enumerate((cells for cells in lines if cells), 1)
