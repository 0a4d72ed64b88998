"""ksync and async: refused unless asked for, marked everywhere, and just as wrong as they say."""

import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import distseq
from distseq.artifacts.summary import show
from distseq.cli.main import cli, one_line_errors
from distseq.cluster.pool import Payload, Pool
from distseq.cluster.simulated import SimulatedPool
from distseq.cluster.trace import Trace, load_trace
from distseq.config.schema import Config
from distseq.config.toml_file import from_dict
from distseq.engine.interfaces import Observer
from distseq.engine.journal import MemoryJournal, read_journal
from distseq.engine.master import Master
from distseq.learners.fleet import Fleet
from distseq.learners.from_config import build_fleet
from distseq.scheduling.asynchronous import AsyncTraining, parse_async
from distseq.scheduling.pipeline import Pipeline
from distseq.scheduling.pipeline_scheduler import PipelineScheduler
from distseq.simulation.simulate import Setting, simulate
from distseq.simulation.tables import table
from tests.coding.strategies import generators
from tests.distseq.artifacts.crashing import CrashAfter, crashes
from tests.distseq.engine.closed_form import check_exact, check_steps, failing, play
from tests.distseq.scheduling.test_round_scheduler import UNFINISHED, Changing, Withdrawn, delays
from tests.distseq.training.test_exactness import TEXT, assert_same_bits, parameters, same_parts, stragglers
from tests.examples import examples

