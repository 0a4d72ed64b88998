"""make bench-replay: 64 workers that take as long as a trace says, in real time, and what the simulator had said.

Every message to a worker sleeps the start-up that the trace has for it; rows cost next to nothing. Before any worker starts,
the simulator says from the same trace how many seconds a job takes: what cancelled work holds, `unfinished`, is serial, and rows
arrive one by one, as on real pools.

Which idle worker gets which part depends on milliseconds, and what follows from it grows: shift every start-up by at most JITTER
seconds, and 24 pipelined jobs under `bursts` take between 0.36 and 0.55 s each. So a prediction is the mean of DRAWS simulations,
each with start-ups so shifted; their least and most say how sharp it can be.
"""

import argparse
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from distseq.cluster.hosts.host_pool import HostPool
from distseq.cluster.local.pool import local_pool
from distseq.cluster.profiles import delays
from distseq.cluster.simulated import SimulatedPool
from distseq.cluster.trace import Trace
from distseq.coding.schemes.registry import parse
from distseq.engine.journal import MemoryJournal
from distseq.engine.master import Master
from distseq.scheduling.backup import round_scheduler
from distseq.scheduling.closing import Safe
from distseq.scheduling.pipeline import Pipeline
from distseq.scheduling.pipeline_scheduler import PipelineScheduler
from distseq.scheduling.scheduler import Scheduler
from distseq.simulation.measure import ProbeLearner, probe_spec
from distseq.simulation.recorded import master_seconds

MODELS = 4
CONFIGURATIONS = ("uncoded", "gc:3", "msgc:1,2,8", "pipeline:8,2")
JITTER, DRAWS = 0.005, 8
AIM = 0.1  # relative difference of a prediction
RECORDED = Path(__file__).resolve().parents[3] / "shared" / "traces" / "canada_l000.npz"


class Replay(NamedTuple):
    jobs: int
    predictions: tuple[float, ...]  # seconds per job
    measured: float
    master: float  # seconds per job that the real master was busy, of which a trace of start-ups says nothing

    @property
    def predicted(self) -> float:
        return statistics.mean(self.predictions)

    @property
    def error(self) -> float:
        return self.predicted / self.measured - 1


def startups(spec: str, workers: int) -> Trace:
    """The start-ups that a profile or trace file has for the first workers; no computing."""
    trace = delays(spec, workers, seed=0)
    return Trace(np.asarray(trace.times, dtype=float) - trace.slope * trace.load, 0.0, 0.0)


def scheduler_of(name: str, n: int) -> Scheduler:
    """`pipeline:PARTS,COPIES`, or rounds under a scheme."""
    kind, _, numbers = name.partition(":")
    if kind == "pipeline":
        return PipelineScheduler(Pipeline(*map(int, numbers.split(","))), n)
    return round_scheduler(parse(name, n), Safe(), late=True)


@dataclass(frozen=True)
class Replaying:
    """A trace, on real workers of a pool and in virtual time."""

    trace: Trace
    pool: str  # ray, local

    def predictions(self, name: str, jobs: int) -> tuple[float, ...]:
        """Seconds per job in virtual time, of each draw."""
        return tuple(self._predicted(name, jobs, seed) for seed in range(DRAWS))

    def _predicted(self, name: str, jobs: int, seed: int) -> float:
        times = self.trace.times
        shifts = np.random.default_rng(seed).uniform(-JITTER, JITTER, times.shape)
        pool = SimulatedPool(Trace(np.maximum(times + shifts, 0.0), 0.0, 0.0), unfinished="serial", arrival="row")
        return self._master(name, jobs, pool, MemoryJournal()).run() / jobs

    def jobs(self, name: str, seconds: float) -> int:
        """How many jobs of the models in turn take so many seconds."""
        usual = statistics.mean(self.predictions(name, 10 * MODELS))
        return MODELS * max(1, round(seconds / usual / MODELS))

    def run(self, name: str, jobs: int) -> Replay:
        predictions, journal = self.predictions(name, jobs), MemoryJournal()
        pool = self._start()
        try:
            master, begun = self._master(name, jobs, pool, journal), pool.now()
            measured = (master.run() - begun) / jobs
        finally:
            pool.close()
        return Replay(jobs, predictions, measured, master_seconds(journal.records))

    def _master(self, name: str, jobs: int, pool: HostPool | SimulatedPool, journal: MemoryJournal) -> Master:
        n = self.trace.workers
        learners = [ProbeLearner(n, jobs // MODELS, f"model-{m}") for m in range(MODELS)]
        return Master(learners, scheduler_of(name, n), pool, journal)

    def _start(self) -> HostPool:
        hosts = min(self.trace.workers, os.cpu_count() or 1)
        if self.pool == "local":
            return local_pool(self.trace.workers, probe_spec(0.0), hosts=hosts, delays=self.trace)
        from distseq.cluster.ray.pool import ray_pool

        return ray_pool(self.trace.workers, probe_spec(0.0), hosts=hosts, delays=self.trace)


def report(replaying: Replaying, names: Sequence[str], seconds: float) -> None:
    print(
        "| scheduler | jobs | predicted s/job (least-most) | measured s/job | error | master's s/job | load average |"
    )
    print("|---|---|---|---|---|---|---|")
    worst = 0.0
    for name in names:
        one = replaying.run(name, replaying.jobs(name, seconds))
        worst = max(worst, abs(one.error))
        spread = f"{min(one.predictions):.4f}-{max(one.predictions):.4f}"
        figures = (
            f"{one.jobs} | {one.predicted:.4f} ({spread}) | {one.measured:.4f} | {one.error:+.1%} | {one.master:.4f}"
        )
        print(f"| {name} | {figures} | {os.getloadavg()[0]:.1f} |", flush=True)
    print(f"\nlargest error {worst:.1%} (aim {AIM:.0%})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configurations", nargs="+", default=list(CONFIGURATIONS))
    parser.add_argument("--seconds", type=float, default=40.0, help="that each is predicted to take")
    parser.add_argument("--trace", default=str(RECORDED) if RECORDED.exists() else "bursts", help="a file or a profile")
    parser.add_argument("--pool", choices=("ray", "local"), default="ray")
    parser.add_argument("--workers", type=int, default=64)
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    trace = (
        f"{Path(options.trace).name}, median start-up {np.median(startups(options.trace, options.workers).times):.2f} s"
    )
    print(f"{options.workers} workers ({options.pool}), {MODELS} models; {trace}; unfinished = serial\n")
    report(Replaying(startups(options.trace, options.workers), options.pool), options.configurations, options.seconds)


if __name__ == "__main__":
    main()
