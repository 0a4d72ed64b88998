"""A gradient code: any n - s rows give back the exact sum of all parts."""

from itertools import combinations, product

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

from distseq.coding.codes.cyclic import Cyclic, DenseCode, cyclic_matrix
from distseq.coding.codes.fractional_repetition import FractionalRepetition
from distseq.coding.codes.gradient_code import GradientCode
from distseq.coding.codes.registry import CODES, check_precision, make_code
from tests.coding.strategies import PROPERTY, code_sizes, generators

E1 = DenseCode(np.array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1], [1, 0, 0, 1]]) / 2, 1)
TANDON = DenseCode(np.array([[0.5, 1, 0], [0, 1, -1], [0.5, 0, 1]]), 1)

kinds = pytest.mark.parametrize("kind", CODES)


def matrix(code: GradientCode) -> np.ndarray:
    """B (n, parts) of a code, read off its rows."""
    B = np.zeros((code.n, code.parts))
    for i in range(code.n):
        for part, coefficient in code.row(i):
            B[i, part] += coefficient
    return B


def survivors(n: int, stragglers: tuple[int, ...]) -> np.ndarray:
    has = np.ones(n, dtype=bool)
    has[list(stragglers)] = False
    return has


def subsets(n: int) -> list[np.ndarray]:
    return [np.array(bits, dtype=bool) for bits in product((False, True), repeat=n)]


def check_decode(code: GradientCode, has: np.ndarray) -> None:
    """These rows decode: weights vanish outside, a^T B = 1^T, and integer parts come back as their sum."""
    a, B = code.decode(has), matrix(code)
    assert not a[~has].any()
    assert np.abs(a @ B - 1).max() <= 1e-8
    parts = np.arange(1, code.parts + 1) ** 2
    decoded = a @ (B @ parts)
    if isinstance(code, FractionalRepetition):
        assert decoded == parts.sum()
    else:
        assert decoded == pytest.approx(parts.sum(), rel=1e-8)


@kinds
@pytest.mark.parametrize("n", range(1, 9))
def test_every_straggler_set_of_at_most_s_decodes(kind: str, n: int) -> None:
    for s in range(n):
        code = make_code(kind, n, s)
        for size in range(s + 1):
            for stragglers in combinations(range(n), size):
                check_decode(code, survivors(n, stragglers))


@kinds
@PROPERTY
@given(size=code_sizes(32), draws=generators())
def test_random_and_contiguous_straggler_sets_decode_up_to_32_workers(
    kind: str, size: tuple[int, int], draws: np.random.Generator
) -> None:
    n, s = size
    code, first = make_code(kind, n, s), int(draws.integers(n))
    check_decode(code, survivors(n, tuple(draws.permutation(n)[:s])))
    check_decode(code, survivors(n, tuple((first + j) % n for j in range(s))))


def test_a_badly_conditioned_draw_is_not_kept() -> None:
    code = make_code("cyclic", 32, 6)
    for first in range(32):
        check_decode(code, survivors(32, tuple((first + j) % 32 for j in range(6))))


@kinds
@pytest.mark.parametrize("n", range(1, 7))
def test_nothing_is_short_exactly_when_the_all_ones_row_is_in_the_span(kind: str, n: int) -> None:
    for s in range(n):
        code = make_code(kind, n, s)
        B, ones = matrix(code), np.ones(code.parts)
        for has in subsets(n):
            a = np.linalg.lstsq(B[has].T, ones, rcond=None)[0]
            spans = bool(np.allclose(a @ B[has], ones, atol=1e-8))
            assert (code.shortage(has) is None) == spans
            if spans:
                check_decode(code, has)
            else:
                with pytest.raises(ValueError, match=r"do not decode|needs a row|only from all"):
                    code.decode(has)


