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
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from contenders import Contender, DataParallel, Ours, Workers
from data_parallel import Ranks
from main_job import MainJob
from slowness import turns

from distseq.config.schema import SCHEDULERS

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


@dataclass
class Result:
    """Of the repetitions in which every model has reached the target."""

    seconds: list[float] = field(default_factory=list)
    worker_seconds: list[float] = field(default_factory=list)
    missed: int = 0  # repetitions that were too slow


def contenders(job: MainJob, names: Sequence[str], stack: ExitStack) -> dict[str, Contender]:
    """Started; what is to be closed goes to the stack."""
    found: dict[str, Contender] = {}
    shared: Workers | None = None
    for name in names:
        own = CONFIGURATIONS[name]
        if name == DDP:
            ranks = Ranks(job.config, job.config.pool.workers)
            stack.callback(ranks.close)
            found[name] = DataParallel(ranks)
        elif own["kind"] not in SCHEDULERS:
            print(f"{name}: left out, there is no scheduler of kind {own['kind']!r}")
        else:
            if shared is None:
                shared = Workers(job.config, job.fleet)
                stack.callback(shared.pool.close)
            scheduler = replace(job.config.scheduler, **own)
            found[name] = Ours(shared, replace(job.config, scheduler=scheduler))
    return found


def measure(job: MainJob, chosen: Mapping[str, Contender], repetitions: int, most: float) -> dict[str, Result]:
    """All in turn, after two steps each that nothing is recorded of."""
    results = {name: Result() for name in chosen}
    steps = [one.steps for one in job.learners]
    for name in chosen:
        for one in job.learners:
            one.steps = 2
        job.restore()
        chosen[name].train(job.learners, 0, most)
    for one, own in zip(job.learners, steps, strict=True):
        one.steps = own
    for repetition, name in turns(list(chosen), repetitions):
        job.restore()
        run = chosen[name].train(job.learners, repetition, most)
        seconds, result = job.reached(run), results[name]
        print(f"turn {repetition + 1}, {name}: {'too slow' if seconds is None else f'{seconds:.1f} s'}", flush=True)
        if seconds is None:
            assert not run.complete, f"{name}: trained to the end, and one model has not reached the target"
            result.missed += 1
            continue
        result.seconds.append(seconds)
        spent = (
            job.config.pool.workers * seconds if run.busy is None else sum(s for end, s in run.busy if end <= seconds)
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
    job = MainJob(options.pool, options.workers, options.target)
    steps = ", ".join(f"{one.name} {own}" for one, own in zip(job.learners, job.curve.steps, strict=True))
    print(
        f"load average at the start: {os.getloadavg()[0]:.1f}; {options.workers} workers ({options.pool}), one process each"
    )
    whole, part = job.costs()
    print(
        f"a gradient of {job.learners[0].name}: {whole:.0f} ms of CPU; of a worker's part {part:.0f} ms, "
        f"{options.workers * part / whole:.1f} times as much for all parts"
    )
    print(f"steps to {options.target} held-out bits/char on one machine: {steps}")
    with ExitStack() as stack:
        chosen = contenders(job, options.configurations, stack)
        results = measure(job, chosen, options.repeat, options.max_seconds)
    print(
        f"\nmedians of {options.repeat} turns; load average at the end: {os.getloadavg()[0]:.1f}; "
        f"held-out bits/char are the reference's to {job.worst:.0e}\n"
    )
    report(results, options.target, options.max_seconds)


if __name__ == "__main__":
    main()
