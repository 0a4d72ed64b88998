"""The interface of a worker pool, in which failures appear as delay and never as missing rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from distseq.cluster.carried import Carried
from distseq.cluster.errors import Fault as Fault
from distseq.cluster.errors import FaultError as FaultError
from distseq.cluster.errors import PoolError as PoolError
from distseq.coding.layout import Layout, layout
from distseq.coding.plan import MiniTask


@dataclass(frozen=True)
class Payload:
    """Everything that a host needs to compute any mini-task of a job, without the scheme object.

    A pool sets `version` when the job is published; rows computed from another version are dropped.
    """

    job: int
    learner: int
    step: int  # of the learner: 0, 1, ...
    parameters: np.ndarray  # (P,) of the learner, when the job was opened
    ids: np.ndarray  # (N,) int64 sample ids of the job's batch
    seed: int  # all randomness is keyed by (seed, step, sample)
    # The scheme's specification and number of workers, from which each host derives the layout: pools and hosts then agree on
    # the cut of a batch without sending tables of parts.
    scheme: str
    n: int
    cost: float = 1.0  # compute of the whole batch, in units of a trace's slope
    version: int = 0
    # "gradient", "evaluation", or "check", a gradient that is only compared; the Work decides what a row of each holds.
    kind: str = "gradient"
    counts: bool | None = None  # whether the loss returns counts, always or never; None = not known yet
    # For a learner that draws random numbers, the number of blocks of its batch, each computed under its own seed; parts are
    # whole blocks. 0 = it draws none, and no row may.
    blocks: int = 0
    joint: bool = False  # all draws are dropout over samples: the blocks of a row share one pass
    carried: Carried | None = None  # the state that its rows read, of a learner that carries one from job to job

    @property
    def layout(self) -> Layout:
        return layout(self.scheme, self.n)


class Delivery(NamedTuple):
    """A row that has arrived; the row itself stays with the pool until `collect`.

    If `stale`, there is no usable row: it arrived too late or twice, or the invocation had nothing left to do after its
    start-up. It is delivered as a timing observation, so that the slowest stragglers are on record (docs/decisions/004).
    A delivery with a `fault` is stale too: the row will never arrive and is no longer outstanding.
    """

    task: MiniTask
    at: float  # pool time of the arrival, seconds
    startup: float  # seconds of the worker's message so far in which it was not computing
    compute: float  # seconds spent computing this row
    host: str
    attempt: int  # 1 = first sending
    invocation: int  # index of the message among those that this worker has started
    stale: bool = False
    digest: int = 0  # crc32 of the row; 0 where rows are not computed
    fault: Fault | None = None


class Pool(Protocol):
    """n workers on k hosts.

    Every mini-task sent is delivered at least once, as a row or as a fault, unless it was cancelled or its job retired, or
    `poll` raises PoolError. The pool itself retries mini-tasks and replaces hosts, a bounded number of times; a mini-task that
    takes hosts along by ending their process, or never ends, is a fault in the end.
    """

    def members(self) -> Mapping[int, str]:
        """Current host of each worker; the same object until it changes."""
        ...

    def now(self) -> float:
        """Seconds since the pool started; monotone, virtual in a simulation."""
        ...

    def publish(self, job: int, payload: Payload) -> None:
        """Announce a job before its first mini-task is sent. Job numbers of one kind must increase, so that none is reused."""
        ...

    def send(self, tasks: Sequence[MiniTask]) -> None:
        """Send mini-tasks of published jobs. Those of one worker travel in one message and are done in the given order."""
        ...

    def cancel(self, tasks: Sequence[MiniTask]) -> None:
        """Cancel mini-tasks, best effort: a row that arrives all the same still counts while its job is open."""
        ...

    def poll(self, until: float | None) -> list[Delivery]:
        """Block until rows arrive and return them; [] once pool time has reached `until`, or when there is news.

        A pool of real workers blocks for about a second at most, so that its caller sees soon that it is asked to stop.
        """
        ...

    def collect(self, job: int, weights: Mapping[MiniTask, float]) -> np.ndarray:
        """(P + extras,) float64: the weighted sum of rows in hand, added in the order of distseq.cluster.reduction.

        ValueError if rows differ in length. FaultError if rows are computed only now and the Work raises.
        """
        ...

    def retire(self, job: int) -> None:
        """Drop a job's rows, and its mini-tasks that have not started. May be called twice."""
        ...

    def news(self) -> list[str]:
        """Events of hosts (joined, left, replaced) since the last call, one line each."""
        ...

    def close(self) -> None:
        """Release every worker; may be called twice."""
        ...


def check_new(job: int, kind: str, last: dict[str, int]) -> None:
    """Record `job` as the `last` of its kind. ValueError if its number may have been used in this pool before."""
    # A reused number would let a late answer of the old job pass for a row of the new one (docs/decisions/004).
    if job <= last.get(kind, -1):
        raise ValueError(f"job numbers of kind {kind} must increase within a pool: got {job} after {last[kind]}")
    last[kind] = job