N, PARTS = 8, 3
INEXACT = ["ksync:6", "ksync:8", "async:1", "async:2,parts=3"]
REFUSED = (
    r"changes the gradients, so training is not exact: it runs only with --inexact \(inexact = true in \[scheduler\]\)"
)


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Two small character models on eight simulated workers that straggle."""
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT)
    model = {"model": "distseq.models.char_lstm:CharLSTM", "model_args": {"hidden": 6}}
    data = {"data": "text:text.txt", "data_args": {"window": 5}, "batch": 24, "optimizer_args": {"lr": 0.02}}
    return {
        "run": {"steps": 6, "dtype": "float32"},
        "pool": {"kind": "simulated", "workers": N, "delays": "heavy-tail:base=0.1", "compute": "rows"},
        "defaults": model | data,
        "learner": [{"name": "a"}, {"name": "b", "optimizer": "sgd", "optimizer_args": {"lr": 0.5}, "batch": 30}],
    }


def train(tables: dict[str, Any], out: str = "run", **options: Any) -> distseq.Result:
    return distseq.train(tables, out=out, console=Console(file=io.StringIO()), **options)


def records(result: distseq.Result, kind: str) -> list[dict[str, Any]]:
    return [one for one in read_journal(result.folder / "journal.jsonl") if one["kind"] == kind]


def weights(result: distseq.Result) -> list[np.ndarray]:
    return [learner.publish() for learner in result.learners]


@pytest.mark.parametrize("spec", INEXACT)
def test_what_changes_the_gradients_is_refused_unless_it_is_asked_for(tables: dict[str, Any], spec: str) -> None:
    for job in (tables, tables | {"scheduler": {"scheme": spec}}):
        with pytest.raises(ValueError, match=f"^{spec[:5]}.* {REFUSED}"):
            train(job, scheme=spec)
    assert not Path("run").exists()
    trace = Trace(np.ones((2, N)), 0.0, 1.0)
    with pytest.raises(ValueError, match=REFUSED):
        simulate(Setting(trace, 2, 4), spec)
    assert simulate(Setting(trace, 2, 4, inexact=True), spec)["exact"] is False
    in_the_file = tables | {"scheduler": {"scheme": spec, "inexact": True}}
    assert train(in_the_file, steps=1).summary["exact"] is False


def command(*words: str) -> int:
    return one_line_errors(lambda: cli(list(words), standalone_mode=False))


@pytest.mark.parametrize("spec", INEXACT)
def test_the_command_line_refuses_in_one_line_with_exit_code_2_and_knows_the_flag(
    tables: dict[str, Any], spec: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("job.toml").write_text(
        '[pool]\nkind = "simulated"\n[[learner]]\nname = "a"\nmodel = "distseq.models.char_lstm:CharLSTM"\n'
        'model_args = { hidden = 4 }\ndata = "text:text.txt"\ndata_args = { window = 4 }\nbatch = 8\n'
    )
    for words in ("train job.toml --out run --steps 2", "simulate --profile none --workers 8 --jobs 4"):
        before = sorted(Path().rglob("*"))
        assert command(*words.split(), "--scheme", spec) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert "--inexact" in err
        assert sorted(Path().rglob("*")) == before
        assert command(*words.split(), "--scheme", spec, "--inexact", "--json") == 0
        assert json.loads(capsys.readouterr().out)["exact"] is False


def test_figures_of_inexact_runs_are_marked_and_those_of_exact_ones_are_not(tables: dict[str, Any]) -> None:
    for spec in ("ksync:6", "async:2,parts=3"):
        result = train(tables, spec, scheme=spec, inexact=True)
        assert result.summary["exact"] is False
        assert [one["exact"] for one in records(result, "run")] == [False]
        assert next(iter(result.summary["replayed_seconds_per_job"])) == f"{spec} (not exact)"
        show(console := Console(file=io.StringIO(), width=200), result.summary, "run")
        assert f"s/job under {spec} (not exact)" in console.file.getvalue()  # type: ignore[attr-defined]
    result = train(tables, scheme="gc:1", inexact=True)
    assert result.summary["exact"] is True
    assert [one["exact"] for one in records(result, "run")] == [True]
    assert "not exact" not in json.dumps(result.summary)


def test_the_table_of_simulate_marks_them() -> None:
    setting = Setting(Trace(np.ones((2, N)), 0.0, 1.0), 2, 4, inexact=True)
    schemes = ("uncoded", "ksync:6", "async:2,parts=3")
    lines = table([simulate(setting, one) for one in schemes]).splitlines()
    assert [line.split("  ")[0] for line in lines[2:]] == [
        "uncoded",
        "ksync:6 (not exact)",
        "async:2,parts=3 (not exact)",
    ]


def test_the_gradient_check_reports_how_wrong_they_are(tables: dict[str, Any]) -> None:
    for compute in ("rows", "decoded"):
        options = {"compute": compute, "checks": 12, "steps": 20}
        for spec in ("ksync:6", "async:3,parts=3"):
            summary = train(tables, f"{spec} {compute}", scheme=spec, inexact=True, **options).summary
            assert summary["gradients_checked"] >= 2
            assert summary["largest_gradient_difference"] > 1e-2
        summary = train(tables, f"exact {compute}", scheduler="pipeline", parts=3, **options).summary
        assert summary["largest_gradient_difference"] < 1e-5


@pytest.mark.parametrize("pool", ["simulated", "local"])
def test_ksync_of_all_rows_is_uncoded_training_to_the_bit(tables: dict[str, Any], pool: str) -> None:
    options = {"pool": pool, "delays": "heavy-tail:base=0.01"} | ({} if pool == "simulated" else {"hosts": 2})
    ours = train(tables, "ksync", scheme=f"ksync:{N}", inexact=True, **options)
    assert_same_bits(weights(ours), weights(train(tables, "uncoded", scheme="uncoded")))
    assert {len(one["rows"]) for one in records(ours, "job")} == {N}


def test_a_job_of_ksync_on_local_workers_is_over_with_k_rows(tables: dict[str, Any]) -> None:
    result = train(tables, scheme="ksync:5", inexact=True, pool="local", hosts=2, delays="one-slow:base=0.02")
    jobs = records(result, "job")
    assert [len(one["rows"]) for one in jobs] == [5] * 12
    assert result.summary["failures"] == []


@pytest.mark.parametrize("pool", ["simulated", "local"])
def test_async_with_one_job_at_a_time_is_exact_training_to_the_bit(tables: dict[str, Any], pool: str) -> None:
    options = {"pool": pool, "delays": "heavy-tail:base=0.01"} | ({} if pool == "simulated" else {"hosts": 2})
    ours = train(tables, "async", scheme="async:1,parts=3", inexact=True, **options)
    assert_same_bits(weights(ours), weights(train(tables, "exact", scheduler="pipeline", parts=3, copies=1)))
    assert {one["staleness"] for one in records(ours, "job")} == {0}


def config(tables: dict[str, Any], dtype: str) -> Config:
    return from_dict(tables | {"run": {"steps": 6, "dtype": dtype}})


def with_stale_parameters(job: Config, A: int, total: Callable[[Fleet, Payload], np.ndarray]) -> list[np.ndarray]:
    """One machine: the gradient of step k is of the parameters A - 1 steps before it, or of the first."""
    fleet = build_fleet(job)
    for m, learner in enumerate(fleet.learners):
        published = [learner.publish()]
        for k in range(learner.steps):
            payload = Payload(
                m * 1000 + k, m, k, published[max(0, k - A + 1)], learner.ids(k), learner.seed, "uncoded", N
            )
            learner.apply(total(fleet, payload))
            published.append(learner.publish())
    return parameters(fleet)


class Openings(Observer):
    """The parameters of each job, and those of its learner before and after each step."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self.jobs = fleet, dict[tuple[int, int], np.ndarray]()
        self.published = {(m, 0): one.publish() for m, one in enumerate(fleet.learners)}

    def job_decoded(self, payload: Payload, *rest: object) -> None:
        self.jobs[payload.learner, payload.step] = payload.parameters
        self.published[payload.learner, payload.step + 1] = self.fleet.learners[payload.learner].publish()


