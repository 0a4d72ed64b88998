"""A model of 20 million parameters on 16 workers of one machine, beside plain data-parallel PyTorch, in one run.

    python tests/bench/large.py [--jobs 8] [--repeat 2]

Each configuration runs in a process of its own, in turn, `repeat` times; the best of each counts. Printed per job: seconds,
bytes that the driver receives (rows that came to it, and decoded sums), and the driver's peak memory.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WORKERS, BATCH, WINDOW = 16, 16, 8
MODEL: dict[str, Any] = {"symbols": 97, "hidden": 1536}
CONFIGURATIONS = ("ddp", "local uncoded", "local gc:1", "ray uncoded", "ray gc:1")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--jobs", type=int, default=8, help="of each configuration, after two that are not counted")
    arguments.add_argument("--repeat", type=int, default=2)
    arguments.add_argument("--one", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.one:
        kind, _, scheme = options.one.partition(" ")
        print(json.dumps(ddp(options.jobs) if kind == "ddp" else ours(kind, scheme, options.jobs)))
        return
    best: dict[str, Any] = {}
    for _ in range(options.repeat):
        for name in CONFIGURATIONS:
            command = [sys.executable, __file__, "--one", name, "--jobs", str(options.jobs)]
            result = json.loads(
                subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
            )
            if name not in best or result["seconds"] < best[name]["seconds"]:
                best[name] = result
    size = best["local uncoded"]["parameters"]
    print(f"{size / 1e6:.1f} million parameters, {WORKERS} workers on 2 processes, batch {BATCH} x {WINDOW}\n")
    print("| configuration | s/job | of DDP | received by the driver, MB/job | of one row | driver's peak memory, MB |")
    print("|---|---|---|---|---|---|")
    for name, one in best.items():
        received = f"{one['received'] / 1e6:.0f} | {one['received'] / (4 * size):.1f}" if "received" in one else "- | -"
        ratio = one["seconds"] / best["ddp"]["seconds"]
        print(f"| {name} | {one['seconds']:.2f} | {ratio:.2f} | {received} | {one['peak'] / 1e6:.0f} |")


def peak() -> int:
    """Bytes of the largest resident set of this process, shared memory included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Clock:
    """Seconds of the jobs after the first two."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def tick(self) -> None:
        self.times.append(time.perf_counter())

    def per_job(self) -> float:
        return (self.times[-1] - self.times[1]) / (len(self.times) - 2)


def text(folder: Path) -> Path:
    path = folder / "text.txt"
    path.write_text("".join(f"{k} green bottles hanging on the wall, and {k * k} more.\n" for k in range(200)))
    return path


def ours(pool: str, scheme: str, jobs: int) -> dict[str, Any]:
    from rich.console import Console

    import distseq
    from distseq import training
    from distseq.observers import Silent

    clock, received, size = Clock(), [0], [0]

    class Watch(Silent):
        def job_applied(self, *_: object) -> None:
            clock.tick()

    def counted(config: Any, fleet: Any, trace: Any, make: Any = training.make_pool) -> Any:
        """The pool, with what comes to the driver counted: rows that come along, and sums that are not made here."""
        made = make(config, fleet, trace)
        transport = made._transport
        wait, add = transport.wait, transport.add

        def counting_wait(*arguments: Any) -> Any:
            heard = wait(*arguments)
            for _, said in heard:
                rows = [getattr(answer, "row", None) for answer in said] if isinstance(said, list) else []
                received[0] += sum(getattr(row, "nbytes", 0) for row in rows)
            return heard

        def counting_add(*arguments: Any) -> Any:
            total = add(*arguments)
            size[0] = max(size[0], len(total))
            received[0] += total.nbytes
            return total

        transport.wait, transport.add = counting_wait, counting_add
        return made

    training.make_pool = counted
    with tempfile.TemporaryDirectory() as folder:
        job = {
            "run": {"steps": jobs + 2, "checks": 0},
            "pool": {"kind": pool, "workers": WORKERS, "hosts": 2},
            "scheduler": {"scheme": scheme},
            "checkpoint": {"every": 0},
            "learner": [
                {
                    "name": "large",
                    "model": "distseq.models.char_lstm:CharLSTM",
                    "model_args": MODEL,
                    "data": f"text:{text(Path(folder))}",
                    "data_args": {"window": WINDOW},
                    "batch": BATCH,
                    "optimizer_args": {"lr": 0.001},
                }
            ],
        }
        distseq.train(job, out=Path(folder) / "run", console=Console(quiet=True), watchers=[Watch()])
    per_job = received[0] / (jobs + 2)
    return {"seconds": clock.per_job(), "received": per_job, "peak": peak(), "parameters": size[0] - 2}


def ddp(jobs: int) -> dict[str, Any]:
    """Two processes, gloo, the same model, optimizer and global batch."""
    with tempfile.TemporaryDirectory() as folder:
        path = text(Path(folder))
        command = [sys.executable, "-c", f"import runpy; runpy.run_path({__file__!r})['rank']()", str(path), str(jobs)]
        store = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
        ranks = [
            subprocess.Popen(command, env=os.environ | store | {"RANK": str(r)}, stdout=subprocess.PIPE) for r in (0, 1)
        ]
        said = [rank.communicate()[0] for rank in ranks]
    assert all(rank.returncode == 0 for rank in ranks), "a rank has failed"
    result: dict[str, Any] = json.loads(said[0].splitlines()[-1])
    return result


def free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def rank() -> None:
    import numpy as np
    import torch
    import torch.distributed as dist

    from distseq.models.char_lstm import CharLSTM
    from distseq.models.data import open_dataset

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    data = open_dataset(f"text:{sys.argv[1]}", window=WINDOW)

    class Loss(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = CharLSTM(**MODEL)

        def forward(self, batch: Any) -> torch.Tensor:
            return self.model.per_sample_loss(batch).mean()

    model = torch.nn.parallel.DistributedDataParallel(Loss())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    draws, clock = np.random.default_rng(0), Clock()
    for _ in range(int(sys.argv[2]) + 2):
        ids = draws.integers(0, len(data), BATCH)[dist.get_rank() :: 2]
        optimizer.zero_grad()
        model(data.batch(ids)).backward()
        optimizer.step()
        clock.tick()
    if dist.get_rank() == 0:
        print(json.dumps({"seconds": clock.per_job(), "peak": peak()}))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
