"""Coded training is the training of one machine: same parameters, whatever the scheme, the pool and the stragglers."""

import os
import signal
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distseq.cluster.hosts.host_pool import HostPool
from distseq.cluster.pool import Payload, Pool
from distseq.cluster.reduction import weighted_sum
from distseq.cluster.simulated import SimulatedPool
from distseq.cluster.trace import Trace
from distseq.coding.layout import layout
from distseq.coding.plan import MiniTask
from distseq.coding.schemes.registry import parse
from distseq.config.overrides import override
from distseq.config.schema import Config
from distseq.config.toml_file import from_dict, load_config
from distseq.engine.interfaces import Observer
from distseq.engine.journal import ARRIVAL, MemoryJournal
from distseq.engine.master import Master
from distseq.learners.fleet import Fleet
from distseq.learners.from_config import build_fleet
from distseq.scheduling.adaptive.candidates import candidates
from distseq.scheduling.adaptive.cost import Question
from distseq.scheduling.adaptive.scheduler import AdaptiveScheduler, fits
from distseq.scheduling.backup import round_scheduler
from distseq.scheduling.closing import Mu
from distseq.scheduling.pipeline import Pipeline
from distseq.scheduling.pipeline_scheduler import PipelineScheduler
from distseq.scheduling.scheduler import Decision, Scheduler
from tests.distseq.scheduling.test_round_scheduler import Through

N, MODELS, STEPS = 8, 4, 4
OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
    ("adam", {}),
    ("sgd", {}),
    # Orthogonalized in bfloat16, weights would agree to the bit or not at all.
    ("muon", {"full_precision": True}),
    ("sgd", {}),
]
FR = ["uncoded", "gc:2", "gc:1,q=3", "srsgc:1,2,3", "srsgc:2,3,4", "msgc:1,2,2", "msgc:1,3,8", "msgc:2,3,3"]
CYCLIC = [f"{spec},code=cyclic" for spec in FR if spec != "uncoded" and spec != "msgc:1,3,8"]
FR += ["redispatch:2,copies=2", "backup:50"]
Simulation = Callable[[str, str | Pipeline], list[np.ndarray]]
PIPELINES = [Pipeline(), Pipeline(3, 2), Pipeline(12, 3), Pipeline(5, 2, lanes=4)]
TEXT = "".join(f"line {k}: the quick brown fox {k * k} jumps over {k % 7} lazy dogs.\n" for k in range(120))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "text.txt"
    path.write_text(TEXT)
    return path


def job(text: Path, dtype: str) -> Config:
    learners = [
        {
            "name": f"m{m}",
            "batch": 24 + m,
            "optimizer": OPTIMIZERS[m][0],
            "optimizer_args": {"lr": 0.05, **OPTIMIZERS[m][1]},
            "clip": 1.0,
        }
        for m in range(MODELS)
    ]
    defaults = {
        "model": "distseq.models.char_lstm:CharLSTM",
        "model_args": {"hidden": 6},
        "data": f"text:{text}",
        "data_args": {"window": 5},
    }
    return from_dict({"run": {"steps": STEPS, "dtype": dtype}, "defaults": defaults, "learner": learners})


def stragglers(seed: int, scale: float = 1.0) -> Trace:
    """Scripted: a fifth of all invocations take ten times as long."""
    draws = np.random.default_rng(seed)
    times = scale * draws.uniform(0.5, 1.0, (20, N)) * np.where(draws.random((20, N)) < 0.2, 10.0, 1.0)
    return Trace(times, 0.0, scale)


def parameters(fleet: Fleet) -> list[np.ndarray]:
    return [learner.publish() for learner in fleet.learners]


def scheduler(spec: str | Pipeline, unfinished: str = "serial", closing: Any = None) -> Scheduler:
    if isinstance(spec, Pipeline):
        return PipelineScheduler(spec, N, frees=unfinished != "serial")
    return round_scheduler(parse(spec, N), closing, late=unfinished != "lost")


def train_on(pool: Pool, config: Config, chosen: Scheduler, *, first_job: int = 0) -> list[np.ndarray]:
    fleet = build_fleet(config)
    master = Master(fleet.learners, chosen, pool, first_job=first_job)
    master.run()
    assert master.failures == []
    return parameters(fleet)


def simulated(
    config: Config, spec: str | Pipeline, seed: int, unfinished: str = "serial", closing: Any = None
) -> list[np.ndarray]:
    pool = SimulatedPool(stragglers(seed), build_fleet(config).work, unfinished=unfinished, compute="rows")
    return train_on(pool, config, scheduler(spec, unfinished, closing))


def one_machine(config: Config, total: Callable[[Fleet, Payload], np.ndarray]) -> list[np.ndarray]:
    """Plain training in this process, a learner at a time; `total` computes the sum over a batch."""
    fleet = build_fleet(config)
    for m, learner in enumerate(fleet.learners):
        for step in range(learner.steps):
            o = learner.open(step)
            learner.apply(total(fleet, Payload(m * 1000 + step, m, step, o.parameters, o.ids, o.seed, "uncoded", N)))
    return parameters(fleet)


