"""make bench-stacking: rows of several models computed in one pass. One thread; ratios of times of one process.

    python tests/bench/stacking.py [rows] [pool]

rows   rows of M models of one layer of width 32, a batch of 4 windows of 64: alone over in one pass, and whether their bits
       are equal, so that a worker would use the pass
pool   8 models of the documentation of four services on 8 workers in 2 local processes: seconds of a job, and of the
       processes per job, with and without passes, in turn; the trained parameters must be the same bits
"""

import argparse
import os
import statistics
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from distseq.cluster.hosts.host_pool import HostPool
from distseq.cluster.pool import Payload
from distseq.cluster.system.cpu_time import timed
from distseq.cluster.trace import Trace
from distseq.cluster.work import RowRequest
from distseq.config.strategy import strategy
from distseq.config.toml_file import from_dict
from distseq.engine.master import Master
from distseq.gradients.passes import Compute, bits
from distseq.gradients.work import GradientWork
from distseq.kernels.layers import LAYERS
from distseq.learners.from_config import build_fleet
from distseq.models.data.synthetic import group_words
from distseq.training.pool import make_pool

WIDTH, BATCH, WINDOW, REPEATS = 32, 4, 64, 7
MODELS = (2, 4, 8)
WORKERS, WARM = 8, 5
FLEETS = {
    "gru of width 32": ("gru", 32),
    "slstm of width 64": ("slstm", 64),
    "linear attention of width 32": ("linear_attention", 32),
}
SCHEDULERS = {
    "uncoded": {"scheme": "uncoded"},
    "gc:1": {"scheme": "gc:1"},
    "pipeline, 8 parts, 2 copies": {"kind": "pipeline", "parts": 8, "copies": 2},
}


def least(compute: Compute, asked: Sequence[RowRequest]) -> float:
    return min(timed(lambda: compute(asked))[1] for _ in range(REPEATS))


def of_layer(layers: str, models: int) -> str:
    args = {"symbols": 97, "width": WIDTH, "layers": layers, "residual": True}
    model = "distseq.models.sequence:SequenceModel"
    work = GradientWork(
        [{"data": group_words(3, 4), "model": model, "model_args": args, "seed": m} for m in range(models)]
    )
    asked, draws = [], np.random.default_rng(0)
    for m in range(models):
        parameters = np.concatenate([p.detach().numpy().ravel() for p in work.problem(m).parameters])
        payload = Payload(m, m, 0, parameters, np.arange(BATCH), 0, "gc:1", 4, version=1)
        symbols = torch.from_numpy(draws.integers(97, size=(2, BATCH, WINDOW)))
        samples = {"inputs": symbols[0], "targets": symbols[1]}
        asked.append(RowRequest(payload, payload.ids, draws.normal(size=BATCH), samples))
    try:
        same = bits(work._alone(asked)) == bits(work._together(asked))
    except RuntimeError:
        return "no pass"
    ratio = least(work._alone, asked) / least(work._together, asked)
    return f"{ratio:.2f}{'' if same else ', other bits'}"


def rows() -> None:
    print(f"| layer | {' | '.join(f'{m} models' for m in MODELS)} |\n|{'---|' * (1 + len(MODELS))}")
    for name in [*LAYERS, "lstm:heads=4"]:
        print(f"| {name} | {' | '.join(of_layer(name, m) for m in MODELS)} |", flush=True)
    print()


def pool(steps: int) -> None:
    print(
        "| models | scheduler | passes: seconds of a job over without | processes' seconds over without |\n|---|---|---|---|"
    )
    for fleet_name, (layers, width) in FLEETS.items():
        for name, scheduler in SCHEDULERS.items():
            found: dict[int, list[tuple[float, float]]] = {1: [], 8: []}
            ends = {}
            for _ in range(3):
                for stack in found:
                    *times, end = trained(layers, width, scheduler, stack, steps)
                    found[stack].append((times[0], times[1]))
                    assert ends.setdefault("parameters", end) == end, "passes change the bits"
            wall, spent = (
                statistics.median(one[k] for one in found[8]) / statistics.median(one[k] for one in found[1])
                for k in (0, 1)
            )
            print(f"| {fleet_name} | {name} | {wall:.2f} | {spent:.2f} |", flush=True)


def trained(
    layers: str, width: int, scheduler: dict[str, object], stack: int, steps: int
) -> tuple[float, float, bytes]:
    """Seconds of a job, seconds of the worker processes per job, and the parameters at the end."""
    services = ("s3", "lambda", "sqs", "dynamodb")
    config = from_dict(
        {
            "run": {"steps": steps},
            "pool": {"kind": "local", "workers": WORKERS, "hosts": 2, "stack": stack},
            "scheduler": scheduler,
            "defaults": {
                "model": "distseq.models.sequence:SequenceModel",
                "model_args": {"width": width, "layers": layers, "residual": True},
                "data_args": {"window": WINDOW},
                "batch": 32,
            },
            "learner": [{"name": f"{service}-{k}", "data": f"aws:{service}"} for service in services for k in range(2)],
        }
    )
    fleet = build_fleet(config)
    with closing(make_pool(config, fleet, Trace(np.zeros((1, WORKERS)), 0.0, 0.0))) as pool:
        assert isinstance(pool, HostPool)
        for first, end in ((0, WARM), (WARM, steps)):
            for learner in fleet.learners:
                learner.steps = end
            begun, before = pool.now(), computed(pool)
            Master(fleet.learners, strategy(config).scheduler(), pool, first_job=first * len(fleet.learners)).run()
        jobs = (steps - WARM) * len(fleet.learners)
        wall, spent = (pool.now() - begun) / jobs, (computed(pool) - before) / jobs
    return wall, spent, b"".join(learner.publish().tobytes() for learner in fleet.learners)


def computed(pool: HostPool) -> float:
    """Seconds of CPU time of the pool's processes."""
    ticks = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13] for pid in pool.pids()]
    return sum(int(each) for pair in ticks for each in pair) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("kinds", nargs="*", choices=["rows", "pool", []])
    arguments.add_argument("--steps", type=int, default=45)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    if "rows" in (options.kinds or ["rows"]):
        rows()
    if "pool" in (options.kinds or ["pool"]):
        pool(options.steps)


if __name__ == "__main__":
    main()
