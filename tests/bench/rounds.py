"""make bench-rounds: rounds per second of a local pool, and what a host's worker loop adds to each row.

ARGS="--old DIR" measures the checkout in DIR in turn with this one and prints ratios: `git archive OLD | tar x -C DIR`.
"""

import argparse
import json
import os
import platform
import queue
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
N, HOSTS, ROUNDS = 8, 2, 400
WORKERS = (32, 128, 1024)  # of one host
ROWS = 2048
REPEATS = 3


class Constant:
    """A Work that computes nothing."""

    def row(self, *request: object) -> object:
        return ROW


def rounds_per_second() -> float:
    """Of a job of eight tiny rows each, one after another: published, sent, awaited, added and retired."""
    import numpy as np

    from distseq.cluster.local.pool import local_pool
    from distseq.cluster.pool import Payload
    from distseq.cluster.probe import feature
    from distseq.cluster.work import WorkSpec
    from distseq.coding.plan import MiniTask

    pool, ids = local_pool(N, WorkSpec("distseq.cluster.probe:Probe"), hosts=HOSTS), np.arange(N)
    expected, taken = feature(ids, 8).sum(axis=0), []
    for job in range(ROUNDS + 20):
        begun = time.perf_counter()
        pool.publish(job, Payload(job, 0, 0, np.zeros(0), ids, 0, "uncoded", N))
        sent = [MiniTask(job, 0, worker) for worker in range(N)]
        pool.send(sent)
        left = N
        while left:
            left -= len(pool.poll(None))
        total = pool.collect(job, dict.fromkeys(sent, 1.0))
        pool.retire(job)
        taken.append(time.perf_counter() - begun)
        np.testing.assert_array_equal(total, expected)
    pool.close()
    return ROUNDS / sum(taken[20:])


def row_microseconds(workers: int) -> float:
    """CPU time that the worker loop adds to a row that costs nothing, with a row of each job for each of so many workers."""
    import numpy as np

    from distseq.cluster.hosts.messages import Answer, Assign, Publish, Retire
    from distseq.cluster.hosts.worker import WorkerLoop
    from distseq.cluster.pool import Payload
    from distseq.cluster.work import WorkSpec
    from distseq.coding.plan import MiniTask

    global ROW
    ROW = np.zeros(2, dtype=np.float32)
    answers: queue.SimpleQueue[object] = queue.SimpleQueue()
    loop = WorkerLoop(WorkSpec("distseq.cluster.probe:Probe"), answers.put)
    loop._spec = Given()  # type: ignore[assignment]
    payload = Payload(0, 0, 0, np.zeros(0), np.arange(workers), 0, "uncoded", workers, version=1)
    payload.layout.row(MiniTask(0, 0, 0), payload.ids)
    threading.Thread(target=loop.run, daemon=True).start()
    taken, jobs = 0.0, ROWS // workers
    for job in range(jobs + 1):
        # CPU time: other programs on the machine do not count.
        begun = time.process_time()
        loop.post(Publish(job, lambda: payload))
        for worker in range(workers):
            loop.post(Assign(worker, (MiniTask(job, 0, worker),), 1, job, 0.0))
        for _ in range(workers):
            assert isinstance(answers.get(timeout=60), Answer)
        loop.post(Retire(job))
        # The first job warms up.
        taken += time.process_time() - begun if job else 0.0
    return 1e6 * taken / (jobs * workers)


class Given:
    """A specification of a Work that is there already."""

    prefetch, stack = False, 1

    def load(self) -> Constant:
        return Constant()


def measure() -> dict[str, float]:
    found = {"rounds per second, local pool, n=8, 2 hosts": rounds_per_second()}
    for workers in WORKERS:
        took = min(row_microseconds(workers) for _ in range(2))
        found[f"microseconds of the worker loop per row, {workers} workers per host"] = took
    return found


def measured_in(folder: Path) -> dict[str, float]:
    """The measurements of a checkout, in a process of its own."""
    command = [sys.executable, str(Path(__file__)), "--measure"]
    answer = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(folder)}, cwd=folder, capture_output=True, text=True, check=True
    )
    found: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--old", type=Path, help="a checkout to compare with")
    parser.add_argument("--measure", action="store_true", help="measure what is on the path, and print JSON")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure()))
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS', 'not set')}; load average {os.getloadavg()[0]:.1f}\n")
    folders = [ROOT] if options.old is None else [ROOT, options.old.resolve()]
    # In turn, so that a load of the machine falls on both.
    runs = [[measured_in(folder) for folder in folders] for _ in range(REPEATS)]
    for name in runs[0][0]:
        new, *old = (statistics.median(run[k][name] for run in runs) for k in range(len(folders)))
        print(f"{name}: {new:.1f}" + "".join(f", old {one:.1f}: {new / one:.2f}x" for one in old))


if __name__ == "__main__":
    main()