def full_batch(fleet: Fleet, payload: Payload) -> np.ndarray:
    return fleet.work.row(payload, payload.ids, np.ones(len(payload.ids))).astype(np.float64)


def same_parts(spec: str) -> Callable[[Fleet, Payload], np.ndarray]:
    """The sum over the parts of a fractional-repetition scheme, in order of group and part."""
    cut = layout(spec, N)
    first = [
        [MiniTask(0, g, int(np.flatnonzero(code.replica_set == k)[0])) for k in range(code.parts)]
        for g, code in enumerate(cut.scheme.codes)
    ]

    def total(fleet: Fleet, payload: Payload) -> np.ndarray:
        return weighted_sum(
            (1.0, fleet.work.row(payload, *cut.row(task, payload.ids))) for group in first for task in group
        )

    return total


def distance(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    """Largest relative difference in norm over the learners."""
    return max(float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in zip(ours, theirs, strict=True))


def assert_same_bits(ours: list[np.ndarray], theirs: list[np.ndarray]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def reference(text: Path) -> dict[str, list[np.ndarray]]:
    return {dtype: one_machine(job(text, dtype), full_batch) for dtype in ("float32", "float64")}


@pytest.mark.parametrize("unfinished", ["lost", "overlap", "serial"])
@pytest.mark.parametrize("spec", FR + CYCLIC)
def test_simulated_training_equals_full_batch_training_in_float64(
    text: Path, reference: dict[str, list[np.ndarray]], spec: str, unfinished: str
) -> None:
    ours = simulated(job(text, "float64"), spec, seed=1, unfinished=unfinished)
    for a, b in zip(ours, reference["float64"], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("spec", FR + CYCLIC)
def test_simulated_training_equals_full_batch_training_in_float32(
    text: Path, reference: dict[str, list[np.ndarray]], spec: str
) -> None:
    assert distance(simulated(job(text, "float32"), spec, seed=2), reference["float32"]) <= 1e-6


@pytest.mark.parametrize("spec", ["gc:2", "srsgc:2,3,4", "msgc:2,3,3"])
def test_the_mu_rule_trains_exactly_too(text: Path, reference: dict[str, list[np.ndarray]], spec: str) -> None:
    ours = simulated(job(text, "float64"), spec, seed=3, unfinished="lost", closing=Mu(1.0))
    assert distance(ours, reference["float64"]) <= 1e-12


class Restless(Through):
    """Changes to another way of scheduling at every fifth step, whether it is better or not."""

    def __init__(self, inner: AdaptiveScheduler, draws: np.random.Generator) -> None:
        super().__init__(inner)
        self.adaptive, self.draws, self.steps = inner, draws, 0
        self.grid = [one for one in candidates(N, MODELS, 24) if fits(one, N, 2)]

    def step(self, now: float) -> Decision:
        self.steps += 1
        if self.steps % 5 == 0:
            self.adaptive._change(self.grid[self.draws.integers(len(self.grid))], now)
        return super().step(now)


@pytest.mark.parametrize("unfinished", ["lost", "overlap", "serial"])
@pytest.mark.parametrize("seed", range(3))
def test_training_that_keeps_changing_its_scheduling_equals_full_batch_training(
    text: Path, reference: dict[str, list[np.ndarray]], unfinished: str, seed: int
) -> None:
    config = job(text, "float64")
    pool = SimulatedPool(stragglers(seed), build_fleet(config).work, unfinished=unfinished, compute="rows")
    chosen = Restless(AdaptiveScheduler(N, Question(MODELS, unfinished), batch=24), np.random.default_rng(seed))
    assert distance(train_on(pool, config, chosen), reference["float64"]) <= 1e-12


pipelines = pytest.mark.parametrize("pipeline", PIPELINES, ids=lambda pipeline: pipeline.name)


@pytest.mark.parametrize("unfinished", ["lost", "overlap", "serial"])
@pipelines
def test_pipelined_training_equals_full_batch_training_and_gives_the_same_bits_under_any_stragglers(
    text: Path, reference: dict[str, list[np.ndarray]], pipeline: Pipeline, unfinished: str
) -> None:
    assert distance(simulated(job(text, "float64"), pipeline, 1, unfinished), reference["float64"]) <= 1e-12
    config = job(text, "float32")
    expected = one_machine(config, same_parts(pipeline.scheme(N).spec))
    assert distance(expected, reference["float32"]) <= 1e-6
    for seed in (4, 5):
        assert_same_bits(simulated(config, pipeline, seed, unfinished), expected)


@pytest.mark.parametrize("spec", FR)
def test_fractional_repetition_gives_the_same_bits_under_any_stragglers(text: Path, spec: str) -> None:
    config = job(text, "float32")
    expected = one_machine(config, same_parts(spec))
    for seed, unfinished in ((4, "lost"), (5, "overlap"), (6, "serial")):
        assert_same_bits(simulated(config, spec, seed, unfinished), expected)


def test_one_seed_gives_the_same_bits_twice(text: Path) -> None:
    config = job(text, "float32")
    spec = "msgc:1,2,2,code=cyclic"
    assert_same_bits(simulated(config, spec, seed=7), simulated(config, spec, seed=7))


class Runs:
    """One pool of real workers for many runs: job numbers go on growing."""

    def __init__(self, config: Config, make: Callable[..., HostPool]) -> None:
        self.config = config
        self.pool = make(N, build_fleet(config).spec, hosts=2, delays=stragglers(8, scale=0.004))
        self.jobs = 0

    def train(self, spec: str | Pipeline, closing: Any = None) -> list[np.ndarray]:
        self.jobs += 1000
        return train_on(self.pool, self.config, scheduler(spec, closing=closing), first_job=self.jobs)


@pytest.fixture(scope="module", params=["float32", pytest.param("float64", marks=pytest.mark.long)])
def runs(request: pytest.FixtureRequest, real_pool: Callable[..., HostPool], text: Path) -> Iterator[Runs]:
    made = Runs(job(text, request.param), real_pool)
    yield made
    made.pool.close()


@pytest.fixture(scope="module")
def simulation(text: Path) -> Simulation:
    """Weights of simulated training, made once for the pools that they are compared with."""
    return cache(lambda dtype, spec: simulated(job(text, dtype), spec, seed=9))


@pytest.mark.parametrize("spec", FR + CYCLIC)
def test_training_on_real_workers_equals_full_batch_training(
    runs: Runs, simulation: Simulation, reference: dict[str, list[np.ndarray]], spec: str
) -> None:
    ours = runs.train(spec)
    dtype = runs.config.run.dtype
    assert distance(ours, reference[dtype]) <= {"float32": 1e-6, "float64": 1e-12}[dtype]
    if spec in FR:
        assert_same_bits(ours, simulation(dtype, spec))


@pytest.mark.slow
def test_training_in_float64_on_real_workers_equals_full_batch_training(
    real_pool: Callable[..., HostPool], text: Path, reference: dict[str, list[np.ndarray]]
) -> None:
    """Of each code one scheme; all of them are `long`."""
    runs = Runs(job(text, "float64"), real_pool)
    try:
        for spec in ("msgc:1,2,2", "gc:2,code=cyclic", PIPELINES[1]):
            assert distance(runs.train(spec), reference["float64"]) <= 1e-12
    finally:
        runs.pool.close()


def test_the_mu_rule_on_real_workers_trains_exactly(runs: Runs, reference: dict[str, list[np.ndarray]]) -> None:
    dtype = runs.config.run.dtype
    assert distance(runs.train("msgc:1,2,2", Mu(1.0)), reference[dtype]) <= {"float32": 1e-6, "float64": 1e-12}[dtype]


@pipelines
def test_pipelined_training_on_real_workers_gives_the_bits_of_the_simulation(
    runs: Runs, simulation: Simulation, reference: dict[str, list[np.ndarray]], pipeline: Pipeline
) -> None:
    ours = runs.train(pipeline)
    dtype = runs.config.run.dtype
    assert distance(ours, reference[dtype]) <= {"float32": 1e-6, "float64": 1e-12}[dtype]
    assert_same_bits(ours, simulation(dtype, pipeline))


class KillAfter(Observer):
    """SIGKILLs the first host of the pool once so many jobs are done and one of its workers owes a row."""

    def __init__(self, pool: HostPool, jobs: int) -> None:
        self.pool, self.left, self.killed = pool, jobs, False

    def job_applied(self, *job: object) -> None:
        self.left -= 1

    def polled(self, scheduler: Scheduler, now: float) -> None:
        if self.left <= 0 and not self.killed and any(worker % 2 == 0 for worker in scheduler.missing()):
            self.killed = True
            os.kill(self.pool.pids()[0], signal.SIGKILL)


def main_job() -> Config:
    return override(load_config(Path(__file__).parents[3] / "examples" / "main.toml"), {"steps": 5})


@cache
def undisturbed(spec: str | Pipeline) -> list[np.ndarray]:
    """Weights of the main job where no host dies, which are the same on every pool."""
    return simulated(main_job(), spec, seed=10)


@pytest.mark.slow
@pytest.mark.parametrize(
    "pipeline",
    [None, pytest.param(Pipeline(4, 2), marks=pytest.mark.long)],
    ids=["its own scheme", "pipelined"],
)
def test_the_main_job_survives_the_death_of_a_host_with_the_same_weights(
    real_pool: Callable[..., HostPool], pipeline: Pipeline | None
) -> None:
    config = main_job()
    spec = pipeline or config.scheduler.scheme
    fleet, journal = build_fleet(config), MemoryJournal()
    pool = real_pool(config.pool.workers, fleet.spec, hosts=2, delays=stragglers(10, scale=0.01))
    killer = KillAfter(pool, 7)
    try:
        Master(fleet.learners, scheduler(spec), pool, journal, [killer]).run()
    finally:
        pool.close()
    assert killer.killed
    assert_same_bits(parameters(fleet), undisturbed(spec))
    records = [record for record in journal.records if record["kind"] in ("round", "job")]
    arrivals = [arrival for record in records for arrival in record.get("arrivals", ())]
    assert any(arrival[ARRIVAL.index("attempt")] > 1 for arrival in arrivals), "what the dead host owed was sent again"
