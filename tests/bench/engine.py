"""make bench: what deciding, decoding, simulating and dispatching cost. Checks correctness first, then prints one table.

Times are process CPU seconds of one thread, except Ray's, which are wall-clock medians beside plain `ray.get` in one run.
"""

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import numpy as np
import ray

from distseq.cluster.hosts.host_pool import HostPool
from distseq.cluster.pool import Payload
from distseq.cluster.probe import feature
from distseq.cluster.profiles import profile
from distseq.cluster.ray.pool import ray_pool
from distseq.cluster.simulated import UNFINISHED, SimulatedPool
from distseq.cluster.trace import Trace
from distseq.cluster.work import WorkSpec
from distseq.coding.codes.cyclic import Cyclic
from distseq.coding.plan import MiniTask
from distseq.coding.schemes.registry import parse
from distseq.coding.schemes.scheme import Scheme
from distseq.engine.master import Master
from distseq.scheduling.closing import Mu, Safe
from distseq.scheduling.pipeline import Pipeline
from distseq.scheduling.pipeline_scheduler import PipelineScheduler
from distseq.scheduling.replay import replay
from distseq.scheduling.round_scheduler import RoundScheduler
from distseq.scheduling.scheduler import Scheduler
from distseq.simulation.simulate import NullLearner, Setting, simulate

WORKERS, ROUNDS = 256, 100
REPEATS = 3  # of what is short enough to be disturbed; the least is printed


class Clocked:
    """A scheduler whose calls are timed, and what is delivered to it counted."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler, self.seconds, self.deliveries = scheduler, 0.0, 0

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._scheduler, name)

        def timed(*args: Any) -> Any:
            begun = time.process_time()
            result = method(*args)
            self.seconds += time.process_time() - begun
            self.deliveries += len(args[0]) if name == "delivered" else 0
            return result

        return timed


def milliseconds_per_round(spec: str, closing: Safe | Mu) -> float:
    """Scheduler, ledger and decode weights, per round of 256 workers, the rows of a message arriving together."""
    scheme = parse(spec, WORKERS)
    clocked = Clocked(RoundScheduler(scheme, closing, late=False))
    learners = [NullLearner(f"m{m}", ROUNDS // (scheme.delay + 1)) for m in range(scheme.delay + 1)]
    Master(learners, clocked, SimulatedPool(profile("bursts", WORKERS, 0), arrival="message")).run()
    return 1e3 * clocked.seconds / (sum(learner.steps for learner in learners) + scheme.delay)


def milliseconds_per_delivery(pipeline: Pipeline, models: int, unfinished: str) -> float:
    """All of the scheduler's work on 100 jobs of each model, 256 workers."""
    clocked = Clocked(PipelineScheduler(pipeline, WORKERS, frees=unfinished != "serial"))
    learners = [NullLearner(f"m{m}", 100) for m in range(models)]
    Master(learners, clocked, SimulatedPool(profile("bursts", WORKERS, 0), unfinished=unfinished)).run()
    assert clocked.deliveries >= 100 * models * pipeline.parts
    return 1e3 * clocked.seconds / clocked.deliveries


def milliseconds_per_decode(n: int, s: int) -> float:
    """Median over straggler sets that were not seen before; each decode is checked."""
    code, draws = Cyclic(n, s), np.random.default_rng(0)
    code.decode(np.ones(n, dtype=bool))
    taken = []
    for _ in range(50):
        has = np.ones(n, dtype=bool)
        has[draws.choice(n, s, replace=False)] = False
        begun = time.process_time()
        weights = code.decode(has)
        taken.append(time.process_time() - begun)
        np.testing.assert_allclose(weights @ code.B, 1.0, atol=1e-6)
        assert not weights[~has].any()
    return 1e3 * statistics.median(taken)


def simulation_seconds(spec: str, closing: Safe | Mu) -> float:
    """500 jobs on 256 workers."""
    begun = time.process_time()
    assert simulate(Setting(profile("bursts", WORKERS, 0), 4, 500, closing), spec)["jobs"] == 500
    return time.process_time() - begun


def replay_milliseconds(trace: Trace, candidate: Scheme | Pipeline) -> float:
    """100 jobs of 4 models in the way of the unfinished that takes longest; the loop is compiled."""
    took = dict.fromkeys(UNFINISHED, float("inf"))
    for _ in range(10):
        for unfinished in UNFINISHED:
            begun = time.process_time()
            replay(trace, candidate, models=4, jobs=ROUNDS, unfinished=unfinished)
            took[unfinished] = min(took[unfinished], time.process_time() - begun)
    return 1e3 * max(took.values())


COMPILE = """
import time
import numba
import numpy as np
from distseq.cluster.trace import Trace
from distseq.coding.schemes.registry import parse
from distseq.scheduling.replay import replay
from distseq.scheduling.pipeline import Pipeline
begun = time.process_time()
for candidate in (parse("uncoded", 4), Pipeline()):
    replay(Trace(np.ones((1, 4)), 0.0, 0.0), candidate, models=1, jobs=1)
print(time.process_time() - begun)
"""


