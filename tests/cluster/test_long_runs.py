"""Memory and speed stay as they are over thousands of jobs, on the driver and on the hosts."""

import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distseq.cluster.hosts.host_pool import HostPool
from distseq.cluster.hosts.messages import Answer, Assign, Command, Failure, Publish, Retire, Stop
from distseq.cluster.hosts.worker import WorkerLoop
from distseq.cluster.local.pool import local_pool
from distseq.cluster.pool import Payload
from distseq.cluster.work import WorkSpec
from distseq.coding.plan import MiniTask

N, IDS = 4, np.arange(8)
PROBE = WorkSpec("distseq.cluster.probe:Probe")
STEP = 50  # jobs between two looks


def payload(job: int, scheme: str = "gc:1") -> Payload:
    return Payload(job, job % 3, job, np.zeros(16, dtype=np.float32), IDS, 0, scheme, N, version=1)


def run_jobs(pool: HostPool, jobs: range) -> None:
    """Each is complete when one row of each replica set has come; the others are late, cancelled or never begun."""
    for job in jobs:
        pool.publish(job, payload(job))
        tasks = [MiniTask(job, 0, worker) for worker in range(N)]
        pool.send(tasks)
        got: set[int] = set()
        while not ({0, 1} & got and {2, 3} & got):
            got |= {d.task.worker for d in pool.poll(None) if d.task.job == job and not d.stale}
        chosen = [min({0, 1} & got), min({2, 3} & got)]
        pool.collect(job, dict.fromkeys((tasks[worker] for worker in chosen), 1.0))
        if job % 2:
            pool.cancel(tasks)
        pool.retire(job)


def entries(thing: Any, seen: set[int] | None = None) -> int:
    """How many things the tables of an object of ours hold, and those in them."""
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return 0
    seen.add(id(thing))
    if isinstance(thing, dict):
        inner: Iterator[Any] = iter([*thing.keys(), *thing.values()])
    elif isinstance(thing, list | tuple | set | deque):
        inner = iter(thing)
    elif type(thing).__module__.startswith("distseq.cluster") and hasattr(thing, "__dict__"):
        inner = iter(vars(thing).values())
    else:
        return 0
    held = len(thing) if isinstance(thing, dict | list | set | deque) else 0
    return held + sum(entries(each, seen) for each in inner)


def test_the_tables_of_a_pool_hold_nothing_of_jobs_that_are_over() -> None:
    pool = local_pool(N, PROBE, hosts=2)
    sizes = []
    for begin in range(0, 6 * STEP, STEP):
        run_jobs(pool, range(begin, begin + STEP))
        # Late answers are taken too.
        pool.poll(pool.now() + 0.05)
        sizes.append(entries(pool))
    pool.close()
    assert max(sizes[1:]) <= min(sizes[1:]) + 20, sizes


def test_the_tables_of_a_worker_loop_hold_nothing_of_jobs_that_are_over() -> None:
    sizes, answers = list[int](), list[MiniTask]()

    def commands(job: int) -> list[Command]:
        messages = [Assign(worker, (MiniTask(job, 0, worker),), 1, job, 0.0) for worker in range(N)]
        return [Publish(job, lambda: payload(job)), *messages, *([Retire(job - 1)] if job else [])]

    def answered(answer: Answer | Failure) -> None:
        assert isinstance(answer, Answer)
        answers.extend([answer.task] if answer.row is not None else [])
        job = answer.task.job + 1
        # The last row of each job is late: its job is retired while it waits, which is reported.
        if answer.task.worker == N - 2:
            loop.post(*commands(job) if job < 4 * STEP else [Stop()])
            sizes.append(entries(loop))

    loop = WorkerLoop(PROBE, answered)
    loop.post(*commands(0))
    loop.run()
    assert len(answers) == 4 * STEP * (N - 1)
    assert max(sizes[STEP:]) <= min(sizes[STEP:]) + 4, sizes


def anonymous(pid: int) -> float:
    """KiB of a process's own memory."""
    return float(Path(f"/proc/{pid}/status").read_text().partition("RssAnon:")[2].split()[0])


@pytest.mark.parametrize(
    "jobs", [pytest.param(10_000, marks=pytest.mark.slow), pytest.param(20_000, marks=pytest.mark.long)]
)
def test_memory_and_seconds_per_job_are_flat(jobs: int, capsys: pytest.CaptureFixture[str]) -> None:
    pool, looks = local_pool(N, PROBE, hosts=2), 10
    memory, seconds = [], []
    for begin in range(0, jobs, jobs // looks):
        begun = time.process_time()
        run_jobs(pool, range(begin, begin + jobs // looks))
        seconds.append((time.process_time() - begun) / (jobs // looks))
        memory.append([anonymous(pid) for pid in (os.getpid(), *pool.pids())])
    pool.close()
    # Over the second half: before, allocators and caches fill up, in steps of 100 KiB and more until about 5,000 jobs.
    x = np.arange(looks // 2) * (jobs / looks)
    slopes = [1e3 * float(np.polyfit(x, np.array(memory)[looks // 2 :, k], 1)[0]) for k in range(3)]
    # The least: what else runs on the machine makes single looks half as long again.
    early, late = min(seconds[1:5]), min(seconds[-4:])
    with capsys.disabled():
        print(f"\n{jobs} jobs: KiB per 1,000 jobs on driver and hosts {[f'{slope:.1f}' for slope in slopes]},")
        print(f"driver's CPU seconds per job {early:.6f} at first, {late:.6f} at last")
    assert max(slopes) < 64
    assert late < 1.3 * early