@pytest.fixture
def pool_of(request: pytest.FixtureRequest) -> Iterator[Callable[[Fleet, int], Pool]]:
    """A pool of eight workers that straggle, after a seed."""
    made: list[Pool] = []

    def make(fleet: Fleet, seed: int) -> Pool:
        if request.param == "local":
            from distseq.cluster.local.pool import local_pool

            made.append(local_pool(N, fleet.spec, hosts=2, delays=stragglers(seed, scale=0.004)))
        else:
            made.append(SimulatedPool(stragglers(seed), fleet.work, unfinished="serial", compute="rows"))
        return made[-1]

    yield make
    for pool in made:
        pool.close()


@pytest.mark.parametrize(("pool_of", "A"), [("simulated", 2), ("simulated", 3), ("local", 2)], indirect=["pool_of"])
def test_a_gradient_of_async_is_of_the_parameters_at_its_opening_and_misses_a_minus_1_steps(
    tables: dict[str, Any], A: int, pool_of: Callable[[Fleet, int], Pool]
) -> None:
    job, stale = config(tables, "float32"), AsyncTraining(A, PARTS)
    expected = with_stale_parameters(job, A, same_parts(stale.pipeline.scheme(N).spec))
    for seed in (4, 5) if A == 3 else (6,):
        fleet, journal = build_fleet(job), MemoryJournal()
        watch, pool = Openings(fleet), pool_of(fleet, seed)
        Master(fleet.learners, PipelineScheduler(stale.pipeline, N), pool, journal, [watch], ahead=A).run()
        made = [one for one in journal.records if one["kind"] == "job"]
        assert len(made) == 12
        for one in made:
            assert one["staleness"] == min(one["step"], A - 1)
            learner = "ab".index(one["learner"])
            opened = watch.published[learner, one["step"] - one["staleness"]]
            np.testing.assert_array_equal(watch.jobs[learner, one["step"]], opened)
        assert_same_bits(parameters(fleet), expected)


@examples(100)
@given(
    n=st.integers(1, 8),
    A=st.integers(1, 5),
    parts=st.integers(1, 5),
    steps=st.lists(st.integers(1, 8), min_size=1, max_size=4),
    unfinished=st.sampled_from(UNFINISHED),
    data=st.data(),
    draws=generators(),
)
def test_any_delays_and_failures_make_each_step_once_in_order_on_its_own_samples(
    n: int,
    A: int,
    parts: int,
    steps: list[int],
    unfinished: str,
    data: st.DataObject,
    draws: np.random.Generator,
) -> None:
    fails = data.draw(failing(steps))
    pipeline = Pipeline(parts)
    inner = PipelineScheduler(pipeline, n, frees=unfinished != "serial")
    played = play(
        pipeline.scheme(n),
        delays(n, draws, lost=True),
        steps,
        slope=1.0,
        unfinished=unfinished,
        fails=fails,
        inner=inner,
        wrap=lambda scheduler: Withdrawn(Changing(scheduler, n, draws)),
        ahead=A,
    )
    for record in played.jobs:
        assert record["staleness"] == min(record["step"], A - 1)
    for learner in played.learners:
        made = [record["step"] for record in played.jobs if record["learner"] == learner.name]
        assert made == list(range(len(learner.totals)))
    check_exact(played, "fr", {m: (len(played.learners[m].totals), "") for m in fails})


def test_a_job_that_is_complete_before_an_earlier_one_of_its_learner_waits_for_it() -> None:
    # One learner, three steps, two workers: the first part takes 9 seconds, the second and the third 1 each.
    played = play(
        Pipeline(1).scheme(2), [[9.0, 1.0], [1.0, 1.0]], [4], inner=PipelineScheduler(Pipeline(1), 2), ahead=3
    )
    check_steps(played)
    assert [(one["step"], one["decoded"], one["staleness"]) for one in played.jobs] == [
        (0, 9.0, 0),
        (1, 9.0, 1),
        (2, 9.0, 2),
        (3, 10.0, 2),
    ]


