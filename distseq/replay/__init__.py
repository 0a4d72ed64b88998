"""What the real schedulers would do on a table of start-ups, in compiled loops: quick enough to choose among hundreds of them."""

from dataclasses import dataclass

import numpy as np

from distseq.cluster.simulated import UNFINISHED, notice_seconds
from distseq.cluster.trace import Trace
from distseq.coding.backup import Backup
from distseq.coding.gc import GC
from distseq.coding.gradient_code import FractionalRepetition
from distseq.coding.layout import layout
from distseq.coding.m_sgc import MSGC
from distseq.coding.redispatch import Redispatch
from distseq.coding.scheme import Scheme, interchangeable
from distseq.coding.sr_sgc import SRSGC
from distseq.scheduling.pipeline import Pipeline


@dataclass(frozen=True)
class Replayed:
    """What a replay has found."""

    decoded: np.ndarray  # (jobs,) seconds at which each job was decoded
    learners: np.ndarray  # (jobs,) whose each was
    worker_seconds: float  # busy ones, until the last of them
    messages: int  # that workers have started
    rows: int  # that arrived while they were wanted

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

    The same times as Master, scheduler and SimulatedPool have on this trace. `whole`: rows of a message arrive with its last,
    under rounds. A lost invocation takes as long as it takes to notice, and then as long as the next: exact unless it is cancelled
    in between, or ends the table. ValueError for a scheme with T > M - 1, or a kind of scheme that has no replay.
    """
    startups, depths = _columns(trace)
    mode = UNFINISHED.index(unfinished)
    if isinstance(candidate, Pipeline):
        from distseq.replay.pipelined import pipelined

        sites = np.zeros((len(candidate.sites(trace.workers)), trace.workers), dtype=bool)
        for site, where in zip(sites, candidate.sites(trace.workers), strict=True):
            site[np.array(where) % trace.workers] = True
        share, own = trace.slope * (1 / candidate.parts), candidate.places > 0
        numbers = (candidate.parts, candidate.copies, candidate.burst)
        return Replayed(
            *pipelined(startups, depths, share * cost, share, trace.master, models, jobs, *numbers, sites, own, mode)
        )
    from distseq.replay.rounds import rounds

    if candidate.delay > models - 1:
        raise ValueError(f"{candidate.spec} has delay T={candidate.delay}: it needs T <= M - 1, got M={models} models")
    scheme, n = candidate, candidate.n
    assigns, numbers, most = _rule(scheme)
    codes = list(dict.fromkeys(scheme.codes))
    last = codes[-1]
    sets = [code.replica_set if isinstance(code, FractionalRepetition) else np.arange(n) for code in codes]
    need = [code.parts if isinstance(code, FractionalRepetition) else n - code.s for code in codes]
    replicas = isinstance(last, FractionalRepetition)
    return Replayed(
        *rounds(
            startups,
            depths,
            trace.slope,
            trace.master,
            cutoff,
            models,
            jobs,
            assigns,
            scheme.delay,
            np.array(numbers),
            cost * np.array([group[0] for group in layout(scheme.spec, n).loads]),
            np.array([codes.index(code) for code in scheme.codes]),
            np.array(sets),
            np.array(need),
            last.member if isinstance(last, FractionalRepetition) else np.arange(n),
            np.bincount(sets[-1]),
            not replicas,
            interchangeable(scheme),
            float(scheme.load),
            whole,
            mode,
            most,
        )
    )


def _columns(trace: Trace) -> tuple[np.ndarray, np.ndarray]:
    """(depth, n) start-up seconds and (n,) how many of each column count: a lost invocation goes with the next that is not."""
    table = np.asarray(trace.times - trace.slope * trace.load, dtype=float)
    finite = np.isfinite(table)
    if finite.all():
        return np.ascontiguousarray(table), np.full(trace.workers, len(table))
    columns, notice = [], notice_seconds(trace)
    for column, arrives in zip(table.T, finite.T, strict=True):
        lost = np.diff(np.flatnonzero(np.r_[True, arrives])) - 1  # before each that arrives
        columns.append(column[arrives] + notice * lost if arrives.any() else np.array([np.inf]))
    depths = np.array([len(column) for column in columns])
    return np.array([np.resize(column, depths.max()) for column in columns]).T.copy(), depths


def _rule(scheme: Scheme) -> tuple[int, tuple[int, int, int], int]:
    """How a scheme assigns, its numbers, and the most mini-tasks in a message."""
    from distseq.replay.rounds import COPIED, MULTIPLEXED, REPEATED, SENT_AGAIN, STREAMED

    match scheme:
        case GC():
            return STREAMED, (0, 0, 0), scheme.q
        case SRSGC():
            return REPEATED, (0, 0, 0), 1
        case MSGC():
            return MULTIPLEXED, (scheme.W, scheme.B, scheme.coded), scheme.slots
        case Redispatch():
            return SENT_AGAIN, (scheme.copies, 0, 0), scheme.T * min(scheme.copies, scheme.n) + 1
        case Backup():
            return COPIED, (scheme.n - scheme.enough, 0, 0), 1
    raise ValueError(f"{scheme.spec} has no replay")
