"""`distseq simulate`: published and derived numbers on a measured trace, and laws on any trace."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distseq.cluster.trace import Trace
from distseq.scheduling.closing import Closing, Mu, Safe
from distseq.scheduling.pipeline import Pipeline
from distseq.simulation.compare import simulate_schemes
from distseq.simulation.simulate import Setting, simulate
from distseq.simulation.tables import table
from tests.coding.strategies import generators
from tests.examples import examples

ROOT = Path(__file__).resolve().parents[3]
JSON_KEYS = {
    "scheme",
    "load",
    "delay",
    "jobs",
    "models",
    "rounds",
    "waits",
    "total_seconds",
    "seconds_per_job",
    "worker_seconds_per_job",
}
DEFAULTS: dict[str, Any] = {
    "trace": None,
    "profile": None,
    "closing": "safe",
    "cutoff": 0.0,
    "mu": 1.0,
    "unfinished": "lost",
    "arrival": "scheme",
    "models": 4,
    "jobs": 80,
    "workers": None,
    "seed": 0,
}

# Jobs of four models on shared/traces/canada_l000.npz, late rows lost: scheme, closing, seconds, rounds that waited.
ON_CANADA = [
    ("uncoded", "mu", 123.096, None),
    ("gc:6,code=cyclic", "mu", 101.292, 54),
    ("gc:8,code=cyclic", "mu", 101.008, 34),
    ("gc:15,code=cyclic", "mu", 107.566, 5),
    ("msgc:1,2,27,code=cyclic", "mu", 98.637, 41),
    ("msgc:1,2,10,code=cyclic", "mu", 103.130, None),
    ("srsgc:2,3,23,code=cyclic", "mu", 105.524, 13),
    ("gc:15,code=cyclic", "safe", 90.909, None),
    ("gc:3", "safe", 55.599, None),
    ("gc:7", "safe", 55.120, None),
    ("gc:8,q=9", "safe", 53.391, None),
    ("backup:75", "safe", 110.144, None),
    ("redispatch:1,copies=4", "safe", 53.9590, None),
    ("redispatch:3,copies=4", "safe", 51.255, None),
]


# Models, jobs, parts, copies, lanes; the most seconds and worker-seconds per job, whatever an unfinished worker does.
PIPELINED_ON_CANADA = [
    (4, 400, (16, 3, 1), 0.200, 39),
    (4, 400, (10, 2, 1), 0.240, 20),
    (4, 80, (18, 3, 4), 0.200, 44),
    (16, 1600, (8, 2, 1), 0.065, 16),
    (64, 6400, (4, 1, 1), 0.022, 5),
    (256, 2560, (1, 1, 1), 0.0125, 3),
]


def run(schemes: list[str], **options: Any) -> list[dict[str, Any]]:
    return simulate_schemes(**(DEFAULTS | options), schemes=schemes)


def python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("scheme", "closing", "seconds", "waits"), ON_CANADA, ids=[f"{case[0]}-{case[1]}" for case in ON_CANADA]
)
def test_the_measured_trace_gives_the_known_seconds(
    shared: Path, scheme: str, closing: str, seconds: float, waits: int | None
) -> None:
    (result,) = run([scheme], trace=shared / "traces" / "canada_l000.npz", closing=closing)
    assert result["total_seconds"] == pytest.approx(seconds, rel=1e-3)
    assert waits is None or result["waits"] == waits


@pytest.mark.parametrize("unfinished", ["lost", "overlap", "serial"])
@pytest.mark.parametrize(
    ("models", "jobs", "numbers", "seconds", "worker_seconds"), PIPELINED_ON_CANADA, ids=lambda one: str(one)
)
def test_pipelining_is_as_fast_on_the_measured_trace_as_the_readme_says(
    shared: Path,
    models: int,
    jobs: int,
    numbers: tuple[int, int, int],
    seconds: float,
    worker_seconds: float,
    unfinished: str,
) -> None:
    (parts, copies, lanes), trace = numbers, shared / "traces" / "canada_l000.npz"
    options: dict[str, Any] = {"parts": [parts], "copies": [copies], "lanes": [lanes], "unfinished": unfinished}
    (result,) = run([], trace=trace, scheduler="pipeline", models=models, jobs=jobs, **options)
    assert 0.9 * seconds < result["seconds_per_job"] <= seconds
    # Copies whose slot is taken at once run on beside what comes next.
    assert result["worker_seconds_per_job"] <= worker_seconds * (1.1 if unfinished == "overlap" else 1)


def test_every_combination_of_a_pipeline_s_numbers_is_a_line_beside_the_schemes() -> None:
    results = run(["uncoded"], profile="bursts", workers=16, jobs=12, scheduler="pipeline", parts=[2, 4], copies=[1, 3])
    names = {"uncoded", "pipeline:2,1", "pipeline:2,3", "pipeline:4,1", "pipeline:4,3"}
    assert {result["scheme"] for result in results} == names
    assert [result["total_seconds"] for result in results] == sorted(result["total_seconds"] for result in results)
    lines = table(results).splitlines()
    assert lines[0] == "16 workers, 4 models, 12 jobs, closing=safe, unfinished=lost"
    assert len(lines) == 7
    (alone,) = run([], profile="bursts", workers=16, jobs=12, scheduler="pipeline")
    assert alone["scheme"] == "pipeline:4,2"
    assert table([alone]).splitlines()[0] == "16 workers, 4 models, 12 jobs, unfinished=lost"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scheduler": "rounds"}, "--scheduler rounds needs --scheme SCHEME"),
        ({"parts": [2]}, "parts is an option of scheduler='pipeline': got scheduler='auto'"),
        ({"scheduler": "queue"}, "scheduler must be one of auto, rounds, pipeline: got 'queue'"),
        ({"scheduler": "pipeline", "copies": [0]}, "pipeline needs copies >= 1: got copies=0"),
        ({"scheduler": "pipeline", "lanes": [9]}, "pipeline needs lanes <= workers: got lanes=9, workers=8"),
        ({"scheduler": "pipeline", "models": 0}, "at least one model and one job: got models=0"),
    ],
)
def test_a_pipeline_that_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run([], profile="bursts", **({"workers": 8} | options))


def test_a_pipeline_of_one_part_on_workers_that_take_a_second_can_be_counted() -> None:
    # Three jobs of three learners in 1 + 2 seconds on one worker each, then the next three; with two workers, 3 x 3.
    for workers, seconds in ((3, 6.0), (2, 9.0)):
        trace = Trace(np.ones((1, workers)), 0.0, 2.0)
        result = simulate(Setting(trace, models=3, jobs=6), Pipeline())
        assert result["total_seconds"] == seconds
        assert result["worker_seconds_per_job"] == 3.0


def test_the_command_prints_one_json_object(shared: Path, tmp_path: Path) -> None:
    trace = str(shared / "traces" / "canada_l000.npz")
    answer = python("-m", "distseq", "simulate", "--trace", trace, "--scheme", "gc:7", "--json", cwd=tmp_path)
    assert (answer.returncode, answer.stderr) == (0, "")
    result = json.loads(answer.stdout)
    assert result.keys() >= JSON_KEYS
    assert result["total_seconds"] == pytest.approx(55.120, rel=1e-3)
    assert result["seconds_per_job"] == pytest.approx(55.120 / 80, rel=1e-3)
    expected = {"scheme": "gc:7", "load": 1 / 32, "delay": 0, "jobs": 80, "models": 4, "rounds": 80, "closing": "safe"}
    assert {key: result[key] for key in expected} == expected
    assert list(tmp_path.iterdir()) == []


def test_simulating_imports_nothing_heavy(tmp_path: Path) -> None:
    code = """
