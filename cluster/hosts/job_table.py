"""The published jobs of a pool of real workers: mini-tasks owed, rows in hand, and which mini-task kills its hosts.

A host that dies takes all of its mini-tasks along, of which only one was in hand. Which one is known if the host has said so:
after a second of computing, or beforehand where its job is suspected. Otherwise all jobs of the host are suspected from then on.
A mini-task that is in hand at BLAMED deaths is laid to its learner. From the second death in a job on, its mini-tasks are tried
one at a time, so that a learner whose every row kills takes few hosts along.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from distseq.cluster.hosts.placement import HostSlot
from distseq.cluster.pool import Fault, Payload, PoolError
from distseq.coding.layout import Layout
from distseq.coding.plan import MiniTask

# Deaths with one mini-task in hand, after which it counts as their cause. A preempted machine can take the same one twice.
BLAMED = 3
# Deaths whose cause is not known, each of which a mini-task was waiting at, before the pool raises (docs/decisions/027).
ATTEMPTS = 6


class Attempt(NamedTuple):
    """A sending of a mini-task, and what became of those before."""

    number: int = 1
    deaths: int = 0  # of hosts that had it in hand
    waited: int = 0  # deaths of hosts at which it was waiting, or perhaps in hand


class Owed(NamedTuple):
    """A mini-task that was sent, neither answered nor cancelled."""

    attempt: Attempt
    slot: HostSlot
    invocation: int
    sent: float  # seconds that the pool had listened


class HeldRow(NamedTuple):
    """A delivered row: the transport's stand-in for the vector, and the host that holds it."""

    row: Any
    digest: int
    attempt: int
    slot: HostSlot


@dataclass
class JobRows:
    """A published job, its mini-tasks that are owed, and its rows that are in hand."""

    payload: Payload
    shared: Any
    layout: Layout
    owed: dict[MiniTask, Owed] = field(default_factory=dict)
    rows: dict[MiniTask, HeldRow] = field(default_factory=dict)
    lost: set[MiniTask] = field(default_factory=set)  # delivered, then lost with their host, and requested again
    fault: Fault | None = None  # raised while a lost row was recomputed
    suspected: bool = False  # a host has died that may have had one of its mini-tasks in hand
    deaths: int = 0  # of hosts that had one in hand
    trial: MiniTask | None = None  # owed, and the only one that may be computed
    held: dict[MiniTask, Attempt] = field(default_factory=dict)  # to be sent when the trial is over

    def samples(self, task: MiniTask) -> float:
        """How many samples a row sums over."""
        return self.layout.loads[task.group][task.worker] * len(self.payload.ids)


class Lost(NamedTuple):
    """What a pool does about a lost host."""

    again: dict[MiniTask, Attempt]  # to be sent again
    withdrawn: dict[MiniTask, Owed]  # to be cancelled on other hosts, until the trial of one of their job is over
    blamed: dict[MiniTask, Owed]  # owed no more: it has killed too many hosts


class JobTable:
    """Published jobs by number. All changes are made by the pool's thread."""

    def __init__(self) -> None:
        self._jobs: dict[int, JobRows] = {}

    def __iter__(self) -> Iterator[JobRows]:
        return iter(self._jobs.values())

    def __contains__(self, job: int) -> bool:
        return job in self._jobs

    def __getitem__(self, job: int) -> JobRows:
        return self._jobs[job]

    def get(self, job: int) -> JobRows | None:
        return self._jobs.get(job)

    def add(self, job: int, rows: JobRows) -> None:
        self._jobs[job] = rows

    def pop(self, job: int) -> JobRows | None:
        return self._jobs.pop(job, None)

    def clear(self) -> None:
        self._jobs.clear()

    @property
    def owes(self) -> bool:
        """Whether any mini-task is owed."""
        return any(job.owed or job.held for job in self)

    def owed(self, wanted: Callable[[Owed], bool]) -> dict[MiniTask, Owed]:
        """Mini-tasks that are owed and `wanted`, in order of sending within each job."""
        return {task: owed for job in self for task, owed in job.owed.items() if wanted(owed)}

    def hold(self, attempts: dict[MiniTask, Attempt]) -> dict[MiniTask, Attempt]:
        """Those that may be sent now; the others wait for the trial of their job to end."""
        now = {}
        for task, attempt in attempts.items():
            job = self._jobs[task.job]
            if job.trial in (None, task):
                now[task] = attempt
            else:
                job.held[task] = attempt
        return now

    def settle(self, task: MiniTask) -> dict[MiniTask, Attempt]:
        """A mini-task is owed no more. Returns those that have waited for its end, to be sent now."""
        job = self._jobs[task.job]
        job.owed.pop(task, None)
        job.held.pop(task, None)
        if job.trial != task:
            return {}
        job.trial, held, job.held = None, job.held, {}
        return held

    def lose(self, slot: HostSlot, cause: str, stays: Callable[[Any], bool]) -> Lost:
        """A host is lost: what it owed and the rows that it stored (`stays`) are to be computed again.

        PoolError when a mini-task was at too many deaths of unknown cause.
        """
        known, blamed, withdrawn = in_hand(slot), dict[MiniTask, Owed](), dict[MiniTask, Owed]()
        again: dict[MiniTask, Attempt] = {}
        for job in self:
            for task, owed in [(task, owed) for task, owed in job.owed.items() if owed.slot is slot]:
                number, deaths, waited = owed.attempt
                again[task] = Attempt(number + 1, deaths + (task == known), waited + (known is None))
                job.suspected |= known is None
                if again[task].deaths >= BLAMED:
                    blamed[task] = owed
                del job.owed[task]
            for task, row in [(task, row) for task, row in job.rows.items() if row.slot is slot and stays(row.row)]:
                del job.rows[task]
                job.lost.add(task)
                again[task] = Attempt(row.attempt + 1)
        worst = max(again, key=lambda task: again[task].waited, default=None)
        if worst is not None and again[worst].waited > ATTEMPTS:
            raise PoolError(f"{worst}: its host died in each of {ATTEMPTS} attempts; last cause: {cause}")
        if known is not None and known in again:
            withdrawn = self._suspect(known)
        for task in blamed:
            # What waits for it waits on: the caller is likely to give the job up when it learns of the fault, else it calls
            # `settle`.
            self._jobs[task.job].trial = task
            del again[task]
        return Lost(self.hold(again), withdrawn, blamed)

    def _suspect(self, known: MiniTask) -> dict[MiniTask, Owed]:
        """A host has died with this mini-task in hand. Returns those that wait from now on and were sent to other hosts."""
        job = self._jobs[known.job]
        job.suspected, job.deaths = True, job.deaths + 1
        # The first death of a job may be anybody's doing, and must not hold its other mini-tasks up.
        if job.deaths < 2 or job.trial is not None:
            return {}
        job.trial, withdrawn, job.owed = known, job.owed, {}
        job.held |= {task: owed.attempt._replace(number=owed.attempt.number + 1) for task, owed in withdrawn.items()}
        return withdrawn


def in_hand(slot: HostSlot) -> MiniTask | None:
    """The mini-task that a host has in hand, as far as it is known and is a single one."""
    return slot.in_hand[0] if len(slot.in_hand) == 1 else None
