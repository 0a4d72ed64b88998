"""What driver and hosts tell each other: work, cancellations and stops one way, answers and failures the other."""

from collections.abc import Callable
from typing import Any, NamedTuple

from distseq.cluster.pool import Fault, Payload
from distseq.coding.plan import MiniTask


class Message(NamedTuple):
    """Work for one logical worker. `startup` seconds are slept first; inf kills the host (a scripted fault)."""

    worker: int
    tasks: tuple[MiniTask, ...]
    attempt: int
    invocation: int
    startup: float


class Publish(NamedTuple):
    """A job whose payload `fetch` brings when its first row is computed; None = the job is over by then."""

    job: int
    fetch: Callable[[], Payload | None]


class Cancel(NamedTuple):
    tasks: tuple[MiniTask, ...]


class Retire(NamedTuple):
    job: int


class Stop(NamedTuple):
    pass


Command = Message | Publish | Cancel | Retire | Stop


class Answer(NamedTuple):
    """A row; or, with row None, a fault of its mini-task or word of a stale invocation.

    On its way, `row` may be what stands for the vector.
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


class Failure(NamedTuple):
    """The host is of no use: its Work could not be loaded, or a command could not be done. No retry can help."""

    text: str
    traceback: str
    machine: str  # its name in the network
