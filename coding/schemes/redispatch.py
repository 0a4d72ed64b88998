"""Re-dispatch: missing parts of a job are sent again, to the fastest workers, in later rounds."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from distseq.coding.codes.gradient_code import Shortage
from distseq.coding.plan import NOTHING, Plan
from distseq.coding.schemes.gradient_coding import GC
from distseq.coding.schemes.interchangeable import Interchangeable
from distseq.coding.schemes.scheme import Rows, Scheme, silent


@dataclass(frozen=True)
class Redispatch(Interchangeable):
    """A job has n parts, each of which any worker may do. In the round in which it starts, each worker does one.

    In each of the T rounds after that, parts without a row are sent to `copies` workers each, besides these workers' parts of the
    new job. ValueError unless T >= 1 and copies >= 1.
    """

    # Copies go to the first workers of a plan, in whose places the ledger puts the fastest: schemes know nothing of speed.

    T: int
    copies: int = 3
    streams: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.T < 1:
            raise ValueError(f"re-dispatch needs T >= 1 rounds to send parts again: got T={self.T}")
        if self.copies < 1:
            raise ValueError(f"re-dispatch needs copies >= 1: got copies={self.copies}")

    @property
    def spec(self) -> str:
        return f"redispatch:{self.T},copies={self.copies}"

    @property
    def delay(self) -> int:
        return self.T

    def assign(self, t: int, rows: Rows) -> Plan:
        again = [
            (start, g) for start in sorted(rows) if start < t for g in np.flatnonzero(~rows[start].any(axis=1)).tolist()
        ]
        places = _places(len(again), min(self.copies, self.n), self.n)
        per_worker: list[list[tuple[int, int]]] = [[] for _ in range(self.n)]
        for k, worker in places:
            per_worker[worker].append(again[k])
        # What is due first is computed first, and a worker's part of the new job, which has T more rounds, last.
        for own in per_worker:
            own.sort(key=lambda task: task[0])
        if t in rows:
            for worker, own in enumerate(per_worker):
                own.append((t, worker))
        slots = max(map(len, per_worker))
        padded = [own + [(t, NOTHING)] * (slots - len(own)) for own in per_worker]
        plan = np.array(padded, dtype=int).reshape(self.n, slots, 2)
        return Plan(plan[:, :, 0].T, plan[:, :, 1].T)

    def shortage(self, t: int, rows: Rows) -> Shortage | None:
        due = t - self.T
        return silent(rows[due]) if due in rows else None

    def within(self, delay: int) -> Scheme:
        if delay >= self.T:
            return self
        # Without a later round, what the copies would have done is done at once: as many replicas of each part.
        return replace(self, T=delay) if delay else GC(self.n, min(self.copies, self.n) - 1)


def _places(items: int, copies: int, n: int) -> list[tuple[int, int]]:
    """(item, worker) for `copies` copies of each item, never two copies of one item on the same worker. Needs copies <= n."""
    # All items once on the first workers, then all again on the next ones. A copy that would start at the same worker as an
    # earlier one, and so repeat all its places, starts one further.
    places, taken = [], set[int]()
    for copy in range(copies):
        first = copy * items % n
        while first in taken:
            first = (first + 1) % n
        taken.add(first)
        places += [(k, (first + k) % n) for k in range(items)]
    return places
