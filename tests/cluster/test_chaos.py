"""Random deaths and hangs over hundreds of jobs: no job lost, no wrong sum, nothing left behind."""

import contextlib
import gc
import os
import signal
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from distseq.cluster.hosts.host_loop import IDLE
from distseq.cluster.hosts.host_pool import HostPool
from distseq.cluster.local.pool import local_pool
from distseq.cluster.probe import feature
from distseq.cluster.profiles import profile
from distseq.cluster.work import WorkSpec
from distseq.coding.schemes.registry import parse
from distseq.engine.interfaces import JobInput, Observer
from distseq.engine.master import Master
from distseq.scheduling.pipeline import Pipeline
from distseq.scheduling.pipeline_scheduler import PipelineScheduler
from distseq.scheduling.round_scheduler import RoundScheduler
from distseq.scheduling.scheduler import Scheduler
from tests.processes import hosts_below, left_after

N, SIZE, MODELS = 8, 4000, 4
# Steps of each learner, and the blows that are certain to fall meanwhile; the soak is `long`.
lengths = pytest.mark.parametrize(
    ("steps", "blows"), [pytest.param(15, 3, id="60 jobs"), pytest.param(50, 10, id="200 jobs", marks=pytest.mark.long)]
)


class Sums:
    """A learner whose every decoded sum must be that of its batch."""

    def __init__(self, name: str, steps: int) -> None:
        self.name, self.steps, self.right = name, steps, 0

    def ids(self, step: int) -> np.ndarray:
        return np.arange(step, step + 40)

    def open(self, step: int) -> JobInput:
        return JobInput(np.ones(SIZE, dtype=np.float32), self.ids(step))

    def apply(self, total: np.ndarray) -> Mapping[str, float]:
        np.testing.assert_array_equal(total, feature(self.ids(self.right), SIZE).sum(axis=0))
        self.right += 1
        return {}


class Chaos(Observer):
    """Every 12 jobs, on average, a random host is killed or stopped for good. Looks at this process's memory after each job."""

    def __init__(self, pool: HostPool, draws: np.random.Generator) -> None:
        self.pool, self.draws, self.blows = pool, draws, 0
        self.memory: list[float] = []  # MiB

    def job_applied(self, *job: object) -> None:
        self.memory.append(anonymous())
        if self.draws.random() < 1 / 12:
            # One that is starting is spared: a few deaths in a row without an answer are given up, as they should be.
            living = set(self.pool.members().values())
            pids = [pid for j, pid in enumerate(self.pool.pids()) if pid and f"host-{j}" in living]
            blow = signal.SIGKILL if self.draws.random() < 0.7 else signal.SIGSTOP
            with contextlib.suppress(ProcessLookupError, ValueError):  # dead already, or none that is known yet
                os.kill(int(self.draws.choice(pids)), blow)
                self.blows += 1


def anonymous() -> float:
    """MiB of this process's own memory, what it shares left out."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) / 1024


def descriptors() -> int:
    """Open descriptors of this process."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.slow
@lengths
def test_jobs_survive_random_deaths_and_hangs(any_pool: Callable[..., HostPool], steps: int, blows: int) -> None:
    survive(any_pool, RoundScheduler(parse("msgc:1,2,2", N)), steps, blows)


@pytest.mark.slow
@lengths
def test_pipelined_jobs_survive_random_deaths_and_hangs(steps: int, blows: int) -> None:
    survive(local_pool, PipelineScheduler(Pipeline(4, 3), N), steps, blows)


