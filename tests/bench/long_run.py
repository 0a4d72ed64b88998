"""make bench-long-run: memory and seconds per job of many tiny jobs on a local pool, and how they grow after the first tenth."""

import argparse
import os
import time
from pathlib import Path

import numpy as np

from distseq.cluster.local.pool import local_pool
from distseq.cluster.pool import Payload
from distseq.cluster.probe import feature
from distseq.cluster.work import WorkSpec
from distseq.coding.plan import MiniTask

N, HOSTS, SIZE = 8, 2, 1000
WINDOWS = 20


def resident(pid: int) -> float:
    """MiB of a process, shared memory included."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def slope(values: list[float], jobs: int) -> float:
    """Growth per 1,000 jobs by least squares, over windows of so many jobs."""
    return float(np.polyfit(np.arange(len(values)) * jobs / 1000, values, 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000)
    options = parser.parse_args()
    pool, ids = local_pool(N, WorkSpec("distseq.cluster.probe:Probe", f'{{"size": {SIZE}}}'), hosts=HOSTS), np.arange(N)
    expected, window = feature(ids, SIZE).sum(axis=0), options.jobs // WINDOWS
    series: dict[str, list[float]] = {}
    begun = time.perf_counter()
    for job in range(window * WINDOWS):
        pool.publish(job, Payload(job, 0, 0, np.zeros(SIZE, np.float32), ids, 0, "uncoded", N))
        sent = [MiniTask(job, 0, worker) for worker in range(N)]
        pool.send(sent)
        left = N
        while left:
            left -= len(pool.poll(None))
        np.testing.assert_array_equal(pool.collect(job, dict.fromkeys(sent, 1.0)), expected)
        pool.retire(job)
        if (job + 1) % window == 0:
            pids = {"driver": os.getpid()} | {f"host {k}": pid for k, pid in enumerate(pool.pids())}
            now = {f"MiB of {name}": resident(pid) for name, pid in pids.items()}
            now["open files of driver"] = len(os.listdir("/proc/self/fd"))
            now["milliseconds per job"] = 1e3 * (time.perf_counter() - begun) / window
            for name, value in now.items():
                series.setdefault(name, []).append(value)
            begun = time.perf_counter()
    pool.close()
    for name, values in series.items():
        later = values[WINDOWS // 10 :]
        print(f"{name}: {later[0]:.2f} .. {later[-1]:.2f}, {slope(later, window):+.4f} per 1,000 jobs")


if __name__ == "__main__":
    main()
