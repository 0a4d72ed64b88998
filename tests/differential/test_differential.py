"""Any small model, data, scheme and pool: the run ends with the weights of a plain PyTorch loop, or is refused by name."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.differential.comparing import Found, check
from tests.differential.worlds import Run, runs
from tests.examples import THOROUGH

# A busy machine takes many times the seconds of a free one, and time that ran out must not be taken for a difference.
pytestmark = pytest.mark.timeout(1800)

# Of real workers: their own seconds are delays enough.
HOSTS = {"hosts": 1, "delays": "none"}
# Of all draws, at most this share may be refused.
REFUSALS = 0.25
# `make test` tries one in so many.
SHARE = 9


def amount(count: int) -> settings:
    """Settings that try so many runs in `make test-long`, always the same ones."""
    tried = count if settings.get_current_profile_name() in THOROUGH else max(2, count // SHARE)
    return settings(deadline=None, derandomize=True, max_examples=tried, suppress_health_check=list(HealthCheck))


def try_all(which: st.SearchStrategy[Run], count: int, pool: dict[str, Any] | None = None) -> Found:
    """Tries about so many learners in all; a run has two in the mean, on real workers ten."""
    found = Found()

    # One run more: the first that Hypothesis tries is the simplest there is.
    @amount(1 + count // (2 if pool is None else 10))
    @given(run=which)
    def each(run: Run) -> None:
        with TemporaryDirectory() as folder:
            check(run, Path(folder), found, pool)

    each()
    print(found)
    assert sum(found.refused.values()) <= REFUSALS * found.draws
    return found


def test_any_run_is_what_plain_pytorch_does_or_is_refused() -> None:
    assert try_all(runs(draws=False, counts=False), 900).draws > 30


def test_dropout_and_other_draws_are_those_of_a_loop_that_seeds_each_block() -> None:
    try_all(runs(draws=True, counts=False), 300)


def test_losses_with_counts_are_divided_by_the_sum_of_counts() -> None:
    try_all(runs(draws=False, counts=True), 300)


def test_runs_that_are_stopped_and_resumed_end_as_if_they_were_not() -> None:
    assert try_all(runs(stops=True), 300).stopped


def test_any_learners_on_local_hosts() -> None:
    """Few runs of many learners: hosts take longer to start than to train these."""
    try_all(runs(learners=(10, 10)), 100, HOSTS | {"pool": "local"})


@pytest.mark.ray
@pytest.mark.slow
def test_any_learners_on_ray(ray_session: None) -> None:
    try_all(runs(learners=(10, 10)), 10, HOSTS | {"pool": "ray"})
