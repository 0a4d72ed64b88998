"""Bounds that know every start-up time: against their definitions, and in order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distseq.coding.bounds import genie_set, genie_wf, least_seconds, rounds_bounds
from tests.coding.strategies import PROPERTY, generators

slopes = st.sampled_from((0.0, 0.3, 2.0, 40.0))


def any_startups(n: int, draws: np.random.Generator) -> np.ndarray:
    return 0.5 * draws.random((7, n)) + (draws.random((7, n)) < 0.3) * draws.pareto(1.0, (7, n))


@PROPERTY
@given(n=st.integers(1, 9), draws=generators(), slope=slopes, batches=st.sampled_from((1, 5)))
def test_at_the_water_level_exactly_the_asked_for_batches_are_computed(
    n: int, draws: np.random.Generator, slope: float, batches: int
) -> None:
    startups = any_startups(n, draws)
    levels = genie_wf(startups, slope, batches)
    computed = np.maximum(0.0, levels[:, None] - startups).sum(axis=1)
    np.testing.assert_allclose(computed, batches * slope, rtol=1e-12, atol=1e-12)
    assert (levels >= startups.min(axis=1) - 1e-12).all()


@PROPERTY
@given(n=st.integers(1, 9), draws=generators(), slope=slopes)
def test_an_uneven_split_beats_every_even_one_and_that_every_gradient_code(
    n: int, draws: np.random.Generator, slope: float
) -> None:
    startups = any_startups(n, draws)
    uneven, even = genie_wf(startups, slope), genie_set(startups, slope)
    in_order = np.sort(startups, axis=1)
    np.testing.assert_array_equal(even, np.min([in_order[:, m - 1] + slope / m for m in range(1, n + 1)], axis=0))
    assert (uneven <= even + 1e-12).all()
    for s in range(n):
        assert (even <= in_order[:, n - s - 1] + slope * (s + 1) / n + 1e-12).all()


def test_the_bounds_of_a_few_workers_can_be_counted() -> None:
    # Row 0: one worker alone 1 + 4, two 3 + 4/2, three 9 + 4/3; water at 4: 3 + 1 seconds of computing. Row 1: all start at 1.
    startups = np.array([[1.0, 3.0, 9.0], [1.0, 1.0, 1.0]])
    assert genie_set(startups, 4.0).tolist() == [5.0, pytest.approx(1 + 4 / 3)]
    assert genie_wf(startups, 4.0).tolist() == [4.0, pytest.approx(1 + 4 / 3)]
    # Three rounds take rows 0, 1, 0.
    bounds = rounds_bounds(startups, 4.0, jobs=3, master=0.5)
    assert bounds == {"genieWF": pytest.approx(9.5 + 7 / 3), "genieSet": pytest.approx(11.5 + 7 / 3)}


def test_what_no_scheduler_beats_is_a_model_s_jobs_in_a_row_or_all_computing_or_the_master() -> None:
    startups = np.array([[1.0, 9.0], [7.0, 3.0]])  # at best 1 and 3
    # A job alone: 1 + 2 and 3 + 0 seconds; two in a row, each with a second of the master.
    assert least_seconds(startups, 2.0, models=2, jobs=4, master=1.0) == 8.0
    # 8 jobs of 8 models: (16 + 1 + 3)/2 for the computing, 3 for a job.
    assert least_seconds(startups, 2.0, models=8, jobs=8) == 10.0
    assert least_seconds(startups, 2.0, models=8, jobs=8, master=3.0) == 24.0
