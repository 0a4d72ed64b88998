"""The interface of a transport, which starts hosts, carries their messages and reports their deaths.

All bookkeeping is in distseq.cluster.hosts.host_pool.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from distseq.cluster.errors import PoolError
from distseq.cluster.hosts.messages import Command, Report
from distseq.cluster.pool import Payload
from distseq.cluster.reduction import digest
from distseq.coding.plan import MiniTask


class Death(NamedTuple):
    """A host has died."""

    cause: str


class LostError(Exception):
    """Rows of a sum were lost with the host that stored them."""


class Term(NamedTuple):
    """One term of a decoded sum: weight times a row, which its answer referred to, and the crc32 that it was sent with."""

    task: MiniTask
    weight: float
    row: Any
    digest: int
    handle: Any  # of the host that computed it


class Transport(Protocol):
    """Carries commands to host processes, and their answers back. A handle refers to one running host.

    The `row` of an answer may be a reference in place of the vector. It is valid until `free`, and, if `stays` is true of it,
    only as long as its host lives.
    """

    def room(self) -> int | None:
        """How many hosts there is room for now; None where the number never changes."""
        ...

    def spawn(self, name: str) -> Any:
        """Start a host and return its handle at once. Its first answer comes once its Work is loaded."""
        ...

    def wait_ready(self, handles: Sequence[Any], seconds: float) -> None:
        """Block until every host has loaded its Work. PoolError if one has not within `seconds`."""
        ...

    def share(self, payload: Payload) -> Any:
        """Make a payload readable by every host. Returns the reference that `post` takes."""
        ...

    def unshare(self, payload: Payload, shared: Any) -> None:
        """Take back what `share` has made of a payload."""
        ...

    def post(self, handle: Any, commands: list[Command], shared: Mapping[int, Any]) -> None:
        """Publish the shared payloads (job -> shared) to a host, then give it the commands. Never blocks on a hung host."""
        ...

    def wait(self, handles: Sequence[Any], seconds: float) -> list[tuple[Any, list[Report] | Death]]:
        """Answers that have arrived; blocks for at most `seconds`, then [] if there are none."""
        ...

    def stays(self, row: Any) -> bool:
        """Whether the row is stored on its host, and lost when the host dies."""
        ...

    def add(self, terms: Sequence[Term], meanwhile: Callable[[], bool]) -> np.ndarray:
        """(P + extras,) float64: the weighted sum in the order of distseq.cluster.reduction, computed where the rows are.

        Calls `meanwhile` from time to time, and gives up once that returns True. Raises LostError if it gave up or a host that
        stored rows died, ValueError if the rows differ in length, PoolError if a row was corrupted in transit.
        """
        ...

    def free(self, handle: Any, rows: Sequence[Any]) -> None:
        """Release rows of a running host that nobody will read."""
        ...

    def pid(self, handle: Any) -> int:
        """Process id; 0 while it is not known. Never blocks."""
        ...

    def kill(self, handle: Any) -> None: ...
    def close(self) -> None: ...


def verified(name: object, row: np.ndarray, sent: int) -> np.ndarray:
    """The row, after its crc32 was compared with the one it was sent with. PoolError if they differ, or it is no row."""
    if not isinstance(row, np.ndarray) or row.ndim != 1 or row.dtype not in (np.float32, np.float64):
        raise PoolError(f"the row of {name} is not a vector of numbers")
    if digest(row) != sent:
        raise PoolError(f"the row of {name} was corrupted in transit: crc32 {digest(row):08x}, sent as {sent:08x}")
    return row