@kinds
@pytest.mark.parametrize("n", range(1, 7))
def test_rows_that_end_a_shortage_hold_at_least_need_rows_of_its_workers(kind: str, n: int) -> None:
    for s in range(n):
        code = make_code(kind, n, s)
        decoding = [has for has in subsets(n) if code.shortage(has) is None]
        for has in subsets(n):
            shortage = code.shortage(has)
            if shortage is not None:
                assert shortage.need >= 1
                assert not (shortage.workers & has).any()
                assert all(
                    np.count_nonzero(more & shortage.workers) >= shortage.need
                    for more in decoding
                    if not (has & ~more).any()
                )


@PROPERTY
@given(size=code_sizes(24), draws=generators())
def test_fractional_repetition_decodes_exactly_when_each_replica_set_has_answered(
    size: tuple[int, int], draws: np.random.Generator
) -> None:
    code = FractionalRepetition(*size)
    for rate in (0.2, 0.5, 0.8):
        has = draws.random(code.n) < rate
        answered = {int(code.replica_set[i]) for i in np.flatnonzero(has)}
        assert (code.shortage(has) is None) == (len(answered) == code.parts)
        assert set(np.flatnonzero(code.answered(has))) == answered


@PROPERTY
@given(size=code_sizes(300))
def test_replica_sets_are_contiguous_and_even_with_the_larger_first(size: tuple[int, int]) -> None:
    n, s = size
    code = FractionalRepetition(n, s)
    sizes = np.bincount(code.replica_set)
    assert len(sizes) == code.parts == n // (s + 1)
    assert sizes.min() >= s + 1
    assert list(sizes) == sorted(sizes, reverse=True)
    assert sizes.max() - sizes.min() <= 1
    assert list(code.replica_set) == sorted(code.replica_set)
    assert list(code.member) == [j for width in sizes for j in range(width)]
    assert code.load * code.parts == 1


