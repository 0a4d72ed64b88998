"""What trains a job's models on workers that are slowed down: a scheduler of ours on a pool, or data-parallel PyTorch."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from data_parallel import Ranks
from slowness import QUIET, STARTUP, Stops, slowed

from distseq.cluster.hosts.host_pool import HostPool
from distseq.cluster.trace import Trace
from distseq.config.schema import Config
from distseq.config.strategy import strategy
from distseq.engine.interfaces import Observer
from distseq.engine.journal import ARRIVAL, MemoryJournal
from distseq.engine.master import Master
from distseq.learners.fleet import Fleet
from distseq.learners.learner import Learner
from distseq.training.pool import make_pool


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


class Contender(Protocol):
    def train(self, learners: Sequence[Learner], repetition: int, most: float) -> Run:
        """New models to their last step, or for so many seconds."""
        ...


class Keeping(Observer):
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

    def trained(self) -> None: ...

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
        scheduler = strategy(config).scheduler()
        master = Master(learners, scheduler, pool, journal, [keeping], first_job=self._jobs, checkpoint_hook=deadline)
        with slowed(pool.pids(), Stops(), repetition):
            master.run()
        for job in range(self._jobs, self._jobs + total):
            pool.retire(job)
        self._jobs += total
        quiet = pool.now() + QUIET
        while pool.now() < quiet:
            pool.poll(quiet)
        assert not master.failures, str(master.failures[0])
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
