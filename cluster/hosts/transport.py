"""The interface of a transport: how a pool reaches its hosts. All bookkeeping is in distseq.cluster.hosts.host_pool."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from distseq.cluster.errors import PoolError
from distseq.cluster.hosts.messages import Answer, Command, Failure
from distseq.cluster.pool import Payload
from distseq.cluster.reduction import digest
from distseq.coding.plan import MiniTask


class Death(NamedTuple):
    """A host will not answer any more."""

    cause: str


class LostError(Exception):
    """Rows that were to be added went with their host."""


class Part(NamedTuple):
    """One row of a decoded sum: where it is, as its answer named it, and the crc32 that it was sent with."""

    task: MiniTask
    weight: float
    row: Any
    digest: int
    handle: Any  # of the host that made it


class Transport(Protocol):
    """Carries commands to host processes and answers back. A handle stands for one living host.

    The `row` of an answer may be anything that stands for the vector; it is valid until `free`, or until its host dies where
    `stays` says so.
    """

    def room(self) -> int | None:
        """How many hosts there is room for, now; None where that does not change."""
        ...

    def spawn(self, name: str) -> Any:
        """Start a host; returns its handle at once. It speaks for the first time when it has loaded its Work."""
        ...

    def wait_ready(self, handles: Sequence[Any], seconds: float) -> None:
        """Block until every host has loaded its Work; PoolError if one does not within so many seconds."""
        ...

    def share(self, payload: Payload) -> Any:
        """Make a payload readable by every host; returns what `post` takes."""
        ...

    def unshare(self, shared: Any) -> None: ...
    def post(self, handle: Any, commands: list[Command], shared: Mapping[int, Any]) -> None:
        """Publish the shared payloads (job -> shared) to a host, then give it the commands. Never blocks on a hung host."""
        ...

    def wait(self, handles: Sequence[Any], seconds: float) -> list[tuple[Any, list[Answer | Failure] | Death]]:
        """What hosts have said, after at most so many seconds; [] if none has."""
        ...

    def stays(self, row: Any) -> bool:
        """Whether the row lies with its host, and is lost with it."""
        ...

    def add(self, parts: Sequence[Part], meanwhile: Callable[[], bool]) -> np.ndarray:
        """The weighted sum in the order of distseq.cluster.reduction, made where the rows are.

        Calls `meanwhile` from time to time, and gives up when it says True. Raises LostError when it gave up or a host that held
        rows died, ValueError when the rows differ in length, PoolError when a row was changed on its way.
        """
        ...

    def free(self, handle: Any, rows: Sequence[Any]) -> None:
        """Rows of a living host that nobody will ask for."""
        ...

    def pid(self, handle: Any) -> int:
        """Process id, 0 while it is not known. Never blocks."""
        ...

    def kill(self, handle: Any) -> None: ...
    def close(self) -> None: ...


def checked(name: object, row: np.ndarray, sent: int) -> np.ndarray:
    """The row, if it is the one that was sent; else PoolError."""
    if digest(row) != sent:
        raise PoolError(f"the row of {name} was changed on its way: crc32 {digest(row):08x}, sent as {sent:08x}")
    return row
