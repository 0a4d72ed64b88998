"""make bench-live: how long the main job takes to learn so much, on real workers that the operating system slows down.

The models of examples/main.toml are trained from the same weights on the same batches under each configuration, in turn, until
every model has reached `--target` held-out bits per character. A reference, one process without workers, says beforehand at
which step each gets there; every configuration must follow its curve. Bursts of slowness (duty cycles of SIGSTOP and SIGCONT)
move over the processes meanwhile, the same in each turn of a repetition. Every message starts up for STARTUP seconds of sleep,
as does every gradient of a rank of DistributedDataParallel, so that eight workers fit on two cores. Nothing is evaluated while
the clock runs: the parameters of each step are kept, and looked at afterwards.

Worker-seconds are busy ones: of each message, from its beginning to its last answer, by the master's clock. A rank of
DistributedDataParallel is in its step or waits for the others in it, so all of its time counts.
"""

import argparse
import os
import platform
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, Protocol

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from data_parallel import Ranks
from slowness import QUIET, STARTUP, Stops, slowed, turns

from distseq.choosing import scheduler_of
from distseq.cluster.host_pool import HostPool
from distseq.cluster.pool import Payload
from distseq.cluster.trace import Trace
from distseq.config import SCHEDULERS, Config, load_config
from distseq.fleet import Fleet, build_fleet
from distseq.journal import ARRIVAL, MemoryJournal
from distseq.learner import Learner
from distseq.likeness import Snapshot
from distseq.master import Master
from distseq.observers import Silent
from distseq.pools import make_pool

DDP = "DistributedDataParallel"
# name -> the [scheduler] of the job
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "auto": {"kind": "auto"},
    "uncoded": {"kind": "rounds", "scheme": "uncoded"},
    "gc:1": {"kind": "rounds", "scheme": "gc:1"},
    "msgc:1,2,2": {"kind": "rounds", "scheme": "msgc:1,2,2"},
    "backup:75": {"kind": "rounds", "scheme": "backup:75"},
    "not splitting": {"kind": "pipeline", "parts": 1, "copies": 1},
    DDP: {},
}
MAIN = Path(__file__).resolve().parents[2] / "examples" / "main.toml"
MOST = 400  # steps of the reference, after which the target is out of reach
MARGIN = 1  # steps beyond the reference's, for rounding
ALIKE = 0.01  # bits per character: largest difference to the reference at the same step


class Curve(NamedTuple):
    """Where the reference crosses the target, for each learner: steps made, and bits per character then."""

    steps: list[int]
    bits: list[float]


class Kept(NamedTuple):
    """What a learner was after a step."""

    at: float  # seconds since the beginning
    parameters: np.ndarray  # (P,)


@dataclass
class Run:
    """A training under one configuration. `busy`: (end, worker-seconds) of messages; None: every worker is, all the time."""

    kept: list[list[Kept]]  # of each learner, after each step
    busy: list[tuple[float, float]] | None
    complete: bool


@dataclass
class Result:
    """Of the repetitions in which every model has reached the target."""

    seconds: list[float] = field(default_factory=list)
    worker_seconds: list[float] = field(default_factory=list)
    missed: int = 0  # repetitions that were too slow


class Contender(Protocol):
    def train(self, learners: Sequence[Learner], repetition: int, most: float) -> Run:
        """New models to their last step, or for so many seconds."""
        ...


class Keeping(Silent):
    """Keeps the parameters of every step."""

    def __init__(self, learners: Sequence[Learner], begun: float) -> None:
        self._learners, self._begun = {one.name: one for one in learners}, begun
        self.kept: dict[str, list[Kept]] = {one.name: [] for one in learners}

    def job_applied(self, learner: str, step: int, metrics: Mapping[str, float], now: float) -> None:
        self.kept[learner].append(Kept(now - self._begun, self._learners[learner].publish()))


class Deadline:
    """Stops a master at a time of its pool."""

    def __init__(self, pool: HostPool, end: float) -> None:
        self._pool, self._end = pool, end

    def applied(self, done: Sequence[int], next_job: int) -> None: ...

    def failed(self, learner: int) -> int:
        raise AssertionError(f"learner {learner} has failed")

    def stopping(self) -> bool:
        return self._pool.now() > self._end


