"""What a pool of workers promises, and the messages that cross it. Failures appear as delay, never as missing rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from distseq.cluster.errors import Fault as Fault
from distseq.cluster.errors import FaultError as FaultError
from distseq.cluster.errors import PoolError as PoolError
from distseq.coding.layout import Layout, layout
from distseq.coding.plan import MiniTask


@dataclass(frozen=True)
class Payload:
    """All that a mini-task of a job needs, beside its own name: computable without the scheme object.

    A pool stamps `version` when the job is published; a row made from another version is dropped.
    """

    job: int
    learner: int
    step: int  # of the learner: 0, 1, ...
    parameters: np.ndarray  # (P,) of the learner, when the job opened
    ids: np.ndarray  # (N,) int64 sample ids of the job's batch
    seed: int  # all randomness is keyed by (seed, step, sample)
    scheme: str  # specification of the scheme that cuts the batch ...
    n: int  # ... and its number of workers
    cost: float = 1.0  # compute of the whole batch, in units of a trace's slope
    version: int = 0
    kind: str = "gradient"  # or "evaluation": what a row of it is, is the Work's business

    @property
    def layout(self) -> Layout:
        return layout(self.scheme, self.n)


class Delivery(NamedTuple):
    """A row that has arrived; the row itself stays with the pool until `collect`.

    With `stale` set it is word of work and not a row: a row that came too late or twice, or an invocation that had nothing
    left to do after its start-up. So what is known of stragglers does not lack the worst of them. With a `fault` it is stale
    too: the row will never come, and is owed no more.
    """

    task: MiniTask
    at: float  # pool time of the arrival
    startup: float  # seconds of the worker's message so far that were not computing
    compute: float  # seconds of computing this row
    host: str
    attempt: int  # 1 = first sending
    invocation: int  # counts the messages that this worker has started
    stale: bool = False
    digest: int = 0  # crc32 of the row; 0 where rows are not computed
    fault: Fault | None = None


class Pool(Protocol):
    """n workers on k hosts.

    Every mini-task sent is delivered at least once, as a row or as a fault, unless it was cancelled or its job retired; or
    `poll` raises PoolError. Retry, respawn and replacement happen inside, with a bound.
    """

    def members(self) -> Mapping[int, str]:
        """worker -> host, now; the same object until it changes."""
        ...

    def now(self) -> float:
        """Seconds since the pool started; monotone, virtual in a simulation."""
        ...

    def publish(self, job: int, payload: Payload) -> None:
        """Make a job known, before its first mini-task is sent. Numbers of jobs of one kind only grow: none names two jobs."""
        ...

    def send(self, tasks: Sequence[MiniTask]) -> None:
        """Add work; the tasks of one worker travel in one message and are done in their order."""
        ...

    def cancel(self, tasks: Sequence[MiniTask]) -> None:
        """Best effort; a row that comes all the same still counts while its job is open."""
        ...

    def poll(self, until: float | None) -> list[Delivery]:
        """Block until rows arrive and return them; [] once the pool's time has reached `until`, or where there is news."""
        ...

    def collect(self, job: int, weights: Mapping[MiniTask, float]) -> np.ndarray:
        """(P + extras,) float64: the weighted sum of rows in hand, by (group, worker) in the order of distseq.cluster.reduction.

        ValueError when rows differ in length. FaultError where rows are computed only now and the Work raises.
        """
        ...

    def retire(self, job: int) -> None:
        """Forget a job: its rows, and its mini-tasks that have not started. May be called twice."""
        ...

    def news(self) -> list[str]:
        """What has happened to hosts since the last call, a line each."""
        ...

    def close(self) -> None:
        """Release every worker; may be called twice."""
        ...


def check_new(job: int, kind: str, last: dict[str, int]) -> None:
    """Note a job as the `last` of its kind. ValueError when its number may have been used in this pool."""
    if job <= last.get(kind, -1):
        raise ValueError(f"numbers of {kind} jobs only grow within a pool: got {job} after {last[kind]}")
    last[kind] = job
