"""The numbers of a CSV column, parsed batch by batch; what is no number, or changes when it is parsed, is refused by row."""

import re
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# A float64 holds every whole number up to this one.
EXACT = 2**53
# Decimal digits in an optional fraction and exponent. float() of Python would also take 1_1, nan and digits of other scripts.
NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
WHOLE = r"^[+-]?[0-9]+$"
# Characters of a cell that a message repeats.
LONGEST = 100
BLANKS = " \t\r\n\f\v"


class BadCellError(ValueError):
    """A cell that is refused: its row, counted from 0, and why."""

    def __init__(self, row: int, why: str) -> None:
        super().__init__(why)
        self.row = row


class NumberColumn:
    """The cells of one column as float64, or as int64 if they are `classes`; finite, and within the range of `dtype`.

    >>> NumberColumn("float32").parse(pa.array(["1", " 2.5 "]), 0).tolist()
    [1.0, 2.5]
    """

    def __init__(self, dtype: str, classes: bool = False) -> None:
        self._dtype, self._classes = dtype, classes
        # The first whole number that dtype rounds. It is refused in a column of whole numbers, which may be ids; among fractions
        # it is rounded as they are.
        self._rounded: tuple[int, str] | None = None
        self._fractions = False

    def parse(self, cells: pa.Array, first: int) -> np.ndarray:
        """(rows,) the numbers of text `cells`; `first` is the row of the first. BadCellError for the first bad one."""
        values = _floats(cells, first)
        self._check_finite(cells, values, first)
        large = np.flatnonzero(np.abs(values) >= EXACT)
        if self._classes:
            return self._whole(cells, values, large, first)
        _check_exact(cells, values, large, first)
        if self._dtype == "float32":
            self._note_rounded(cells, values, first)
        return values

    def check(self) -> None:
        """After the last batch. BadCellError for a column of whole numbers of which one is rounded."""
        if self._rounded is not None and not self._fractions:
            row, text = self._rounded
            raise BadCellError(
                row,
                f"{text!r} is a whole number that {self._dtype} would round to another: "
                f"write '{text.strip(BLANKS)}.0' to have it rounded, or choose dtype = \"float64\"",
            )

    def _check_finite(self, cells: pa.Array, values: np.ndarray, first: int) -> None:
        with np.errstate(over="ignore"):
            infinite = np.flatnonzero(~np.isfinite(values if self._classes else values.astype(self._dtype)))
        if len(infinite):
            row = int(infinite[0])
            text = _text(cells, row)
            if np.isfinite(values[row]):
                way = 'dtype = "float64" holds it'
                raise BadCellError(first + row, f"{text!r} does not fit {self._dtype}, whose largest is 3.4e38; {way}")
            raise BadCellError(first + row, f"{text!r} is not a finite number")

    def _whole(self, cells: pa.Array, values: np.ndarray, large: np.ndarray, first: int) -> np.ndarray:
        broken = np.flatnonzero(values != np.rint(values))
        if len(broken):
            raise BadCellError(first + int(broken[0]), f"{_text(cells, int(broken[0]))!r} is not a whole number")
        whole = np.where(np.abs(values) < EXACT, values, 0).astype(np.int64)
        exact = {row: _exact(cells, row) for row in large.tolist()} | _whole_numbers(cells, large)
        for row, number in sorted(exact.items()):
            if number is None:
                raise BadCellError(first + row, f"{_text(cells, row)!r} is not a whole number")
            if not -(2**63) <= number < 2**63:
                raise BadCellError(first + row, f"{_text(cells, row)!r} does not fit int64")
            whole[row] = number
        return whole

    def _note_rounded(self, cells: pa.Array, values: np.ndarray, first: int) -> None:
        self._fractions = self._fractions or bool((values != np.rint(values)).any())
        if not self._fractions and self._rounded is None:
            rounded = _whole_numbers(cells, np.flatnonzero(values.astype(np.float32) != values))
            if rounded:
                self._rounded = first + min(rounded), _text(cells, min(rounded))


def _floats(cells: pa.Array, first: int) -> np.ndarray:
    try:
        values = pc.cast(cells, pa.float64())
    except pa.ArrowInvalid:
        trimmed = pc.ascii_trim(cells, BLANKS)
        bad = pc.index(pc.match_substring_regex(trimmed, NUMBER), False).as_py()
        if bad >= 0:
            raise BadCellError(first + bad, f"{_text(cells, bad)!r} is not a finite number") from None
        values = pc.cast(trimmed, pa.float64())
    return np.asarray(values.to_numpy(zero_copy_only=False))


def _check_exact(cells: pa.Array, values: np.ndarray, large: np.ndarray, first: int) -> None:
    """BadCellError for a whole number that is another one as float64."""
    for row, number in _whole_numbers(cells, large).items():
        if number != int(values[row]):
            raise BadCellError(
                first + row,
                f"{_text(cells, row)!r} is a whole number that float64 would round to another; classes = true holds it",
            )


def _whole_numbers(cells: pa.Array, rows: np.ndarray) -> dict[int, int]:
    """Row -> number of those `rows` whose text is a whole number, without point or exponent."""
    texts = pc.ascii_trim(cells.take(pa.array(rows)), BLANKS)
    whole = pc.match_substring_regex(texts, WHOLE)
    # Without leading zeros, because Python refuses to parse more than 4,300 digits.
    parsed = [(text, text.lstrip("+-").lstrip("0") or "0") for text in texts.filter(whole).to_pylist()]
    numbers = [-int(digits) if text.startswith("-") else int(digits) for text, digits in parsed]
    return dict(zip(rows[whole.to_numpy(zero_copy_only=False)].tolist(), numbers, strict=True))


def _exact(cells: pa.Array, row: int) -> int | None:
    """The number of a cell with a point or an exponent, which float64 may have rounded; None if it is not whole."""
    number = Decimal(cells[row].as_py().strip(BLANKS))
    # Any number beyond 10^20 says enough: the digits of 1e300 are of no use.
    if number.adjusted() > 20:
        return 10**20
    return int(number) if number == number.to_integral_value() else None


def _text(cells: pa.Array, row: int) -> str:
    # As bytes first: the file may not be UTF-8.
    return shortened(bytes(cells.slice(row, 1).cast(pa.binary())[0].as_py()).decode("utf-8", "replace"))


def shortened(text: str) -> str:
    """A cell as far as a message repeats it."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def is_number(text: str) -> bool:
    """Whether a name in a header looks like a number, an infinite or missing one included."""
    bare = text.strip(BLANKS)
    return re.match(NUMBER, bare) is not None or bare.lstrip("+-").lower() in ("nan", "inf", "infinity")
