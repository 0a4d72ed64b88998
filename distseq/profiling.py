"""Measured delays as a trace file: of a pool that is probed now, or of a run that has been."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distseq.cluster.errors import PoolError
from distseq.cluster.host_pool import HostPool
from distseq.cluster.trace import Trace
from distseq.cluster.work import WorkSpec
from distseq.coding.gc import GC
from distseq.journal import MemoryJournal, arrival_table, read_journal
from distseq.master import Master
from distseq.roles import Opening
from distseq.scheduling.closing import Mu
from distseq.scheduling.rounds import RoundScheduler

PATIENCE = 1e9  # of the mu rule: no round ends before everybody has answered


@dataclass(frozen=True)
class Probing:
    """A learner of empty jobs with a sample for each worker."""

    workers: int
    steps: int
    name: str = "probe"

    def open(self, step: int) -> Opening:
        return Opening(np.zeros(0), np.arange(self.workers))

    def apply(self, total: np.ndarray) -> Mapping[str, float]:
        return {}


def probe(pool: HostPool, workers: int, rounds: int) -> Trace:
    """The delays of so many uncoded rounds on a pool whose Work is a Probe; every round waits for every worker.

    PoolError when a row fails.
    """
    journal = MemoryJournal()
    master = Master([Probing(workers, rounds)], RoundScheduler(GC(workers, 0), Mu(PATIENCE)), pool, journal)
    master.run()
    if master.failed:
        raise PoolError(str(master.failed[0]))
    return arrival_table(journal.records, workers)


def probe_spec(seconds: float) -> WorkSpec:
    """A Work whose every row takes `seconds`."""
    return WorkSpec("distseq.cluster.probe:Probe", f'{{"seconds": {seconds}}}')


def run_trace(run: Path) -> Trace:
    """The delays that a run's journal has recorded. ValueError when the folder holds none."""
    path = run / "journal.jsonl"
    if not path.is_file():
        raise ValueError(f"{run} is no run folder: it has no journal.jsonl")
    records: list[dict[str, Any]] = list(read_journal(path))
    heads = [record for record in records if record["kind"] == "run"]
    if not heads:
        raise ValueError(f"{path} does not begin with a run record")
    return arrival_table(records, len(heads[0]["members"]))