import sys
from distseq.cli.main import cli
for more in (), ("--json",):
    cli(["simulate", "--profile", "spikes", "--workers", "8", "--scheme", "msgc:1,2,2", *more], standalone_mode=False)
print(*sorted({"torch", "ray", "boto3", "triton", "scipy", "matplotlib"} & set(sys.modules)), file=sys.stderr)
"""
    answer = python("-c", code, cwd=tmp_path)
    assert (answer.returncode, answer.stderr) == (0, "\n")


def test_several_schemes_come_as_a_list_best_first() -> None:
    specs = ["uncoded", "gc:1", "gc:3", "msgc:1,2,3", "srsgc:1,2,3"]
    results = run(specs, profile="bursts", workers=16, jobs=20)
    seconds = [result["total_seconds"] for result in results]
    assert seconds == sorted(seconds)
    assert sorted(result["scheme"] for result in results) == sorted(specs)
    assert results[0]["scheme"] != "uncoded", "redundancy pays under bursts"
    for spec in specs:
        assert run([spec], profile="bursts", workers=16, jobs=20) == [one for one in results if one["scheme"] == spec]


def test_results_print_as_a_table_with_a_line_for_each_scheme() -> None:
    # 4 jobs on 4 workers that all take 1 + 2 x load seconds: 4 x 1.5 and 4 x 2
    setting = Setting(Trace(np.ones((1, 4)), 0.0, 2.0), models=2, jobs=4)
    results = [simulate(setting, spec) | {"closing": "safe"} for spec in ("uncoded", "gc:1")]
    assert table(results).splitlines() == [
        "4 workers, 2 models, 4 jobs, closing=safe, unfinished=lost",
        "scheme   load  T  rounds  waits  seconds  s/job  worker-s/job",
        "uncoded  0.25  0       4      0        6    1.5             6",
        "gc:1      0.5  0       4      0        8      2             8",
    ]


def test_worker_seconds_are_the_busy_time_of_all_workers() -> None:
    # A round ends at 2 (twice the fastest) or at 1.5 (safe). By then the workers have been busy for 1, 1, 1.5 and, its
    # invocation being lost with the round, 2 or 1.5 seconds.
    trace = Trace(np.array([[1.0, 1.0, 1.5, 5.0]]), 0.0, 0.0)
    keys = ("total_seconds", "worker_seconds_per_job", "held_seconds_per_job")
    expected: dict[Closing, list[float]] = {Mu(1.0): [6.0, 5.5, 8.0], Safe(): [4.5, 5.0, 6.0]}
    for closing, numbers in expected.items():
        result = simulate(Setting(trace, 1, 3, closing), "gc:1")
        assert [result[key] for key in keys] == numbers


def test_the_number_of_workers_takes_the_first_columns_of_a_trace(tmp_path: Path) -> None:
    times = np.random.default_rng(0).random((10, 6))
    Trace(times, 0.0, 1.0).save(tmp_path / "six.npz")
    Trace(times[:, :4], 0.0, 1.0).save(tmp_path / "four.npz")
    assert run(["gc:1"], trace=tmp_path / "six.npz", workers=4) == run(["gc:1"], trace=tmp_path / "four.npz")


def test_a_generated_profile_depends_on_its_seed_only() -> None:
    first, again, other = (run(["gc:3"], profile="heavy-tail", workers=32, jobs=20, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first[0]["total_seconds"] != other[0]["total_seconds"]


def any_trace(n: int, draws: np.random.Generator) -> Trace:
    """Start-ups with a heavy tail; compute from nothing to much."""
    times = 0.5 + 0.2 * draws.random((13, n)) + (draws.random((13, n)) < 0.3) * draws.pareto(1.0, (13, n))
    return Trace(times, 0.0, draws.choice((0.0, 1.0, 8.0)))


def seconds(trace: Trace, scheme: str, closing: Closing) -> float:
    return float(simulate(Setting(trace, 1, 17, closing), scheme)["total_seconds"])


@examples(40)
@given(
    n=st.integers(2, 9), draws=generators(), mu=st.sampled_from((0.0, 0.3, 1.0)), code=st.sampled_from(("cyclic", "fr"))
)
def test_safe_is_never_slower_than_the_mu_rule_under_gradient_coding(
    n: int, draws: np.random.Generator, mu: float, code: str
) -> None:
    trace, scheme = any_trace(n, draws), f"gc:{draws.integers(1, n)},code={code}"
    assert seconds(trace, scheme, Safe()) <= seconds(trace, scheme, Mu(mu)) + 1e-9


@examples(40)
@given(sizes=st.sampled_from([(4, 2), (6, 2), (6, 3), (8, 2), (8, 4), (9, 3), (8, 8)]), draws=generators())
def test_fractional_repetition_is_never_slower_than_the_cyclic_code(
    sizes: tuple[int, int], draws: np.random.Generator
) -> None:
    n, replicas = sizes
    trace, s = any_trace(n, draws), replicas - 1
    assert seconds(trace, f"gc:{s}", Safe()) <= seconds(trace, f"gc:{s},code=cyclic", Safe()) + 1e-9


@examples(40)
@given(sizes=st.sampled_from([(4, 2), (6, 2), (6, 3), (8, 2), (8, 4), (9, 3), (8, 8)]), draws=generators())
def test_streaming_each_replica_s_own_part_first_is_never_slower_than_uncoded(
    sizes: tuple[int, int], draws: np.random.Generator
) -> None:
    n, replicas = sizes
    trace = any_trace(n, draws)
    assert seconds(trace, f"gc:{replicas - 1},q={replicas}", Safe()) <= seconds(trace, "uncoded", Safe()) + 1e-9


@examples(40)
@given(
    n=st.integers(4, 9),
    draws=generators(),
    unfinished=st.sampled_from(("lost", "overlap", "serial")),
    closing=st.sampled_from((Safe(), Safe(0.7), Mu(1.0))),
    scheme=st.sampled_from(
        (
            "uncoded",
            "gc:2",
            "gc:1,q=2",
            "srsgc:1,2,2",
            "msgc:1,2,3",
            "msgc:2,3,2,code=cyclic",
            "redispatch:2",
            "backup:70",
        )
    ),
)
def test_one_simulation_gives_the_same_numbers_twice(
    n: int, draws: np.random.Generator, unfinished: str, closing: Closing, scheme: str
) -> None:
    setting = Setting(any_trace(n, draws), 4, 12, closing, unfinished)
    assert simulate(setting, scheme) == simulate(setting, scheme)


def test_full_repetition_takes_the_fastest_worker_s_time_and_uncoded_the_slowest_s() -> None:
    trace = any_trace(8, np.random.default_rng(5))
    fastest = sum(float(trace.times[t % 13].min()) for t in range(17))
    assert seconds(trace, "gc:7", Safe()) == pytest.approx(fastest + 17 * trace.slope, rel=1e-12)
    assert seconds(trace, "uncoded", Safe()) == pytest.approx(
        sum(float(trace.times[t % 13].max()) for t in range(17)) + 17 * trace.slope / 8, rel=1e-12
    )


def test_what_the_master_does_for_each_job_is_waited_for() -> None:
    trace = any_trace(8, np.random.default_rng(5))
    for spec in ("uncoded", "gc:7"):
        slower = seconds(replace(trace, master=0.5), spec, Safe())
        assert slower == pytest.approx(seconds(trace, spec, Safe()) + 17 * 0.5, rel=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "one of --trace FILE, --profile NAME and --run RUN: got 0"),
        ({"trace": Path("x.npz"), "profile": "none"}, "one of --trace FILE, --profile NAME and --run RUN: got 2"),
        ({"profile": "none", "workers": 0}, "at least one worker: got 0"),
        ({"profile": "none", "workers": 4, "models": 0}, "got models=0, jobs=80"),
        ({"profile": "none", "workers": 4, "jobs": 0}, "got models=4, jobs=0"),
        ({"profile": "none", "workers": 4, "unfinished": "gone"}, "unfinished must be one of .*: got 'gone'"),
        ({"profile": "none", "workers": 4, "arrival": "late"}, "arrival must be one of .*: got 'late'"),
        ({"profile": "none", "workers": 4, "closing": "soon"}, "closing must be safe or mu: got 'soon'"),
    ],
)
def test_a_simulation_that_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(["gc:1"], **options)
