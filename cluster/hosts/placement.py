"""Who lives where: the hosts of a pool, those that stand in for others, and which are to come or go. Decides, starts nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any

READY_WITHIN = 300.0  # seconds for a host to be placed and to have loaded its Work


@dataclass(eq=False)
class HostSlot:
    """A host's place in the pool: the host in it may be replaced, by another seat of its name."""

    name: str
    handle: Any
    heard: float  # time of its last answer, or of its start
    living: bool = False  # it has loaded its Work
    patience: float = READY_WITHIN  # seconds it may be silent
    known: set[int] = field(default_factory=set)  # jobs whose payload the host has been told
    deaths: int = 0


class Placement:
    """The hosts that n workers share, worker i on host i modulo their number, or with `elastic` one worker on each, at most n.

    There may be at most `most` hosts. `placed` have a place, `coming` get one when they have loaded their Work.
    """

    def __init__(self, n: int, most: int, elastic: bool) -> None:
        self._n, self.most, self._elastic = n, most, elastic
        self.placed: list[HostSlot] = []
        self.coming: list[HostSlot] = []

    def all(self) -> list[HostSlot]:
        return [*self.placed, *self.coming]

    def home(self, worker: int) -> HostSlot:
        """Where a worker's mini-tasks go: its own seat, or one that stands in for it."""
        seat = self.placed[worker % len(self.placed)]
        living = [seat] if seat.living else [other for other in self.placed if other.living]
        return living[worker % len(living)] if living else seat

    def members(self) -> Mapping[int, str]:
        """worker -> name of the host that it lives on."""
        n = min(self._n, len(self.placed)) if self._elastic else self._n
        return {i: self.home(i).name for i in range(n)}

    def others_live(self, seat: HostSlot) -> bool:
        """Whether the pool can do without this seat, which is not living."""
        return not seat.living and any(other.living for other in self.placed)

    def arrive(self, seat: HostSlot) -> bool:
        """The host has loaded its Work; whether it is one that joins."""
        seat.living = True
        joins = seat in self.coming
        if joins:
            self.coming.remove(seat)
            self.placed.append(seat)
        return joins

    def leave(self, seat: HostSlot) -> None:
        (self.coming if seat in self.coming else self.placed).remove(seat)

    def replace(self, seat: HostSlot, successor: HostSlot) -> None:
        self.placed[self.placed.index(seat)] = successor

    def resize(self, room: int) -> tuple[list[HostSlot], list[str]]:
        """Who finds no place where there is room for so many hosts, and the names of those that could come."""
        surplus = len(self.all()) - max(1, min(room, self.most))
        waiting = [seat for seat in (*self.coming, *self.placed) if self.others_live(seat)]
        taken = {seat.name for seat in self.all()}
        free = (f"host-{j}" for j in count() if f"host-{j}" not in taken)
        return waiting[: max(0, surplus)], list(islice(free, max(0, -surplus)))