def test_seven_workers_in_sets_of_at_least_two_are_three_two_and_two() -> None:
    assert list(FractionalRepetition(7, 1).replica_set) == [0, 0, 0, 1, 1, 2, 2]
    assert list(FractionalRepetition(8, 2).replica_set) == [0, 0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize(("n", "s"), [(3, 1), (5, 2), (8, 3), (9, 8), (16, 6)])
def test_a_cyclic_row_covers_its_own_part_and_the_s_next(n: int, s: int) -> None:
    code = Cyclic(n, s)
    for i in range(n):
        assert sorted(part for part, _ in code.row(i)) == sorted((i + j) % n for j in range(s + 1))
        assert dict(code.row(i))[i] == 1
    assert code.load * n == s + 1


def test_a_given_code_decodes_with_zero_weights_where_they_are_right() -> None:
    rows = E1.B @ [1, 2, 3, 4]
    assert list(rows) == [1.5, 2.5, 3.5, 2.5]
    for lost, weights in {(3,): (2, 0, 2, 0), (2,): (0, 2, 0, 2), (): (1, 1, 1, 1)}.items():
        a = E1.decode(survivors(4, lost))
        assert a == pytest.approx(weights)
        assert a @ rows == pytest.approx(10)


def test_the_example_of_tandon_with_three_workers_decodes_from_any_two() -> None:
    for lost, weights in {2: (2, -1, 0), 1: (1, 0, 1), 0: (0, 1, 2)}.items():
        assert TANDON.decode(survivors(3, (lost,))) == pytest.approx(weights)
    assert TANDON.row(1) == ((1, 1.0), (2, -1.0))


@pytest.mark.parametrize(("n", "s"), [(4, 1), (5, 2), (8, 3), (8, 6)])
def test_a_dense_code_refuses_too_few_rows(n: int, s: int) -> None:
    code = Cyclic(n, s)
    for stragglers in combinations(range(n), s + 1):
        with pytest.raises(ValueError, match=f"rows of {n - s - 1} of {n} workers do not decode"):
            code.decode(survivors(n, stragglers))


def test_decode_weights_of_a_dense_code_are_cached_and_read_only() -> None:
    code, has = Cyclic(6, 2), survivors(6, (1, 4))
    weights = code.decode(has)
    assert code.decode(has.copy()) is weights
    with pytest.raises(ValueError, match="read-only"):
        weights[0] = 1.0


@kinds
def test_a_code_is_made_once(kind: str) -> None:
    assert make_code(kind, 6, 2) is make_code(kind, 6, 2)


def test_draws_of_a_code_depend_on_its_size_only() -> None:
    before = Cyclic(8, 2).B
    np.random.seed(1)
    assert np.array_equal(before, Cyclic(8, 2).B)
    assert any((cyclic_matrix(8, 4, seed) == Cyclic(8, 4).B).all() for seed in range(8))
    assert (cyclic_matrix(8, 2, seed=0) != cyclic_matrix(8, 2, seed=1)).any()


@pytest.mark.parametrize(("n", "s"), [(6, 1), (8, 2), (8, 3)])
def test_the_best_conditioned_of_eight_draws_is_kept(n: int, s: int) -> None:
    draws = [DenseCode(cyclic_matrix(n, s, seed), s).amplification for seed in range(8)]
    assert Cyclic(n, s).amplification == min(draws) < max(draws)


def test_a_draw_that_does_not_decode_is_passed_over() -> None:
    with pytest.raises(ValueError, match="do not decode"):
        _ = DenseCode(cyclic_matrix(32, 2, seed=6), 2).amplification
    assert Cyclic(32, 2).amplification < 1e4


@PROPERTY
@given(size=code_sizes(7).filter(lambda size: size[1] > 0))
def test_amplification_is_the_worst_over_all_tolerated_straggler_sets(size: tuple[int, int]) -> None:
    n, s = size
    code = make_code("cyclic", n, s)
    masks = [survivors(n, lost) for k in range(s + 1) for lost in combinations(range(n), k)]
    growth = [sum(abs(code.decode(has)[i] * c) for i in range(n) for _, c in code.row(i)) / n for has in masks]
    assert code.amplification == pytest.approx(max(growth))


@PROPERTY
@given(size=code_sizes(64))
def test_fractional_repetition_amplifies_nothing(size: tuple[int, int]) -> None:
    assert FractionalRepetition(*size).amplification == 1


def test_a_code_is_refused_for_a_message_type_that_it_would_ruin() -> None:
    with pytest.raises(ValueError, match=r"n=256, s=27 amplifies float32 rounding .* use code=fr"):
        check_precision(Cyclic(256, 27), np.dtype(np.float32))
    with pytest.raises(ValueError, match="n=16, s=3 amplifies float16"):
        check_precision(Cyclic(16, 3), np.dtype(np.float16))
    check_precision(Cyclic(16, 3), np.dtype(np.float32))
    check_precision(FractionalRepetition(256, 27), np.dtype(np.float16))


@kinds
@given(n=st.integers(-1, 6), s=st.integers(-2, 8))
@PROPERTY
def test_a_code_needs_workers_and_fewer_stragglers_than_workers(kind: str, n: int, s: int) -> None:
    if n >= 1 and 0 <= s < n:
        assert make_code(kind, n, s).n == n
    else:
        with pytest.raises(ValueError, match=f"needs .*: got n={n}"):
            make_code(kind, n, s)


def test_an_unknown_code_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown code 'raptor'; known: fr, cyclic"):
        make_code("raptor", 4, 1)


@pytest.mark.parametrize(("n", "s"), [(3, 1), (8, 2), (16, 5), (24, 3)])
def test_all_decoders_are_the_least_one_and_the_null_space(n: int, s: int) -> None:
    code = Cyclic(n, s)
    least, null = code._solutions
    expected = scipy.linalg.null_space(code.B.T)
    np.testing.assert_allclose(null @ null.T, expected @ expected.T, atol=1e-9)
    np.testing.assert_allclose(least, scipy.linalg.lstsq(code.B.T, np.ones(n))[0], atol=1e-9)
