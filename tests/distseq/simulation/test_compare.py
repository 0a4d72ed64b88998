"""Laws between schemes and bounds, on any trace and on recorded ones; a sweep over all families."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distseq.cli.main import cli
from distseq.cluster.profiles import profile
from distseq.cluster.trace import Trace, load_trace
from distseq.scheduling.adaptive.candidates import Candidate, candidates, family
from distseq.scheduling.closing import Closing, Mu, Safe
from distseq.scheduling.pipeline import Pipeline
from distseq.simulation.compare import best_of_families, bounds_of, simulate_schemes
from distseq.simulation.simulate import Setting, simulate
from distseq.simulation.tables import table
from tests.coding.strategies import generators
from tests.distseq.simulation.test_simulate import DEFAULTS, any_trace
from tests.examples import examples

RECORDED = (
    "canada_l000",
    "canada_l025",
    "canada_l050",
    "canada_l075",
    "canada_l100",
    "canada_500",
    "canada_b2048_l000",
)
GENERATED = ("none", "bursts", "heavy-tail", "one-slow", "half-slow", "spikes")


def setting(trace: Trace, closing: Closing | None = None, **changes: Any) -> Setting:
    return Setting(trace, **({"models": 1, "jobs": 17, "closing": closing or Safe()} | changes))


def seconds(trace: Trace, candidate: Candidate, closing: Closing | None = None) -> float:
    return float(simulate(setting(trace, closing), candidate)["total_seconds"])


def least(where: Setting) -> dict[str, float]:
    return {bound["scheme"]: bound["total_seconds"] for bound in bounds_of(where)}


def check_laws(trace: Trace, s: int) -> None:
    """Of gradient coding that tolerates s stragglers, (s + 1) | n."""
    bounds = least(setting(trace))
    dense, repeated = f"gc:{s},code=cyclic", f"gc:{s}"
    codes = [seconds(trace, f"gc:{other},code=cyclic") for other in {0, s, trace.workers - 1}]
    assert bounds["genieAny"] <= bounds["genieWF"] + 1e-9
    assert bounds["genieWF"] <= bounds["genieSet"] + 1e-9
    assert bounds["genieSet"] <= min(codes) + 1e-9
    assert seconds(trace, dense) <= seconds(trace, dense, Mu(1.0)) + 1e-9
    assert seconds(trace, repeated) <= seconds(trace, dense) + 1e-9
    streamed = seconds(trace, f"gc:{s},q={s + 1}")
    assert bounds["genieWF"] <= streamed + 1e-9
    assert streamed <= seconds(trace, "uncoded") + 1e-9


@examples(40)
@given(sizes=st.sampled_from([(4, 2), (6, 2), (6, 3), (8, 2), (8, 4), (9, 3), (8, 8)]), draws=generators())
def test_bounds_and_schemes_are_in_order_on_any_trace(sizes: tuple[int, int], draws: np.random.Generator) -> None:
    n, replicas = sizes
    check_laws(any_trace(n, draws), replicas - 1)


@pytest.mark.parametrize("name", GENERATED)
def test_bounds_and_schemes_are_in_order_on_generated_profiles(name: str) -> None:
    check_laws(profile(name, 32, seed=0), 3)


@pytest.mark.parametrize("name", RECORDED)
def test_bounds_and_schemes_are_in_order_on_recorded_traces(shared: Path, name: str) -> None:
    # The dense code of more stragglers is refused for what it would do to rounding.
    check_laws(load_trace(shared / "traces" / f"{name}.npz").first(32), 3)


@examples(30)
@given(
    n=st.integers(1, 9),
    models=st.integers(1, 5),
    draws=generators(),
    unfinished=st.sampled_from(("lost", "serial")),
    master=st.sampled_from((0.0, 0.4)),
)
def test_no_candidate_is_faster_than_what_bounds_them_all(
    n: int, models: int, draws: np.random.Generator, unfinished: str, master: float
) -> None:
    trace = any_trace(n, draws)
    where = setting(
        Trace(trace.times, 0.0, trace.slope, master), models=models, jobs=models * 4 + 1, unfinished=unfinished
    )
    bound = least(where)["genieAny"]
    for candidate in candidates(n, models):
        assert simulate(where, candidate)["total_seconds"] >= bound - 1e-9


def test_where_nobody_straggles_a_pipeline_meets_the_bound() -> None:
    trace = Trace(np.ones((1, 4)), 0.0, 2.0)
    alone, many = setting(trace, jobs=6), setting(trace, models=8, jobs=8)
    assert simulate(alone, Pipeline(4))["total_seconds"] == least(alone)["genieAny"] == 9.0  # 6 x (1 + 2/4)
    assert (
        simulate(many, Pipeline(1))["total_seconds"] == 6.0
    )  # two rows of 1 + 2 seconds each; 5 with one start-up for both
    assert least(many)["genieAny"] == 5.0


def test_the_genie_on_the_measured_trace_takes_the_known_seconds(shared: Path) -> None:
    where = setting(load_trace(shared / "traces" / "canada_l000.npz"), models=4, jobs=80)
    bounds = {name: s / 80 for name, s in least(where).items()}
    assert bounds == {
        "genieWF": pytest.approx(0.6166, abs=1e-4),
        "genieSet": pytest.approx(0.6410, abs=1e-4),
        "genieAny": pytest.approx(0.1361, abs=1e-4),
    }


def test_where_a_worker_may_do_two_things_at_once_only_rounds_have_a_bound() -> None:
    assert set(least(setting(profile("bursts", 8, 0), unfinished="overlap"))) == {"genieWF", "genieSet"}


def run(**options: Any) -> list[dict[str, Any]]:
    return simulate_schemes(**(DEFAULTS | {"schemes": [], "profile": "bursts", "workers": 8, "jobs": 12} | options))


def test_bounds_are_marked_and_come_after_the_schemes() -> None:
    results = run(schemes=["uncoded", "gc:1"], bounds=True)
    assert [result["scheme"] for result in results if "bound" in result] == ["genieWF", "genieSet", "genieAny"]
    assert ["bound" in result for result in results] == [False, False, True, True, True]
    assert all(result["seconds_per_job"] == result["total_seconds"] / 12 for result in results)
    lines = table(results).splitlines()
    assert [line.split()[:2] for line in lines[-3:]] == [[f"genie{x}", "(bound)"] for x in ("WF", "Set", "Any")]


def test_a_sweep_tries_every_candidate_and_the_best_of_each_family_is_shown() -> None:
    results = run(sweep=True, bounds=True)
    names = [one.name if isinstance(one, Pipeline) else one for one in candidates(8, 4)]
    assert sorted(result["scheme"] for result in results if "bound" not in result) == sorted(names)
    best = best_of_families(results)
    families = [result["family"] for result in best[:-3]]
    assert sorted(families) == sorted({family(one) for one in candidates(8, 4)})
    for result in best[:-3]:
        same = [other["total_seconds"] for other in results if other.get("family") == result["family"]]
        assert result["total_seconds"] == min(same)
    assert [result.get("bound") is not None for result in best[-3:]] == [True] * 3


def test_a_sweep_prints_the_best_and_as_json_all(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["simulate", "--profile", "bursts", "--workers", "4", "--jobs", "8", "--sweep"]
    cli(words, standalone_mode=False)
    assert len(capsys.readouterr().out.splitlines()) == 2 + len({family(one) for one in candidates(4, 4)})
    cli([*words, "--json"], standalone_mode=False)
    assert len(json.loads(capsys.readouterr().out)) == len(candidates(4, 4))


def test_another_slope_is_as_if_the_trace_had_it(tmp_path: Path) -> None:
    startups = np.random.default_rng(0).random((10, 8))
    Trace(startups + 0.5 * 2.0, 0.5, 2.0).save(tmp_path / "loaded.npz")
    Trace(startups, 0.0, 7.0).save(tmp_path / "plain.npz")
    loaded, plain = (
        run(profile=None, trace=tmp_path / f"{name}.npz", schemes=["gc:1"], slope=slope)[0]
        for name, slope in (("loaded", 7.0), ("plain", None))
    )
    assert loaded == {**plain, **{key: pytest.approx(plain[key]) for key in plain if "seconds" in key}}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sweep": True, "schemes": ["gc:1"]}, "--sweep tries every family: it takes no --scheme"),
        ({"sweep": True, "scheduler": "pipeline"}, "--sweep tries every family: .*no --scheduler"),
        ({"sweep": True, "models": 0}, "at least one model and one job: got models=0"),
        ({"schemes": ["gc:1"], "slope": -1.0}, "load and slope must be finite and >= 0: got load=0.0, slope=-1.0"),
        ({"schemes": ["gc:1"], "slope": float("nan")}, "load and slope must be finite and >= 0: got .*slope=nan"),
    ],
)
def test_what_cannot_be_compared_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(**options)


def test_bounds_of_a_trace_with_lost_invocations_are_refused(tmp_path: Path) -> None:
    Trace(np.array([[1.0, np.nan], [1.0, 1.0]]), 0.0, 1.0).save(tmp_path / "lossy.npz")
    with pytest.raises(ValueError, match="bounds need a trace without lost invocations: it has 1"):
        run(profile=None, workers=None, trace=tmp_path / "lossy.npz", schemes=["uncoded"], bounds=True)