def compile_seconds() -> float:
    """The first replays of rounds and of a pipeline, with nothing in numba's cache."""
    with tempfile.TemporaryDirectory() as cache:
        answer = subprocess.run(
            [sys.executable, "-c", COMPILE],
            env={**os.environ, "NUMBA_CACHE_DIR": cache},
            capture_output=True,
            text=True,
            check=True,
        )
    return float(answer.stdout)


class Plain:
    """An actor that answers each call with a row, the plain way."""

    def row(self, task: int) -> np.ndarray:
        return np.zeros(8, dtype=np.float32)


def plain_round(actors: list[Any], tasks: int) -> float:
    begun = time.perf_counter()
    rows = ray.get([actors[task % len(actors)].row.remote(task) for task in range(tasks)])
    assert len(rows) == tasks
    return time.perf_counter() - begun


def pool_round(pool: HostPool, job: int, tasks: int) -> float:
    ids = np.arange(tasks)
    begun = time.perf_counter()
    pool.publish(job, Payload(job, 0, 0, np.zeros(0), ids, 0, "uncoded", tasks))
    sent = [MiniTask(job, 0, worker) for worker in range(tasks)]
    pool.send(sent)
    left = tasks
    while left:
        left -= len(pool.poll(None))
    total = pool.collect(job, dict.fromkeys(sent, 1.0))
    pool.retire(job)
    taken = time.perf_counter() - begun
    np.testing.assert_array_equal(total, feature(ids, 8).sum(axis=0))
    return taken


def ray_rounds(tasks: int, rounds: int = 40) -> tuple[float, float]:
    """(our pool, plain ray.get) median milliseconds per round, the two measured in turn."""
    pool = ray_pool(tasks, WorkSpec("distseq.cluster.probe:Probe"), hosts=2)
    actors = [ray.remote(num_cpus=1)(Plain).remote() for _ in range(2)]
    ours, plain = [], []
    for job in range(rounds + 5):
        plain.append(plain_round(actors, tasks))
        ours.append(pool_round(pool, job, tasks))
    pool.close()
    for actor in actors:
        ray.kill(actor)
    return 1e3 * statistics.median(ours[5:]), 1e3 * statistics.median(plain[5:])


def main() -> None:
    versions = ", ".join(f"{name} {version(name)}" for name in ("numpy", "scipy", "ray"))
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}")
    print(f"load average at the start: {os.getloadavg()[0]:.1f}\n")
    for spec, closing, aim in (
        ("msgc:1,2,27", Safe(), 5),
        ("msgc:1,2,27,code=cyclic", Mu(), 5),
        ("srsgc:1,2,23,code=cyclic", Mu(), 5),
        ("msgc:2,10,27", Safe(), 20),
        ("msgc:2,10,27,code=cyclic", Mu(), 20),
    ):
        took = min(milliseconds_per_round(spec, closing) for _ in range(REPEATS))
        print(f"scheduler and decoder, n=256, {spec}, {type(closing).__name__}: {took:.2f} ms/round (aim {aim})")
    for pipeline, models in ((Pipeline(16, 4), 4), (Pipeline(8, 2), 16)):
        for unfinished in ("lost", "serial"):
            took = min(milliseconds_per_delivery(pipeline, models, unfinished) for _ in range(REPEATS))
            name = f"{pipeline.name}, M={models}, {unfinished}"
            print(f"scheduler, n=256, {name}: {took:.3f} ms/delivery (aim 0.1)")
    print(f"decode weights, n=256, s=27, not cached: {milliseconds_per_decode(256, 27):.2f} ms (aim 3)")
    for spec, closing in (("gc:15", Safe()), ("msgc:1,2,27", Safe()), ("msgc:1,2,27,code=cyclic", Mu())):
        took = simulation_seconds(spec, closing)
        print(f"simulated, 500 jobs, 256 workers, {spec}, {type(closing).__name__}: {took:.2f} s (aim 5)")
    print(f"replay, compiling both loops: {compile_seconds():.1f} s (aim 8)")
    trace = profile("bursts", WORKERS, 0)
    for spec in ("uncoded", "gc:7", "srsgc:2,3,23", "msgc:1,2,27", "gc:8,q=9", "redispatch:2,copies=4", "backup:75"):
        took = replay_milliseconds(trace, parse(spec, WORKERS))
        print(f"replay, 100 rounds x 256 workers, {spec}: {took:.1f} ms (aim 10)")
    for pipeline in (Pipeline(16, 4), Pipeline(16, 2, lanes=4), Pipeline(64, 1, burst=2), Pipeline(8, 4, places=32)):
        took = replay_milliseconds(trace, pipeline)
        print(f"replay, 100 jobs x 256 workers, {pipeline.name}: {took:.1f} ms (aim 50)")
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="error")
    for tasks in (64, 256):
        ours, plain = ray_rounds(tasks)
        print(
            f"Ray, {tasks} empty mini-tasks, 2 actors: {ours:.1f} ms, plain ray.get {plain:.1f} ms: {ours / plain:.2f}x (aim 1.5)"
        )
    ray.shutdown()


if __name__ == "__main__":
    main()
