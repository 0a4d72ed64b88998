"""Backup tasks, a baseline: uncoded rounds whose last missing tasks are copied to idle workers.

Source: Dean and Ghemawat, "MapReduce", OSDI 2004, section 3.6. The scheduler makes the copies, since it knows idle workers.
"""

from dataclasses import dataclass

import numpy as np

from distseq.coding.codes.gradient_code import Shortage
from distseq.coding.plan import NOTHING, Plan
from distseq.coding.schemes.interchangeable import Interchangeable
from distseq.coding.schemes.scheme import Rows, silent


@dataclass(frozen=True)
class Backup(Interchangeable):
    """Once `percent` of a job's parts are in hand, other workers may do the missing ones too.

    ValueError unless 0 < percent < 100.
    """

    percent: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.percent < 100:
            raise ValueError(f"backup needs 0 < percent < 100: got percent={self.percent}")

    @property
    def spec(self) -> str:
        return f"backup:{self.percent}"

    @property
    def enough(self) -> int:
        """The number of parts in hand from which on the others are copied."""
        # Rounded up, in integers: a percentage that n does not divide must not copy early.
        return -(-self.percent * self.n // 100)

    def assign(self, t: int, rows: Rows) -> Plan:
        # Without copies: who is idle in the middle of a round is known to the scheduler alone (docs/decisions/012).
        own = np.arange(self.n) if t in rows else np.full(self.n, NOTHING)
        return Plan(np.full((1, self.n), t), own[None, :])

    def shortage(self, t: int, rows: Rows) -> Shortage | None:
        return silent(rows[t]) if t in rows else None