class Workers:
    """A pool that all configurations of ours share; job numbers go on from one to the next."""

    def __init__(self, config: Config, fleet: Fleet) -> None:
        n = config.pool.workers
        pool = make_pool(config, fleet, Trace(np.full((1, n), STARTUP), 0.0, 0.0))
        assert isinstance(pool, HostPool), f"the benchmark is of real workers: got a pool of kind {config.pool.kind}"
        self.pool, self._jobs = pool, 0

    def train(self, config: Config, learners: Sequence[Learner], repetition: int, most: float) -> Run:
        pool, journal, total = self.pool, MemoryJournal(), sum(one.steps for one in learners)
        begun = pool.now()
        keeping = Keeping(learners, begun)
        deadline = Deadline(pool, begun + most)
        scheduler = scheduler_of(config)
        master = Master(learners, scheduler, pool, journal, [keeping], first_job=self._jobs, keeper=deadline)
        with slowed(pool.pids(), Stops(), repetition):
            master.run()
        for job in range(self._jobs, self._jobs + total):
            pool.retire(job)
        self._jobs += total
        quiet = pool.now() + QUIET
        while pool.now() < quiet:
            pool.poll(quiet)
        assert not master.failed, str(master.failed[0])
        return Run([keeping.kept[one.name] for one in learners], busy(journal, begun), not master.stopped)


def busy(journal: MemoryJournal, begun: float) -> list[tuple[float, float]]:
    """When each message's last answer came, and how long its worker had been busy with it."""
    startups, computes, ends = dict[Any, float](), defaultdict[Any, float](float), dict[Any, float]()
    for record in journal.records:
        for values in record.get("arrivals", ()):
            one = dict(zip(ARRIVAL, values, strict=True))
            message = (one["worker"], one["invocation"])
            startups[message] = max(startups.get(message, 0.0), one["startup"])
            computes[message] += one["compute"]
            ends[message] = max(ends.get(message, 0.0), one["at"] - begun)
    return [(ends[message], startups[message] + computes[message]) for message in ends]


@dataclass
class Ours:
    """A scheduler on the shared pool."""

    workers: Workers
    config: Config

    def train(self, learners: Sequence[Learner], repetition: int, most: float) -> Run:
        return self.workers.train(self.config, learners, repetition, most)


