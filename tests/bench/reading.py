"""make bench: seconds per row of a host that reads the next row's samples ahead, against one that does not.

The two are measured in turn in one run, their sums compared bit by bit. CPU is that of the host processes, which a busy machine
disturbs less than the wall clock. Compare the ratios.
"""

import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

from distseq.cluster.hosts.host_pool import HostPool
from distseq.cluster.local.pool import local_pool
from distseq.cluster.pool import Payload
from distseq.coding.plan import MiniTask
from distseq.config.toml_file import from_dict
from distseq.learners.fleet import Fleet
from distseq.learners.from_config import build_fleet
from distseq.models.data.text import Text

ROWS, ROUNDS, BATCH = 16, 15, 512
TEXT = "".join(f"line {k}: the quick brown fox {k * k} jumps over {k % 7} lazy dogs.\n" for k in range(2000))


class Slow:
    """A text whose batches take so many seconds longer: asleep, as a disk is waited for, or busy in Python."""

    def __init__(self, seconds: float, busy: bool = False) -> None:
        self._text, self._seconds, self._busy = Text(TEXT, 32), seconds, busy
        self.fingerprint = self._text.fingerprint

    def __len__(self) -> int:
        return len(self._text)

    def batch(self, indices: np.ndarray) -> dict[str, torch.Tensor]:
        if self._busy:
            begun = time.thread_time()
            while time.thread_time() < begun + self._seconds:
                sum(range(100))
        else:
            time.sleep(self._seconds)
        return self._text.batch(indices)


def fleet(seconds: float, busy: bool, prefetch: bool) -> Fleet:
    learner = {
        "name": "a",
        "model": "distseq.models.char_lstm:CharLSTM",
        "model_args": {"hidden": 64},
        "data": "reading:Slow",
        "data_args": {"seconds": seconds, "busy": busy},
        "batch": BATCH,
    }
    pool = {"kind": "local", "workers": ROWS, "prefetch": prefetch}
    return build_fleet(from_dict({"pool": pool, "learner": [learner]}))


def one_round(pool: HostPool, made: Fleet, job: int) -> tuple[float, np.ndarray]:
    """Seconds of the rows of a job, and their sum."""
    o = made.learners[0].open(job)
    pool.publish(job, Payload(job, 0, job, o.parameters, o.ids, o.seed, "uncoded", ROWS))
    sent = [MiniTask(job, 0, worker) for worker in range(ROWS)]
    begun = time.perf_counter()
    pool.send(sent)
    left = ROWS
    while left:
        left -= len(pool.poll(None))
    taken = time.perf_counter() - begun
    total = pool.collect(job, dict.fromkeys(sent, 1.0))
    pool.retire(job)
    return taken, total


def cpu_seconds(pool: HostPool) -> float:
    """CPU seconds of the host processes so far (Linux)."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pool.pids()]
    return sum(int(field[11]) + int(field[12]) for field in fields) / os.sysconf("SC_CLK_TCK")


def row_seconds(made: Fleet) -> float:
    """Median seconds of computing a row whose samples are there."""
    o = made.learners[0].open(0)
    payload, ids = Payload(0, 0, 0, o.parameters, o.ids, o.seed, "uncoded", ROWS), o.ids[: BATCH // ROWS]
    taken, samples = [], made.task.read(payload, ids)
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        made.task.row(payload, ids, np.ones(len(ids)), samples)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def compare(name: str, seconds: float, *, busy: bool = False, hosts: int = 1) -> None:
    fleets = [fleet(seconds, busy, prefetch) for prefetch in (False, True)]
    pools = [local_pool(ROWS, made.spec, hosts=hosts) for made in fleets]
    taken: tuple[list[float], list[float]] = ([], [])
    try:
        for job in range(ROUNDS + 2):
            if job == 2:
                started = [cpu_seconds(pool) for pool in pools]
            rounds = [one_round(pool, made, job) for pool, made in zip(pools, fleets, strict=True)]
            np.testing.assert_array_equal(rounds[0][1], rounds[1][1])
            for one, (lasted, _) in zip(taken, rounds, strict=True):
                one.append(lasted)
        cpu = [cpu_seconds(pool) - before for pool, before in zip(pools, started, strict=True)]
    finally:
        for pool in pools:
            pool.close()
    plain, ahead = (1e3 * statistics.median(one[2:]) / ROWS for one in taken)
    ratio = statistics.median(b / a for a, b in zip(taken[0][2:], taken[1][2:], strict=True))
    print(f"{name}: {ahead:.2f} ms/row, {plain:.2f} without reading ahead: {ratio:.2f}x, CPU {cpu[1] / cpu[0]:.2f}x")


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    seconds = row_seconds(fleet(0.0, False, True))
    print(f"\nload average at the start: {os.getloadavg()[0]:.1f}\nlocal hosts, {ROWS} rows of {1e3 * seconds:.2f} ms")
    compare("reading waits as long as a row takes, 1 host", seconds)
    compare("reading is busy as long as a row takes, 1 host", seconds, busy=True)
    compare("reading takes next to nothing, 1 host", 0.0)
    compare("reading takes next to nothing, 2 hosts", 0.0, hosts=2)


if __name__ == "__main__":
    main()
