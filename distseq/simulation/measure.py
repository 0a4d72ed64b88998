"""Measures the delays of a pool, or reads them from a finished run, and writes them as a trace file."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from distseq.cluster.errors import PoolError
from distseq.cluster.hosts.host_pool import HostPool
from distseq.cluster.ray import check_installed
from distseq.cluster.trace import Trace
from distseq.cluster.work import WorkSpec
from distseq.coding.schemes.gradient_coding import GC
from distseq.config.check import check, placeholder
from distseq.config.options import OPTIONS
from distseq.config.schema import PoolConfig
from distseq.engine.interfaces import JobInput
from distseq.engine.journal import MemoryJournal, read_journal
from distseq.engine.master import Master
from distseq.scheduling.closing import Mu
from distseq.scheduling.round_scheduler import RoundScheduler
from distseq.simulation.recorded import arrival_table

# mu of the closing rule: no round ends before every worker has answered, so that a trace has every start-up.
PATIENCE = 1e9
REAL = ("ray", "local")
ROUNDS, SECONDS = 1_000_000, 86_400.0  # more are typing errors


@dataclass(frozen=True)
class ProbeLearner:
    """A learner whose jobs have no parameters and one sample per worker, so that no part is empty."""

    workers: int
    steps: int
    name: str = "probe"

    def open(self, step: int) -> JobInput:
        return JobInput(np.zeros(0), np.arange(self.workers))

    def cut_in_blocks(self, parts: int) -> int:
        raise ValueError("it has no batch that could be cut into blocks")

    def apply(self, total: np.ndarray) -> Mapping[str, float]:
        return {}


def probe(pool: HostPool, workers: int, rounds: int) -> Trace:
    """Runs uncoded rounds, each of which waits for every worker, on a pool whose Work is a Probe; returns the delays.

    PoolError when a row fails.
    """
    journal = MemoryJournal()
    # The real master, scheduler and journal: what is measured includes everything a run would wait for.
    master = Master([ProbeLearner(workers, rounds)], RoundScheduler(GC(workers, 0), Mu(PATIENCE)), pool, journal)
    master.run()
    if master.failures:
        raise PoolError(str(master.failures[0]))
    return arrival_table(journal.records, workers)


def probe_spec(seconds: float) -> WorkSpec:
    """The spec of a Work whose rows take `seconds` each."""
    # Rows of a fixed time, so that what varies is the worker and not the model.
    return WorkSpec("distseq.cluster.probe:Probe", f'{{"seconds": {seconds}}}')


def run_trace(run: Path) -> Trace:
    """The delays recorded in a run folder's journal. ValueError when there is no journal."""
    path = run / "journal.jsonl"
    if not path.is_file():
        raise ValueError(f"{run} is not a run folder: it has no journal.jsonl")
    try:
        records: list[dict[str, Any]] = list(read_journal(path))
        heads = [record for record in records if record["kind"] == "run"]
        if not heads:
            raise ValueError(f"{path} does not begin with a run record")
        return arrival_table(records, len(heads[0]["members"]))
    # Records of other types and keys than are written, which may fail anywhere.
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise ValueError(f"{path} has a record that cannot be read: {type(error).__name__}: {error}") from None


def measure(
    *,
    out: Path,
    run: Path | None,
    pool: str,
    workers: int,
    hosts: int | None,
    address: str,
    token_file: str,
    insecure: bool,
    rounds: int,
    seconds: float,
    say: Callable[[str], object],
    given: Collection[str] = (),
) -> Trace:
    """`distseq profile`: write the delays of a run, or of a pool that is probed now, as a trace file.

    say: takes lines about what is awaited. given: the options that were named, which must say something: to a run none does.
    """
    if run is not None and (idle := sorted(set(given) - {"run", "out"})):
        raise ValueError(f"{idle[0]} is an option of a pool that is measured: got --run")
    if workers < 1 or rounds < 1 or not 0 <= seconds < inf:
        raise ValueError(
            f"profile needs workers >= 1, rounds >= 1 and seconds >= 0: got {workers}, {rounds} and {seconds}"
        )
    if rounds > ROUNDS or seconds > SECONDS:
        raise ValueError(f"profile takes at most {ROUNDS} rounds of {SECONDS:g} seconds: got {rounds} of {seconds}")
    if pool not in REAL:
        raise ValueError(f"profile measures real workers: the pool must be ray or local, got {pool!r}")
    wanted = placeholder(1, pool=PoolConfig(pool, workers, hosts, address))
    check(wanted, {name: True for name in given if name in OPTIONS})
    # Before measuring, which may take minutes.
    if not out.parent.is_dir():
        raise ValueError(f"cannot write trace {out}: there is no folder {out.parent}")
    if run is not None:
        trace = run_trace(run)
    else:
        probed = _probed_pool(pool, workers, hosts, (address, token_file, insecure), seconds, say)
        try:
            trace = probe(probed, workers, rounds)
        finally:
            probed.close()
    try:
        trace.save(out)
    except OSError as error:
        raise ValueError(f"cannot write trace {out}: {error.strerror}") from None
    return trace


def _probed_pool(
    kind: str, workers: int, hosts: int | None, ray: tuple[str, str, bool], seconds: float, say: Callable[[str], object]
) -> HostPool:
    if kind == "local":
        from distseq.cluster.local.pool import local_pool

        return local_pool(workers, probe_spec(seconds), hosts=hosts)
    check_installed("pool ray")
    from distseq.cluster.ray.pool import ray_pool
    from distseq.cluster.ray.session import Access

    return ray_pool(workers, probe_spec(seconds), hosts=hosts, access=Access(*ray), say=say)
