"""The tables of make bench-temporal: paired differences, their intervals, and the aims."""

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_rel

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))

from temporal_report import by_seed, interval, paired, report
from temporal_runs import choices, compared, muon, read


def run(setup: Any, seed: int, ap: float, mrr: float) -> dict[str, Any]:
    names = ("data", "mode", "batch", "lr", "momentum", "times")
    found = {"ap": ap, "mrr": mrr}
    return {**{name: getattr(setup, name) for name in names}, "seed": seed, "seconds_per_epoch": 1.0, "test": found}


def test_intervals_are_those_of_a_paired_t_test() -> None:
    draws = np.random.default_rng(0)
    one, other = draws.normal(size=8), draws.normal(size=8)
    expected = ttest_rel(one, other).confidence_interval(0.95)
    mean, half, seeds = paired(dict(enumerate(one)), dict(enumerate(other)))
    assert seeds == 8
    assert (mean - half, mean + half) == pytest.approx((100 * expected.low, 100 * expected.high))
    assert math.isnan(interval([])[0])
    assert math.isnan(interval([1.0])[1])


def test_only_seeds_that_both_have_are_compared() -> None:
    assert paired({0: 0.5, 1: 0.7, 3: 0.9}, {1: 0.6, 3: 0.8, 4: 0.1})[2] == 2


@pytest.mark.parametrize(
    ("ap", "said"), [(0.985, "aim above -1 in both: met"), (0.975, "aim above -1 in both: NOT met")]
)
def test_an_aim_is_met_or_not(ap: float, said: str) -> None:
    best, large = choices("wikipedia")[1], muon("wikipedia", "exact", 3200)
    done = [run(best, seed, 0.99, 0.87) for seed in range(3)] + [run(large, seed, ap, 0.87) for seed in range(3)]
    lines = report(done, choices("wikipedia"), compared("wikipedia"), {"muon": best, "adam": None})
    assert any(said in line for line in lines)
    assert any("the rates are not chosen yet" in line for line in lines)
    assert any(line.startswith("wikipedia pres 3200") and line.endswith("missing") for line in lines)
    assert by_seed(done, large, "ap") == {0: ap, 1: ap, 2: ap}


def test_a_line_that_was_cut_off_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "runs.jsonl").write_text('{"seed": 1}\n{"seed": 2, "te')
    assert read(tmp_path / "runs.jsonl") == [{"seed": 1}]
    assert read(tmp_path / "none.jsonl") == []
