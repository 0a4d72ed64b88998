"""make bench-stragglers: real workers that the operating system slows down, and what the simulator says of them.

Four models train on a pool of processes for each scheme. While they do, bursts of slowness move from host to host, the same for
every scheme: `stops` are duty cycles of SIGSTOP and SIGCONT, `quotas` limits of CPU time (control groups; left out where they
cannot be written). The schemes take turns, so that whatever else the machine does hits all alike. Beside the seconds per job
of each stands what `distseq simulate` makes of the arrivals that `distseq profile` takes from the run's journal.
"""

import argparse
import os
import platform
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from slowness import QUIET, STARTUP, Slowness, Stops, quotas, slowed, turns

from distseq.cluster.hosts.host_pool import HostPool
from distseq.cluster.local.pool import local_pool
from distseq.cluster.trace import Trace
from distseq.coding.schemes.registry import parse
from distseq.config.schema import Config
from distseq.config.toml_file import from_dict
from distseq.engine.checks import Check
from distseq.engine.journal import FileJournal, Journal, MemoryJournal
from distseq.engine.master import Master
from distseq.learners.from_config import build_fleet
from distseq.monitoring.observers import Tally
from distseq.scheduling.closing import Safe
from distseq.scheduling.round_scheduler import RoundScheduler
from distseq.simulation.measure import run_trace
from distseq.simulation.simulate import Setting, simulate

SCHEMES = ("uncoded", "gc:1", "srsgc:1,2,2", "msgc:1,2,2")
CHECKS = 8  # gradients of each block that are compared with full-batch ones
EXACT = 1e-5  # largest relative difference of a parameter's gradient


@dataclass
class Contender:
    """A scheme with a pool and a run folder of its own."""

    scheme: str
    pool: HostPool
    folder: Path
    journal: FileJournal
    jobs: int = 0
    seconds: list[float] = field(default_factory=list)  # per job, of each block
    worst: float = 0.0  # relative difference of a decoded gradient


def contender(scheme: str, config: Config, folder: Path) -> Contender:
    folder.mkdir()
    workers = config.pool.workers
    delays = Trace(np.full((1, workers), STARTUP), 0.0, 0.0)
    pool = local_pool(workers, build_fleet(config).spec, hosts=workers, delays=delays)
    journal = FileJournal(folder / "journal.jsonl")
    journal.write({"kind": "run", "members": dict(pool.members())})
    return Contender(scheme, pool, folder, journal)


def block(one: Contender, config: Config, journal: Journal, slowness: Slowness, seed: int) -> float:
    """Train new models to their last step over the contender's pool; seconds per job."""
    fleet = build_fleet(config)
    steps = [learner.steps for learner in fleet.learners]
    sizes = [{name: p.numel() for name, p in one.model.named_parameters()} for one in fleet.learners]
    tally = Tally()
    scheduler = RoundScheduler(parse(one.scheme, config.pool.workers), Safe())
    master = Master(
        fleet.learners, scheduler, one.pool, journal, [tally], first_job=one.jobs, check=Check(CHECKS, sizes)
    )
    begun = one.pool.now()
    with slowed(one.pool.pids(), slowness, seed):
        ended = master.run()
    quiet = one.pool.now() + QUIET
    while one.pool.now() < quiet:
        one.pool.poll(quiet)
    one.jobs += sum(steps)
    one.worst = max(one.worst, *tally.differences)
    return (ended - begun) / sum(steps)


def job(workers: int, jobs: int, text: Path) -> Config:
    """Four character models, so small that a row costs less than a message."""
    learners = [{"name": f"model-{m}", "model_args": {"hidden": 8 + 2 * m}} for m in range(4)]
    defaults = {
        "model": "distseq.models.char_lstm:CharLSTM",
        "data": f"text:{text}",
        "data_args": {"window": 4},
        "batch": 8 * workers,
    }
    pool = {"kind": "local", "workers": workers, "hosts": workers}
    return from_dict({"run": {"steps": jobs // 4}, "pool": pool, "defaults": defaults, "learner": learners})


def measure(slowness: Slowness, workers: int, jobs: int, repetitions: int, folder: Path) -> list[Contender]:
    """All schemes, in turn, after a block each that nothing is recorded of."""
    text = folder / "text.txt"
    text.write_text("".join(f"{k} green bottles hanging on the wall, and {k * k} more.\n" for k in range(300)))
    config, warm_up = job(workers, jobs, text), job(workers, 8, text)
    contenders: list[Contender] = []
    try:
        for scheme in SCHEMES:
            contenders.append(contender(scheme, config, folder / scheme.replace(":", "-")))
            block(contenders[-1], warm_up, MemoryJournal(), slowness, 0)
        for repetition, one in turns(contenders, repetitions):
            one.seconds.append(block(one, config, one.journal, slowness, repetition))
    finally:
        for one in contenders:
            one.pool.close()
            one.journal.close()
    return contenders


def predicted(scheme: str, run: Path, jobs: int) -> float:
    """What `distseq profile --run` and `distseq simulate --unfinished serial --arrival row` say: seconds per job."""
    setting = Setting(run_trace(run), 4, jobs, unfinished="serial", arrival="row")
    return float(simulate(setting, scheme)["seconds_per_job"])


def report(name: str, contenders: Sequence[Contender], jobs: int) -> None:
    print(
        f"{name}: seconds per job, least to most of the repetitions; predicted from the run's own arrivals, and from uncoded's"
    )
    uncoded = contenders[0]
    for one in contenders:
        assert one.worst <= EXACT, f"{one.scheme}: decoded gradients are off by {one.worst:.1e}"
        own, other = predicted(one.scheme, one.folder, jobs), predicted(one.scheme, uncoded.folder, jobs)
        mean = statistics.mean(one.seconds)
        print(
            f"{one.scheme:12} {mean:.4f} ({min(one.seconds):.4f}-{max(one.seconds):.4f}), "
            f"{mean / statistics.mean(uncoded.seconds):.2f} of uncoded; predicted {own:.4f}, {own / mean - 1:+.1%}; "
            f"from uncoded {other:.4f}, {other / mean - 1:+.1%}; gradients exact to {one.worst:.0e}"
        )
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--jobs", type=int, default=60, help="of a block")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="a new folder for the run folders")
    options = parser.parse_args()
    versions = ", ".join(f"{name} {version(name)}" for name in ("numpy", "torch"))
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}")
    print(
        f"load average at the start: {os.getloadavg()[0]:.1f}; {options.workers} processes, 4 models, "
        f"{options.repetitions} x {options.jobs} jobs\n"
    )
    limits = quotas()
    with tempfile.TemporaryDirectory() as temporary:
        for name, slowness in (("stops", Stops()), ("quotas", limits)):
            if slowness is None:
                print(f"{name}: left out, control groups of CPU time cannot be written here")
                continue
            folder = (options.keep or Path(temporary)) / name
            folder.mkdir(parents=True)
            try:
                contenders = measure(slowness, options.workers, options.jobs, options.repetitions, folder)
            finally:
                slowness.close()
            report(name, contenders, options.jobs * options.repetitions)


if __name__ == "__main__":
    main()
