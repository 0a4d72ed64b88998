"""Straggler models against their definitions, written out again here word for word."""

from collections.abc import Callable
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distseq.coding.stragglers import (
    Arbitrary,
    Bursty,
    EitherInWindow,
    History,
    PerRound,
    StragglerModel,
    conforms,
)
from tests.coding.conforming import CASES, Case
from tests.coding.patterns import patterns, random_pattern
from tests.coding.strategies import PROPERTY, generators


def windows(pattern: np.ndarray, length: int) -> list[np.ndarray]:
    """Every window of `length` consecutive rounds, or the whole pattern if it is shorter."""
    return [pattern[t : t + length] for t in range(max(1, len(pattern) - length + 1))]


def at_most(pattern: np.ndarray, s: int) -> bool:
    return all(sum(map(bool, stragglers)) <= s for stragglers in pattern)


def bursty(pattern: np.ndarray, B: int, W: int, lam: int) -> bool:
    """At most lam distinct stragglers in W rounds; two straggles of one worker are at a distance d <= B - 1 or d >= W."""
    few = all(np.count_nonzero(window.any(axis=0)) <= lam for window in windows(pattern, W))
    times = [np.flatnonzero(pattern[:, i]) for i in range(pattern.shape[1])]
    return few and all(d <= B - 1 or d >= W for t in times for d in (b - a for a, b in combinations(t, 2)))


def arbitrary(pattern: np.ndarray, N: int, W: int, lam: int) -> bool:
    """At most lam distinct stragglers in W rounds, each straggling at most N times in them."""
    return all(
        np.count_nonzero(window.any(axis=0)) <= lam and (window.sum(axis=0) <= N).all()
        for window in windows(pattern, W)
    )


def mixed(pattern: np.ndarray, B: int, W: int, lam: int, s: int) -> bool:
    """In each W rounds bursty, or at most s stragglers in each of them."""
    return all(bursty(window, B, W, lam) or at_most(window, s) for window in windows(pattern, W))


Definition = Callable[[np.ndarray], bool]
MODELS: list[tuple[StragglerModel, Definition]] = [
    (PerRound(1), lambda p: at_most(p, 1)),
    (PerRound(0), lambda p: at_most(p, 0)),
    *(
        (Bursty(B, W, lam), lambda p, a=(B, W, lam): bursty(p, *a))
        for B, W, lam in [(1, 2, 1), (1, 2, 2), (2, 3, 2), (1, 3, 3), (2, 2, 1)]
    ),
    *(
        (Arbitrary(N, W, lam), lambda p, a=(N, W, lam): arbitrary(p, *a))
        for N, W, lam in [(1, 2, 1), (1, 3, 2), (2, 4, 2), (2, 3, 3), (0, 2, 2)]
    ),
    *(
        (EitherInWindow((Bursty(B, W, lam), PerRound(s))), lambda p, a=(B, W, lam, s): mixed(p, *a))
        for B, W, lam, s in [(1, 2, 2, 1), (1, 2, 3, 2), (2, 3, 2, 1), (1, 3, 3, 1)]
    ),
    (
        EitherInWindow((Bursty(1, 2, 2), Bursty(1, 3, 1))),
        lambda p: all(bursty(window, 1, 2, 2) or bursty(window, 1, 3, 1) for window in windows(p, 3)),
    ),
]
models = pytest.mark.parametrize(
    ("model", "definition"), MODELS, ids=lambda m: "" if callable(m) else str(m).replace(" ", "")
)


def tables(n: int, rounds: int) -> list[np.ndarray]:
    return [np.array(bits, dtype=bool).reshape(rounds, n) for bits in product((False, True), repeat=n * rounds)]


@models
@pytest.mark.parametrize(("n", "rounds"), [(2, 1), (2, 5), (3, 3), (1, 8)])
def test_the_patterns_of_a_model_are_those_of_its_definition(
    model: StragglerModel, definition: Definition, n: int, rounds: int
) -> None:
    expected = {pattern.tobytes() for pattern in tables(n, rounds) if definition(pattern)}
    listed = [pattern.tobytes() for pattern in patterns(model, n, rounds)]
    assert len(listed) == len(set(listed))
    assert set(listed) == expected


@models
@PROPERTY
@given(rate=st.sampled_from((0.05, 0.15, 0.3)), draws=generators())
def test_a_pattern_conforms_exactly_by_the_definition(
    model: StragglerModel, definition: Definition, rate: float, draws: np.random.Generator
) -> None:
    for rounds in (1, 4, 9):
        pattern = draws.random((rounds, 5)) < rate
        assert conforms(pattern, model) == definition(pattern)


@models
@PROPERTY
@given(rate=st.sampled_from((0.1, 0.5, 1.0)), draws=generators())
def test_a_random_pattern_conforms(
    model: StragglerModel, definition: Definition, rate: float, draws: np.random.Generator
) -> None:
    pattern = random_pattern(model, 6, 12, rate, draws)
    assert pattern.shape == (12, 6)
    assert definition(pattern)


def test_a_random_pattern_at_full_rate_leaves_no_room_for_another_straggler() -> None:
    pattern = random_pattern(Bursty(1, 2, 3), 8, 1, 1.0, np.random.default_rng(0))
    assert pattern.sum() == 3


@PROPERTY
@given(draws=generators())
def test_a_history_conforms_while_one_of_its_models_allows_all_of_it(draws: np.random.Generator) -> None:
    either = [Bursty(2, 3, 2), Arbitrary(2, 4, 2), PerRound(1)]
    history, pattern = History(either, 4), np.zeros((0, 4), dtype=bool)
    for _ in range(12):
        stragglers = draws.random(4) < 0.25
        longer = np.vstack([pattern, stragglers])
        expected = any(conforms(longer, model) for model in either)
        assert history.allows(stragglers) == expected
        if expected:
            history.append(stragglers)
            pattern = longer


def test_a_round_that_no_model_allows_leaves_the_models_in_force() -> None:
    history = History([PerRound(1)], 3)
    history.append(np.array([True, True, False]))
    assert history.allows(np.array([True, False, False]))
    assert not history.allows(np.array([True, True, False]))


@pytest.mark.parametrize("case", [case for case in CASES if max(case.counts) <= 2000], ids=str)
def test_the_number_of_conforming_patterns_is_the_known_one(case: Case) -> None:
    check_counts(case)


@pytest.mark.long
@pytest.mark.parametrize("case", [case for case in CASES if max(case.counts) > 2000], ids=str)
def test_the_number_of_conforming_patterns_is_the_known_one_where_there_are_many(case: Case) -> None:
    check_counts(case)


def check_counts(case: Case) -> None:
    found = tuple(sum(1 for _ in patterns(model, case.scheme.n, case.rounds)) for model in case.scheme.models)
    assert found == case.counts
