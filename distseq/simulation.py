"""Scheduling without learning: the master and the simulated pool, on jobs that compute nothing."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from distseq.cluster.simulated import ARRIVAL, SimulatedPool
from distseq.cluster.trace import Trace
from distseq.coding.schemes import parse
from distseq.journal import Journal
from distseq.master import Master
from distseq.observers import Tally
from distseq.roles import Opening
from distseq.scheduling.backup import round_scheduler
from distseq.scheduling.closing import Closing
from distseq.scheduling.rounds import check_delay

NOTHING = Opening(np.zeros(0), np.zeros(0, dtype=np.int64))


@dataclass(frozen=True)
class Idle:
    """A learner of so many steps that learns nothing."""

    name: str
    steps: int

    def open(self, step: int) -> Opening:
        return NOTHING

    def apply(self, total: np.ndarray) -> Mapping[str, float]:
        return {}


def simulate(
    trace: Trace,
    scheme: str,
    closing: Closing,
    *,
    models: int,
    jobs: int,
    unfinished: str = "lost",
    arrival: str = "scheme",
    journal: Journal | None = None,
) -> dict[str, object]:
    """Seconds of `jobs` jobs of `models` learners under a scheme, on a trace, one worker per column.

    `unfinished` is what an unfinished worker does (distseq.cluster.simulated). `arrival`: rows of a message arrive one by
    one ("row"), all together ("message"), or as the scheme's authors assume ("scheme": only streamed ones one by one).
    Returns the numbers that `distseq simulate --json` prints. ValueError for bad arguments.
    """
    parsed = parse(scheme, trace.workers)
    if models < 1 or jobs < 1:
        raise ValueError(f"simulate needs at least one model and one job: got models={models}, jobs={jobs}")
    check_delay(parsed, models)
    if arrival not in ("scheme", *ARRIVAL):
        raise ValueError(f"arrival must be one of scheme, {', '.join(ARRIVAL)}: got {arrival!r}")
    if arrival == "scheme":
        arrival = "row" if parsed.streams else "message"
    pool = SimulatedPool(trace, unfinished=unfinished, arrival=arrival)
    learners = [Idle(f"model-{m}", jobs // models + (m < jobs % models)) for m in range(min(models, jobs))]
    tally = Tally()
    scheduler = round_scheduler(parsed, closing, late=unfinished != "lost")
    seconds = Master(learners, scheduler, pool, journal, [tally]).run()
    return {
        "scheme": parsed.spec,
        "workers": parsed.n,
        "load": float(parsed.load),
        "load_fraction": str(parsed.load),
        "delay": parsed.delay,
        "models": models,
        "jobs": jobs,
        "unfinished": unfinished,
        "arrival": arrival,
        "rounds": tally.rounds,
        "waits": tally.waits,
        "total_seconds": seconds,
        "seconds_per_job": seconds / jobs,
        "worker_seconds_per_job": pool.worker_seconds() / jobs,  # busy
        "held_seconds_per_job": parsed.n * seconds / jobs,  # from the first dispatch to the last decode, busy or not
    }
