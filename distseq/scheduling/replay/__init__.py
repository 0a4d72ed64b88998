"""Compiled replays: they predict within milliseconds when the real schedulers would decode each job.

These are numba loops that do what the simulated pool and the schedulers do. The real ones take 30 to 100 times as long, which is
too slow to choose among a hundred candidates in the middle of a run. A property test holds both to the same decode times
(docs/decisions/015).
"""

from dataclasses import dataclass

import numpy as np

from distseq.cluster.simulated import UNFINISHED
from distseq.cluster.trace import Trace
from distseq.coding.schemes.gradient_coding import GC
from distseq.coding.schemes.scheme import Scheme
from distseq.scheduling.pipeline import Pipeline
from distseq.scheduling.round_scheduler import check_delay


@dataclass(frozen=True)
class Replayed:
    """The result of a replay; all counts are up to the last decoded job."""

    decoded: np.ndarray  # (jobs,) pool seconds at which each job was decoded, ascending
    worker_seconds: float  # busy, start-ups included
    messages: int  # messages that workers have started
    rows: int  # rows that arrived while they were wanted
    learners: np.ndarray | None = None  # (jobs,) learner of each job; None under rounds, where learners take turns

    @property
    def seconds_per_job(self) -> float:
        return float(self.decoded[-1]) / len(self.decoded)


def replay(
    trace: Trace,
    candidate: Scheme | Pipeline,
    *,
    models: int,
    jobs: int,
    unfinished: str = "lost",
    whole: bool = False,
    cutoff: float = 0.0,
    cost: float = 1.0,
) -> Replayed:
    """Replays the first `jobs` jobs of `models` endless learners, under rounds with safe closing or under a pipeline.

    unfinished: what happens to unfinished work (distseq.cluster.simulated).
    whole: under rounds, all rows of a message arrive with its last one.
    cutoff: seconds before which no round ends.
    cost: compute of a job's batch, in units of the trace's slope.

    The times are those of Master, scheduler and SimulatedPool on this trace. A lost invocation takes the time until it is
    noticed and then that of the next: exact unless it is cancelled in between, or ends the table. ValueError for a scheme with
    T > M - 1, for another number of workers than the trace's, or for a kind of scheme that has no replay.

    >>> trace = Trace(np.ones((1, 2)), 0.0, 1.0)  # two workers: every start-up takes 1 s, a whole batch 1 s
    >>> replay(trace, GC(2, 0), models=1, jobs=4).seconds_per_job
    1.5
    """
    if unfinished not in UNFINISHED:
        raise ValueError(f"unfinished must be one of {', '.join(UNFINISHED)}: got {unfinished!r}")
    if jobs < 1:
        raise ValueError(f"a replay needs jobs >= 1: got {jobs}")
    # Imported here because numba takes a second to import: hosts, and runs that never replay, do without.
    if isinstance(candidate, Pipeline):
        from distseq.scheduling.replay.pipeline import replay_pipeline

        return Replayed(*replay_pipeline(trace, candidate, models, jobs, unfinished=unfinished, cost=cost))
    check_delay(candidate, models)
    if candidate.n != trace.workers:
        raise ValueError(f"{candidate.spec} is for {candidate.n} workers: the trace has {trace.workers}")
    from distseq.scheduling.replay.rounds import replay_rounds

    return Replayed(
        *replay_rounds(trace, candidate, jobs, unfinished=unfinished, whole=whole, cutoff=cutoff, cost=cost)
    )


def compile_replays() -> None:
    """Compiles the replays unless this machine has them cached.

    That takes some seconds, in which a running master would keep its workers waiting.
    """
    trace = Trace(np.ones((1, 2)), 0.0, 1.0)
    for one in (Pipeline(), GC(2, 0)):
        replay(trace, one, models=1, jobs=1)