def test_a_step_that_fails_ends_the_jobs_after_it_also_those_that_are_complete() -> None:
    # Both parts arrive at once, and step 0 cannot be made.
    fails = {0: (0, "step")}
    inner = PipelineScheduler(Pipeline(1), 2)
    played = play(Pipeline(1).scheme(2), [[1.0, 1.0]], [4], inner=inner, fails=fails, ahead=2)
    assert (played.jobs, played.learners[0].totals, played.seconds) == ([], [], 1.0)


def test_both_learn(tables: dict[str, Any]) -> None:
    tables = tables | {"run": {"steps": 60, "evaluate_every": 1}}
    for spec in ("ksync:6", "async:3,parts=3"):
        result = train(tables, spec, scheme=spec, inexact=True)
        for name in "ab":
            losses = [one["loss"] for one in records(result, "evaluation") if one["learner"] == name]
            assert losses[-1] < 0.9 * losses[0]


def test_a_broken_async_run_goes_on_with_each_step_once_and_stays_marked(tables: dict[str, Any]) -> None:
    with crashes():
        train(tables, scheme="async:3,parts=3", inexact=True, checkpoint_every=1, watchers=[CrashAfter(5)])
    resumed = distseq.train(resume="run", console=Console(file=io.StringIO()))
    made = records(resumed, "job")
    (again,) = records(resumed, "resume")
    counted = Counter((one["learner"], one["step"]) for one in made)
    assert counted == dict.fromkeys([(name, step) for name in "ab" for step in range(6)], 1)
    for one in made[5:]:
        assert one["staleness"] == min(one["step"] - again["steps"][one["learner"]], 2), "it opens anew"
    assert resumed.summary["exact"] is False


def test_a_run_that_was_not_exact_is_not_made_exact_by_its_end(tables: dict[str, Any]) -> None:
    with crashes():
        train(tables, scheme="ksync:6", inexact=True, checkpoint_every=1, watchers=[CrashAfter(5)])
    resumed = distseq.train(resume="run", scheme="gc:1", inexact=False, console=Console(file=io.StringIO()))
    assert [one["exact"] for one in (*records(resumed, "run"), *records(resumed, "resume"))] == [False, True]
    assert resumed.summary["exact"] is False
    with pytest.raises(ValueError, match=REFUSED):
        distseq.train(resume="run", scheme="ksync:6", inexact=False, steps=9, console=Console(file=io.StringIO()))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("async", "scheme 'async': async takes A, as in 'async:2,parts=8'"),
        ("async:0", "async needs A >= 1 open jobs per learner: got A=0"),
        ("async:2,parts=0", "async needs parts >= 1: got parts=0"),
        ("async:2,copies=2", "async has no option 'copies'; known: parts"),
        ("async:x", "'x' is not a whole number"),
    ],
)
def test_a_wrong_specification_of_async_is_refused(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_async(spec)


def test_async_has_no_rounds_to_close(tables: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="mu is an option of rounds, which async:2 does not have"):
        train(tables, scheme="async:2", inexact=True, mu=0.5)
    assert train(tables, scheme="async:2", inexact=True, steps=1).summary["closing"] is None


def test_a_specification_of_async_is_read_back() -> None:
    assert parse_async("async:2") == parse_async(" async:2,parts=4 ") == AsyncTraining(2)
    assert parse_async(AsyncTraining(3, 7).spec) == AsyncTraining(3, 7)
    assert parse_async("ksync:2") is None


@pytest.mark.parametrize("spec", ["ksync:240", "ksync:250", "async:2,parts=8", "async:4,parts=8"])
def test_seconds_per_job_on_the_measured_trace(shared: Path, spec: str) -> None:
    trace = load_trace(shared / "traces" / "canada_l000.npz")
    result = simulate(Setting(trace, models=4, jobs=80, inexact=True), spec)
    print(
        f"\n{spec} (not exact): {result['seconds_per_job']:.4f} s/job, {result['worker_seconds_per_job']:.1f} worker-s/job"
    )
    expected = {"ksync:240": 0.9865, "ksync:250": 1.193, "async:2,parts=8": 0.1488, "async:4,parts=8": 0.0848}
    assert result["seconds_per_job"] == pytest.approx(expected[spec], rel=2e-3)