class DataParallel:
    """A rank per worker."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks

    def train(self, learners: Sequence[Learner], repetition: int, most: float) -> Run:
        self._ranks.prepare(learners, startup=STARTUP, keep=True)
        with slowed(self._ranks.pids(), Stops(), repetition):
            trained = self._ranks.train(most)
        kept: list[list[Kept]] = [[] for _ in learners]
        if trained is not None:
            for step, parameters in zip(trained.steps, trained.parameters, strict=True):
                kept[step.learner].append(Kept(step.at, parameters))
        return Run(kept, None, trained is not None)


class Bench:
    """The main job, the weights that every training begins with, and what a training has reached."""

    def __init__(self, options: argparse.Namespace) -> None:
        config = load_config(MAIN)
        n = options.workers
        cpus = min(1.0, int(100 * (os.cpu_count() or 1) / n) / 100)
        pool = replace(config.pool, kind=options.pool, workers=n, hosts=n, cpus=cpus)
        self.config = replace(config, pool=pool)
        self.fleet = build_fleet(self.config)
        self.learners = self.fleet.learners
        self._begin: list[Snapshot] = [deepcopy(one.snapshot()) for one in self.learners]
        self.target = options.target
        self.curve = self._reference()
        for one in self.learners:
            one.steps = max(self.curve.steps) + MARGIN

    def bits(self, m: int) -> float:
        """Held-out bits per character of a model as it is."""
        one = self.learners[m]
        assert one.evaluation is not None, f"{one.name} has no held-out text"
        with torch.no_grad():
            losses = one.model.per_sample_loss(one.evaluation.batch(np.arange(len(one.evaluation))))  # type: ignore[operator]
        return float(losses.mean()) / float(np.log(2))

    def restore(self) -> None:
        for one, begin in zip(self.learners, self._begin, strict=True):
            one.restore(deepcopy(begin))

    def _reference(self) -> Curve:
        """Full batches in this process, until every model has reached the target."""
        curve, version_ = Curve([], []), 0
        for m, one in enumerate(self.learners):
            for step in range(MOST):
                o, version_ = one.open(step), version_ + 1
                payload = Payload(version_, m, step, o.parameters, o.ids, o.seed, "uncoded", 1, version=version_)
                one.apply(self.fleet.task.row(payload, o.ids, np.ones(len(o.ids))).astype(np.float64))
                bits = self.bits(m)
                if bits <= self.target:
                    curve.steps.append(step + 1)
                    curve.bits.append(bits)
                    break
            else:
                raise SystemExit(
                    f"{one.name} does not reach {self.target} bits/char in {MOST} steps: give another target"
                )
        return curve

    def reached(self, run: Run) -> float | None:
        """Seconds until the last model had reached the target; None where one has not.

        AssertionError where a model is not what the reference is after as many steps.
        """
        latest = 0.0
        for m, (kept, steps, expected) in enumerate(zip(run.kept, *self.curve, strict=True)):
            if len(kept) < steps:
                return None
            at_step = self._bits_of(m, kept[steps - 1])
            off = abs(at_step - expected)
            assert off <= ALIKE, f"{self.learners[m].name}: {at_step:.4f} bits/char, the reference {expected:.4f}"
            first = next(
                (k for k in range(max(0, steps - 2), len(kept)) if self._bits_of(m, kept[k]) <= self.target), None
            )
            if first is None:
                return None
            latest = max(latest, kept[first].at)
        return latest

    def _bits_of(self, m: int, kept: Kept) -> float:
        model = self.learners[m].model
        torch.nn.utils.vector_to_parameters(torch.from_numpy(kept.parameters.copy()), model.parameters())
        return self.bits(m)


def contenders(bench: Bench, names: Sequence[str], stack: ExitStack) -> dict[str, Contender]:
    """Started; what is to be closed goes to the stack."""
    found: dict[str, Contender] = {}
    shared: Workers | None = None
    for name in names:
        own = CONFIGURATIONS[name]
        if name == DDP:
            ranks = Ranks(bench.config, bench.config.pool.workers)
            stack.callback(ranks.close)
            found[name] = DataParallel(ranks)
        elif own["kind"] not in SCHEDULERS:
            print(f"{name}: left out, there is no scheduler of kind {own['kind']!r}")
        else:
            if shared is None:
                shared = Workers(bench.config, bench.fleet)
                stack.callback(shared.pool.close)
            scheduler = replace(bench.config.scheduler, **own)
            found[name] = Ours(shared, replace(bench.config, scheduler=scheduler))
    return found


def measure(bench: Bench, chosen: Mapping[str, Contender], repetitions: int, most: float) -> dict[str, Result]:
    """All in turn, after two steps each that nothing is recorded of."""
    results = {name: Result() for name in chosen}
    steps = [one.steps for one in bench.learners]
    for name in chosen:
        for one in bench.learners:
            one.steps = 2
        bench.restore()
        chosen[name].train(bench.learners, 0, most)
    for one, own in zip(bench.learners, steps, strict=True):
        one.steps = own
    for repetition, name in turns(list(chosen), repetitions):
        bench.restore()
        run = chosen[name].train(bench.learners, repetition, most)
        seconds = bench.reached(run)
        result = results[name]
        if seconds is None:
            assert not run.complete, f"{name}: trained to the end, and one model has not reached the target"
            result.missed += 1
            continue
        result.seconds.append(seconds)
        spent = (
            bench.config.pool.workers * seconds if run.busy is None else sum(s for end, s in run.busy if end <= seconds)
        )
        result.worker_seconds.append(spent)
    return results


def report(results: Mapping[str, Result], target: float, most: float) -> None:
    """Medians over the repetitions; a configuration that was too slow in one of them has none."""
    whole = {name: one for name, one in results.items() if one.seconds and not one.missed}
    best = min((statistics.median(one.seconds) for one in whole.values()), default=np.nan)
    least = min((statistics.median(one.worker_seconds) for one in whole.values()), default=np.nan)
    print(
        f"| configuration | seconds to {target} bits/char (least-most) | of the best | worker-seconds | of the least |"
    )
    print("|---|---|---|---|---|")
    for name, one in results.items():
        if name not in whole:
            print(
                f"| {name} | not reached in {most:.0f} s in {one.missed} of {one.missed + len(one.seconds)} | - | - | - |"
            )
            continue
        seconds, busy_ = statistics.median(one.seconds), statistics.median(one.worker_seconds)
        spread = f"{min(one.seconds):.1f}-{max(one.seconds):.1f}"
        print(f"| {name} | {seconds:.1f} ({spread}) | {seconds / best:.2f} | {busy_:.0f} | {busy_ / least:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--configurations", nargs="+", choices=list(CONFIGURATIONS), default=list(CONFIGURATIONS))
    parser.add_argument(
        "--target", type=float, default=3.8, help="held-out bits per character that every model is to reach"
    )
    parser.add_argument("--max-seconds", type=float, default=120.0, help="of one training")
    parser.add_argument("--pool", choices=("ray", "local"), default="ray")
    parser.add_argument("--workers", type=int, default=8, help="each a process of its own")
    options = parser.parse_args()
    torch.set_num_threads(1)
    versions = ", ".join(f"{name} {version(name)}" for name in ("numpy", "torch", "ray"))
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}")
    bench = Bench(options)
    steps = ", ".join(f"{one.name} {own}" for one, own in zip(bench.learners, bench.curve.steps, strict=True))
    print(
        f"load average at the start: {os.getloadavg()[0]:.1f}; {options.workers} workers ({options.pool}), one process each"
    )
    print(f"steps to {options.target} held-out bits/char on one machine: {steps}")
    with ExitStack() as stack:
        chosen = contenders(bench, options.configurations, stack)
        results = measure(bench, chosen, options.repeat, options.max_seconds)
    print(f"medians of {options.repeat} turns; load average at the end: {os.getloadavg()[0]:.1f}\n")
    report(results, options.target, options.max_seconds)


if __name__ == "__main__":
    main()
