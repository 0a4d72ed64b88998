"""The one order in which rows are added: neighbours in pairs, then pairs in pairs, in float64.

BLOCK neighbours are a subtree of that order, so a block may be added on any host: the bits are the same wherever it is.
"""

import zlib
from collections.abc import Iterable, Sequence

import numpy as np

BLOCK = 4  # rows that are added in one place; a power of two
CHUNK = 1 << 16  # numbers of a row that are added at a time, so that the partial sums stay small


def digest(row: np.ndarray) -> int:
    """crc32 of a row's bytes."""
    return zlib.crc32(np.ascontiguousarray(row).data.cast("B"))


def check_lengths(lengths: Sequence[int]) -> None:
    """ValueError when rows of one job differ in length."""
    other = next((length for length in lengths if length != lengths[0]), None)
    if other is not None:
        raise ValueError(f"rows of one job must have one length: got {other} and {lengths[0]}")


def weighted_sum(rows: Iterable[tuple[float, np.ndarray]]) -> np.ndarray:
    """float64 sum of weight x row, rows as they come. ValueError when rows differ in length."""
    partial: list[tuple[int, np.ndarray]] = []  # (rows in it, sum), ever smaller
    for weight, row in rows:
        if partial:
            check_lengths([len(partial[0][1]), len(row)])
        one = row.astype(np.float64)
        if weight != 1.0:
            one *= weight
        partial.append((1, one))
        while len(partial) > 1 and partial[-1][0] == partial[-2][0]:
            _merge(partial)
    while len(partial) > 1:
        _merge(partial)
    assert partial, "a decode has at least one row"
    return partial[0][1]


def _merge(partial: list[tuple[int, np.ndarray]]) -> None:
    count, last = partial.pop()
    before, total = partial[-1]
    total += last
    partial[-1] = (before + count, total)


def sum_in_place(rows: Sequence[tuple[float, np.ndarray]]) -> np.ndarray:
    """`weighted_sum` of rows that are all at hand, without a copy of any of them."""
    check_lengths([len(row) for _, row in rows])
    total = np.empty(len(rows[0][1]))
    for begin in range(0, len(total), CHUNK):
        end = begin + CHUNK
        total[begin:end] = weighted_sum((weight, row[begin:end]) for weight, row in rows)
    return total


def blocks(count: int) -> list[slice]:
    """The blocks of `count` rows, in their order."""
    return [slice(begin, begin + BLOCK) for begin in range(0, count, BLOCK)]
