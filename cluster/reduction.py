"""The fixed order in which rows are added: neighbours in pairs, then pairs of pairs, in float64.

A block of BLOCK neighbours is a subtree of that order, so any host may add it without changing a bit of the result.
"""

import zlib
from collections.abc import Iterable, Sequence

import numpy as np

# Rows added in one place. It must be a power of two to be a subtree. Larger blocks move more rows to one host, smaller ones
# make the tree of remote sums deeper.
BLOCK = 4
# Numbers of a row that are added at a time: the partial sums, log2(rows) vectors of float64, then take half a megabyte each
# and stay in the cache instead of needing several copies of the model.
CHUNK = 1 << 16


def digest(row: np.ndarray) -> int:
    """crc32 of a row's bytes."""
    # It guards against rows overwritten or mixed up on their way, not against an attacker: a MB takes about .2 ms.
    return zlib.crc32(np.ascontiguousarray(row).data.cast("B"))


def check_lengths(lengths: Sequence[int]) -> None:
    """ValueError if rows of one job differ in length."""
    other = next((length for length in lengths if length != lengths[0]), None)
    if other is not None:
        raise ValueError(f"rows of one job must have equal lengths: got {other} and {lengths[0]}")


def weighted_sum(rows: Iterable[tuple[float, np.ndarray]]) -> np.ndarray:
    """(L,) float64: sum of weight x row, in the order given. ValueError if rows differ in length."""
    # A binary counter: sums of 2^k rows, k decreasing, so that rows may be a generator and only log2(rows) sums are alive.
    partial: list[tuple[int, np.ndarray]] = []
    for weight, row in rows:
        if partial:
            check_lengths([len(partial[0][1]), len(row)])
        # float64 keeps the rounding of the sum far below that of float32 rows, even under dense codes, which amplify errors.
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
    """`weighted_sum` of rows that are all in memory, without copying any of them as a whole."""
    check_lengths([len(row) for _, row in rows])
    total = np.empty(len(rows[0][1]))
    for begin in range(0, len(total), CHUNK):
        end = begin + CHUNK
        total[begin:end] = weighted_sum((weight, row[begin:end]) for weight, row in rows)
    return total


def blocks(count: int) -> list[slice]:
    """The blocks of `count` rows, in order."""
    return [slice(begin, begin + BLOCK) for begin in range(0, count, BLOCK)]
