"""Uncoded parts that any worker may do: what is missing of a job is sent again, to the fastest workers, in the next rounds."""

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
    """A job is n groups of one part each, of which any one row suffices. In the round of its start each worker does one; in
    each of the T rounds after it, its parts without a row go to `copies` workers each, beside their own part of the new job.

    Worker 0 of a plan gets the first of them, and so on: the ledger puts the fastest workers there.
    """

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
        for own in per_worker:
            own.sort(key=lambda mini: mini[0])  # what is due first, first
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
        return replace(self, T=delay) if delay else GC(self.n, min(self.copies, self.n) - 1)


def _places(items: int, copies: int, n: int) -> list[tuple[int, int]]:
    """(item, worker) of `copies` copies of each item: all items once, then all once more, on the next workers; never one item
    twice on one worker. Needs copies <= n."""
    places, taken = [], set[int]()
    for copy in range(copies):
        first = copy * items % n
        while first in taken:
            first = (first + 1) % n
        taken.add(first)
        places += [(k, (first + k) % n) for k in range(items)]
    return places