def survive(make_pool: Callable[..., HostPool], scheduler: Scheduler, steps: int, blows: int) -> None:
    """All jobs are exact, and nothing outlives the pool."""
    draws = np.random.default_rng(0)
    before, others = descriptors(), hosts_below(os.getpid())
    spec = WorkSpec("distseq.cluster.probe:Probe", f'{{"size": {SIZE}}}')
    pool = make_pool(N, spec, hosts=2, delays=profile("bursts", N, 0, base=0.01), silent_after=3.0)
    learners = [Sums(f"m{m}", steps) for m in range(MODELS)]
    chaos = Chaos(pool, draws)
    Master(learners, scheduler, pool, observers=[chaos]).run()
    assert [learner.right for learner in learners] == [steps] * MODELS
    assert chaos.blows >= blows
    # 45 jobs have some 14 MiB of rows and payloads.
    assert chaos.memory[-1] < chaos.memory[MODELS * steps // 4] + 8, "memory grows with jobs or deaths"
    end = pool.now() + 60  # a stopped process is killed when Ray has lost patience with it
    # `others` are of the Ray that this process may have started for an earlier test.
    while len(hosts_below(os.getpid()) - others) > 2 and pool.now() < end:
        pool.poll(pool.now() + 0.5)
    assert len(hosts_below(os.getpid()) - others) <= 2, "those that were replaced live on"
    hosts = hosts_below(os.getpid()) - others
    pool.close()
    assert not left_after(30, hosts)
    assert descriptors() <= before + 5, "descriptors leak with every host that dies"


def respawn_seconds(pool: HostPool, host: int) -> float:
    """From the death of an idle host, as the pool notices it, until its successor has its workers."""
    home = dict(pool.members())
    os.kill(pool.pids()[host], signal.SIGKILL)
    noticed: float | None = None
    end = pool.now() + 120
    while noticed is None or pool.members() != home:
        pool.poll(pool.now() + 0.01)
        if noticed is None and pool.members() != home:
            noticed = pool.now()
        assert pool.now() < end, "the host was not replaced"
    return pool.now() - noticed


class Blows(Observer):
    """Between two jobs, once every host is in its place and three jobs have gone by, the next blow falls.

    Every job needs every host. `jobs`: seconds of those in peace; `recoveries`: of each blow, and of the job after it.
    """

    def __init__(self, pool: HostPool, blows: list[int]) -> None:
        self.pool, self.blows, self.home = pool, blows, dict(pool.members())
        self.jobs: list[float] = []
        self.recoveries: list[tuple[int, float]] = []
        self.peace, self.last, self.struck = 0, pool.now(), 0

    def job_applied(self, *job: object) -> None:
        took, self.last = self.pool.now() - self.last, self.pool.now()
        if self.struck:
            self.recoveries.append((self.struck, took))
        elif self.pool.members() == self.home:
            self.jobs.append(took)
            self.peace += 1
        self.struck = 0
        if self.peace == 3 and self.blows:
            self.peace, self.struck = 0, self.blows.pop(0)
            os.kill(self.pool.pids()[len(self.blows) % 2], self.struck)

    def applied(self, *state: object) -> None: ...

    def trained(self) -> None: ...

    def stopping(self) -> bool:
        return not self.blows and not self.struck


@pytest.mark.slow
@pytest.mark.alone
def test_recovery_takes_at_most_twice_the_respawn(
    real_pool: Callable[..., HostPool], capsys: pytest.CaptureFixture[str]
) -> None:
    """Medians, of one run. A hang shows only after `silent_after`, when another host has spoken since, each IDLE seconds."""
    silent_after = 3.0
    spec = WorkSpec("distseq.cluster.probe:Probe", f'{{"size": {SIZE}}}')
    pool = real_pool(N, spec, hosts=2, delays=profile("none", N, 0), silent_after=silent_after)
    respawn = statistics.median(respawn_seconds(pool, k % 2) for k in range(3))
    watch = Blows(pool, [signal.SIGKILL] * 5 + [signal.SIGSTOP] * 3)
    learner = Sums("m", steps=10**9)
    Master([learner], RoundScheduler(parse("uncoded", N)), pool, observers=[watch], checkpoint_hook=watch).run()
    pool.close()
    usual = statistics.median(watch.jobs)
    killed = statistics.median(took for blow, took in watch.recoveries if blow == signal.SIGKILL) - usual
    stopped = statistics.median(took for blow, took in watch.recoveries if blow == signal.SIGSTOP) - usual
    with capsys.disabled():
        print(
            f"\njob {usual:.3f} s, respawn {respawn:.2f} s, recovery {killed:.2f} s after SIGKILL, {stopped:.2f} s after SIGSTOP"
        )
    assert killed <= 2 * respawn
    assert stopped <= silent_after + IDLE + 2 * respawn
