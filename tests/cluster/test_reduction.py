"""One order of adding, wherever it is done."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distseq.cluster.reduction import CHUNK, blocks, digest, sum_in_place, weighted_sum


def drawn(count: int, length: int, seed: int) -> list[tuple[float, np.ndarray]]:
    """Rows whose sum depends on the order of adding: their sizes are far apart."""
    draws = np.random.default_rng(seed)
    sizes = 10.0 ** draws.integers(-20, 20, (count, length))
    rows = draws.standard_normal((count, length)) * sizes
    weights = draws.choice([1.0, 1.0, -0.3], count)
    return list(zip(weights.tolist(), rows, strict=True))


@given(st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_blocks_added_anywhere_give_the_same_bits(count: int, seed: int) -> None:
    rows = drawn(count, 5, seed)
    level = rows
    while len(level) > 1:
        level = [(1.0, sum_in_place(level[block])) for block in blocks(len(level))]
    total = level[0][1] if count > 1 else weighted_sum(rows)
    assert total.tobytes() == weighted_sum(iter(rows)).tobytes()


def test_the_order_is_that_of_pairs() -> None:
    a, b, c = (np.array([x]) for x in (1.0, 2.0**-53, 2.0**-53))
    assert weighted_sum([(1.0, a), (1.0, b), (1.0, c)])[0] == 1.0  # (a + b) + c
    assert weighted_sum([(1.0, b), (1.0, c), (1.0, a)])[0] > 1.0


def test_rows_longer_than_a_chunk_are_added_alike() -> None:
    rows = drawn(6, CHUNK + 3, 1)
    before = [row.copy() for _, row in rows]
    assert sum_in_place(rows).tobytes() == weighted_sum(rows).tobytes()
    for (_, row), kept in zip(rows, before, strict=True):
        np.testing.assert_array_equal(row, kept)


@pytest.mark.parametrize("add", [weighted_sum, sum_in_place])
def test_rows_of_different_lengths_are_refused(add: object) -> None:
    with pytest.raises(ValueError, match="rows of one job must have equal lengths: got 3 and 2"):
        add([(1.0, np.ones(2)), (1.0, np.ones(3))])  # type: ignore[operator]


def test_the_digest_sees_every_bit() -> None:
    row = np.ones(3, dtype=np.float32)
    other = row.copy()
    other.view(np.uint8)[5] ^= 1
    assert digest(row) == digest(row.copy()) != digest(other)
