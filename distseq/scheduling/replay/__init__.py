"""What the real schedulers would do on a table of start-ups, in compiled loops: quick enough to choose among hundreds of them."""

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
    """What a replay has found."""

    decoded: np.ndarray  # (jobs,) seconds at which each job was decoded
    worker_seconds: float  # busy ones, until the last of them
    messages: int  # that workers have started
    rows: int  # that arrived while they were wanted
    learners: np.ndarray | None = None  # (jobs,) whose each was; under rounds they take turns

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
    """The first `jobs` jobs of `models` learners that never end, under rounds with safe closing or a pipeline.

    The same times as Master, scheduler and SimulatedPool have on this trace. `whole`: rows of a message arrive with its
    last, under rounds. A lost invocation takes as long as it takes to notice, and then as long as the next: exact unless it is
    cancelled in between, or ends the table. ValueError for a scheme with T > M - 1, for other workers than
    the trace's or of a kind that has no replay.
    """
    if unfinished not in UNFINISHED:
        raise ValueError(f"unfinished must be one of {', '.join(UNFINISHED)}: got {unfinished!r}")
    if jobs < 1:
        raise ValueError(f"a replay needs jobs >= 1: got {jobs}")
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


def prepare() -> None:
    """Compile what replays run, if that was not done on this machine yet: it takes some seconds, better before than in a run."""
    trace = Trace(np.ones((1, 2)), 0.0, 1.0)
    for one in (Pipeline(), GC(2, 0)):
        replay(trace, one, models=1, jobs=1)
