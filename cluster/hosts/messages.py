"""Messages between driver and hosts: commands one way, answers, signs of life and failures the other."""

from collections.abc import Callable
from typing import Any, NamedTuple

from distseq.cluster.pool import Fault, Payload
from distseq.coding.plan import MiniTask


class Assign(NamedTuple):
    """Mini-tasks for one logical worker, to be done in order after `startup` seconds; inf kills the host (a scripted fault).

    `announced`: the host says which of them it begins before it does so, and computes each alone. A host of their jobs has died,
    and if another one does, the driver knows in which mini-task.
    """

    worker: int
    tasks: tuple[MiniTask, ...]
    attempt: int
    invocation: int
    startup: float
    announced: bool = False


class Publish(NamedTuple):
    """A new job. `fetch` gets its payload when its first row is computed; None if the job has been retired by then."""

    job: int
    fetch: Callable[[], Payload | None]


class Cancel(NamedTuple):
    tasks: tuple[MiniTask, ...]


class Retire(NamedTuple):
    job: int


class Stop(NamedTuple):
    pass


Command = Assign | Publish | Cancel | Retire | Stop


class Answer(NamedTuple):
    """A row; with `row` None, a fault of its mini-task or a report that the whole invocation was stale.

    While it travels, `row` may be a reference in place of the vector.
    """

    task: MiniTask
    version: int
    attempt: int
    invocation: int
    startup: float
    compute: float
    row: Any
    digest: int
    fault: Fault | None = None


class Progress(NamedTuple):
    """A sign of life: the mini-tasks that a host has in hand, and for how long.

    One that has none and is not `idle` waits for a start-up.
    """

    tasks: tuple[MiniTask, ...]  # several are computed in one pass
    seconds: float  # in which the host's process ran: one that is stopped does not count on
    idle: bool = False  # nothing is in hand and nothing queued


class Failure(NamedTuple):
    """The host cannot work at all: its Work could not be loaded, or its loop has raised. A retry would fail the same way."""

    text: str
    traceback: str
    machine: str  # host name


Report = Answer | Progress | Failure
