"""Generated delay profiles: pure functions of name, seed, worker count and base."""

import re
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from distseq.cluster.profiles import BASE, PROFILES, ROUNDS, SLOPE, delays, profile
from distseq.cluster.trace import Trace

names = pytest.mark.parametrize("name", PROFILES)
random_names = pytest.mark.parametrize("name", [name for name in PROFILES if name != "none"])


@names
def test_a_profile_is_finite_and_has_a_column_for_each_worker(name: str) -> None:
    trace = profile(name, 12, seed=0)
    assert trace.times.shape == (ROUNDS, 12)
    assert np.isfinite(trace.times).all()
    assert (trace.times >= 0).all()
    assert (trace.load, trace.slope) == (0.0, SLOPE)


@names
def test_a_profile_depends_on_its_arguments_only(name: str) -> None:
    first = profile(name, 7, seed=3)
    np.random.default_rng(0).random(5)
    for other in PROFILES:
        profile(other, 5, seed=1)
    np.testing.assert_array_equal(profile(name, 7, seed=3).times, first.times)


@random_names
def test_other_seeds_give_other_delays(name: str) -> None:
    tables = [profile(name, 7, seed=seed).times for seed in range(4)]
    for k, table in enumerate(tables):
        assert not any(np.array_equal(table, other) for other in tables[:k])


def test_profiles_of_one_seed_do_not_share_their_draws() -> None:
    ranks = [profile(name, 7, seed=0).times[:, -1].argsort().argsort() for name in PROFILES if name != "none"]
    correlations = np.corrcoef(ranks) - np.eye(len(ranks))
    assert np.abs(correlations).max() < 0.2


@names
def test_the_base_scales_start_up_and_compute_alike(name: str) -> None:
    usual, scaled = profile(name, 6, seed=2), profile(name, 6, seed=2, base=BASE / 12)
    np.testing.assert_allclose(scaled.times, usual.times / 12, rtol=1e-12)
    assert scaled.slope == pytest.approx(SLOPE / 12)


def probable(events: np.ndarray, rate: float) -> bool:
    """Whether so many of these events may come about at this rate: but for one time in a million."""
    return bool(scipy.stats.binomtest(int(events.sum()), events.size, rate).pvalue > 1e-6)


def test_each_profile_is_what_its_name_says() -> None:
    tables = {name: profile(name, 64, seed=0, base=1.0).times for name in PROFILES}
    assert not tables["none"].any()
    slow = tables["bursts"] > 2.5
    assert probable(slow[1:][~slow[:-1]], 0.04), "who does not straggle starts to in one round of 25"
    assert probable(slow[1:][slow[:-1]], 0.4), "a straggler straggles on in two rounds of five"
    assert 1e-3 < (tables["heavy-tail"] > 4).mean() < 3e-2
    np.testing.assert_allclose(np.median(tables["one-slow"], axis=0), [6.0] + [1.0] * 63, rtol=0.05)
    np.testing.assert_allclose(np.median(tables["half-slow"], axis=0), [3.0] * 32 + [1.0] * 32, rtol=0.05)
    spikes = tables["spikes"] > 40
    assert probable(spikes, 1e-3)
    assert tables["spikes"][~spikes].max() < 2


@pytest.mark.parametrize("base", [0.0, -1.0, float("nan"), float("inf"), 2e6])
def test_a_base_that_is_no_length_of_time_is_refused(base: float) -> None:
    with pytest.raises(ValueError, match=re.escape(f"base must be seconds > 0, and at most 1e+06: got {base}")):
        profile("none", 4, seed=0, base=base)


def test_a_profile_that_does_not_exist_is_named() -> None:
    with pytest.raises(ValueError, match="unknown delay profile 'storms'; known: none, bursts, "):
        profile("storms", 4, seed=0)


def test_delays_are_a_profile_by_name_with_or_without_a_base() -> None:
    for spec, base in (
        ("bursts", BASE),
        ("bursts:base=0.05", 0.05),
        ("bursts:base=2", 2.0),
        ("bursts:base=1e-3", 1e-3),
    ):
        expected, found = profile("bursts", 5, seed=9, base=base), delays(spec, 5, seed=9)
        np.testing.assert_array_equal(found.times, expected.times)
        assert found.slope == expected.slope


def test_delays_are_a_trace_file_too_as_wide_as_asked(tmp_path: Path) -> None:
    times = np.random.default_rng(0).random((3, 5))
    Trace(times, 0.0, 1.0).save(tmp_path / "trace.npz")
    np.testing.assert_array_equal(delays(str(tmp_path / "trace.npz"), 4, seed=0).times, times[:, :4])
    with pytest.raises(ValueError, match="the trace has 5 workers, but 6 are needed"):
        delays(str(tmp_path / "trace.npz"), 6, seed=0)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("bursts:base=fast", "delay profile 'bursts:base=fast': the only option is base=SECONDS"),
        ("bursts:base=", "delay profile 'bursts:base=': the only option is base=SECONDS"),
        ("bursts:base=nan", "delay profile 'bursts:base=nan': the only option is base=SECONDS"),
        ("bursts:speed=2", "delay profile 'bursts:speed=2': the only option is base=SECONDS"),
        ("bursts:0.5", "delay profile 'bursts:0.5': the only option is base=SECONDS"),
        ("bursts:base=0", "base must be seconds > 0, and at most 1e\\+06: got 0.0"),
        ("bursts:base=-2", "base must be seconds > 0, and at most 1e\\+06: got -2.0"),
        ("storms", "delays 'storms' is neither a profile \\(none, bursts, .*\\) nor a trace file"),
        ("gone/trace.npz", "delays 'gone/trace.npz' is neither a profile"),
    ],
)
def test_delays_that_make_no_sense_are_named(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        delays(spec, 4, seed=0)
    assert "\n" not in str(error.value)
