"""Maps workers to hosts, including stand-ins, and decides which hosts join or leave. Starts nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any

from distseq.cluster.hosts.limits import READY_WITHIN
from distseq.coding.plan import MiniTask


@dataclass(eq=False)
class HostSlot:
    """One host of the pool. A host that dies is replaced by another slot of the same name."""

    name: str
    handle: Any
    last_heard: float  # seconds that the pool had listened when it answered last, or was started
    ready: bool = False  # it has loaded its Work
    silence_limit: float = READY_WITHIN  # seconds it may be silent before it counts as hung
    known_jobs: set[int] = field(default_factory=set)  # jobs whose payload was published to the host
    deaths: int = 0  # of this place in a row, without an answer in between
    in_hand: tuple[MiniTask, ...] = ()  # what it was computing when it was last heard of
    idle_since: float | None = None  # when it began to say that it has nothing to do; None while it has
    met: set[tuple[int, str]] = field(default_factory=set)  # (learner, kind) of the rows that it has computed


class Placement:
    """The hosts that n workers share: worker i on host i modulo k, or with `elastic` one worker on each host, at most n.

    There are at most `most` hosts. `placed` hosts have workers; `joining` ones get some once they have loaded their Work.
    """

    def __init__(self, n: int, most: int, elastic: bool) -> None:
        self._n, self.most, self._elastic = n, most, elastic
        self.placed: list[HostSlot] = []
        self.joining: list[HostSlot] = []

    def all(self) -> list[HostSlot]:
        return [*self.placed, *self.joining]

    def home(self, worker: int) -> HostSlot:
        """The host that a worker's mini-tasks are sent to: its own, or a stand-in while that one is not ready."""
        slot = self.placed[worker % len(self.placed)]
        # Its own host whenever that is ready: then neighbours, which hold the same parts, stay on different hosts. The workers
        # of a host that is not ready are spread over all others instead of doubling the load of a single one.
        ready = [slot] if slot.ready else [other for other in self.placed if other.ready]
        return ready[worker % len(ready)] if ready else slot

    def members(self) -> Mapping[int, str]:
        """worker -> name of the host it is on."""
        n = min(self._n, len(self.placed)) if self._elastic else self._n
        return {i: self.home(i).name for i in range(n)}

    def others_ready(self, slot: HostSlot) -> bool:
        """Whether the pool can do without this host: it is not ready, and another one is."""
        return not slot.ready and any(other.ready for other in self.placed)

    def mark_ready(self, slot: HostSlot) -> bool:
        """The host has loaded its Work. Returns whether it is a new host, which joins, and no replacement."""
        slot.ready = True
        joins = slot in self.joining
        if joins:
            self.joining.remove(slot)
            self.placed.append(slot)
        return joins

    def remove(self, slot: HostSlot) -> None:
        (self.joining if slot in self.joining else self.placed).remove(slot)

    def replace(self, slot: HostSlot, successor: HostSlot) -> None:
        # In place, so that no other worker moves to another host.
        self.placed[self.placed.index(slot)] = successor

    def resize(self, room: int) -> tuple[list[HostSlot], list[str]]:
        """Hosts to remove when `room` hosts fit, and names for those that could be added."""
        # At least one host stays even where none fits: the nodes may be back before it is missed.
        surplus = len(self.all()) - max(1, min(room, self.most))
        # Only hosts that are not ready leave: one that works proves that it has its place, whatever the count of room says.
        waiting = [slot for slot in (*self.joining, *self.placed) if self.others_ready(slot)]
        taken = {slot.name for slot in self.all()}
        # The lowest free numbers, so that names stay few over a long run: predictions are kept by the name of a host.
        free = (f"host-{j}" for j in count() if f"host-{j}" not in taken)
        return waiting[: max(0, surplus)], list(islice(free, max(0, -surplus)))
