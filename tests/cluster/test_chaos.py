"""Random deaths and hangs over hundreds of jobs: no job lost, no wrong sum, nothing left behind."""

import contextlib
import gc
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from distseq.cluster.host_pool import HostPool
from distseq.cluster.probe import feature
from distseq.cluster.profiles import profile
from distseq.cluster.work import WorkSpec
from distseq.coding.schemes import parse
from distseq.master import Master
from distseq.observers import Silent
from distseq.roles import Opening
from distseq.scheduling.rounds import RoundScheduler

N, SIZE, MODELS, STEPS = 8, 1000, 4, 50


class Sums:
    """A learner whose every decoded sum must be that of its batch."""

    def __init__(self, name: str) -> None:
        self.name, self.steps, self.right = name, STEPS, 0

    def ids(self, step: int) -> np.ndarray:
        return np.arange(step, step + 40)

    def open(self, step: int) -> Opening:
        return Opening(np.ones(SIZE, dtype=np.float32), self.ids(step))

    def apply(self, total: np.ndarray) -> Mapping[str, float]:
        np.testing.assert_array_equal(total, feature(self.ids(self.right), SIZE).sum(axis=0))
        self.right += 1
        return {}


class Chaos(Silent):
    """Every 12 jobs, on average, a random host is killed or stopped for good."""

    def __init__(self, pool: HostPool, draws: np.random.Generator) -> None:
        self.pool, self.draws, self.blows = pool, draws, 0

    def job_applied(self, *job: object) -> None:
        if self.draws.random() < 1 / 12:
            pids = [pid for pid in self.pool.pids() if pid]
            blow = signal.SIGKILL if self.draws.random() < 0.7 else signal.SIGSTOP
            with contextlib.suppress(ProcessLookupError, ValueError):  # dead already, or none that is known yet
                os.kill(int(self.draws.choice(pids)), blow)
                self.blows += 1


def resources() -> tuple[int, int]:
    """Open descriptors of this process, and blocks of shared memory that this project has made."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir())), len(list(Path("/dev/shm").glob("psm_*")))


@pytest.mark.slow
def test_two_hundred_jobs_survive_random_deaths_and_hangs(real_pool: Callable[..., HostPool]) -> None:
    draws = np.random.default_rng(0)
    before = resources()
    spec = WorkSpec("distseq.cluster.probe:Probe", f'{{"size": {SIZE}}}')
    pool = real_pool(N, spec, hosts=2, delays=profile("bursts", N, 0, base=0.01), silent_after=3.0)
    learners = [Sums(f"m{m}") for m in range(MODELS)]
    chaos = Chaos(pool, draws)
    Master(learners, RoundScheduler(parse("msgc:1,2,2", N)), pool, observers=[chaos]).run()
    assert [learner.right for learner in learners] == [STEPS] * MODELS
    assert chaos.blows >= 10
    pool.close()
    descriptors, blocks = resources()
    assert descriptors <= before[0] + 5, "descriptors leak with every host that dies"
    assert blocks <= before[1], "shared memory of dead hosts is left behind"
