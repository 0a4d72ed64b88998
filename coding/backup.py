"""Backup tasks, a baseline: uncoded rounds in which the last missing tasks are each copied once to an idle worker.

Source: Dean and Ghemawat, "MapReduce", OSDI 2004, section 3.6. Copying is the scheduler's: it knows who is idle.
"""

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

import numpy as np

from distseq.coding.gradient_code import GradientCode, Shortage, make_code
from distseq.coding.plan import NOTHING, Plan
from distseq.coding.scheme import Rows, Scheme, silent
from distseq.coding.stragglers import PerRound, StragglerModel


@dataclass(frozen=True)
class Backup:
    """Once `percent` of the parts of a job are in hand, a part that is missing may be done by any other worker, too."""

    n: int
    percent: int

    def __post_init__(self) -> None:
        make_code("fr", self.n, self.n - 1)
        if not 0 < self.percent < 100:
            raise ValueError(f"backup needs 0 < percent < 100: got percent={self.percent}")

    @property
    def spec(self) -> str:
        return f"backup:{self.percent}"

    @property
    def code(self) -> str:
        return "fr"

    @property
    def enough(self) -> int:
        """Parts in hand after which the others are copied."""
        return -(-self.percent * self.n // 100)

    @property
    def tolerance(self) -> tuple[int, ...]:
        return (self.n - 1,) * self.n

    @property
    def shares(self) -> tuple[Fraction, ...]:
        return (Fraction(1, self.n),) * self.n

    @cached_property
    def codes(self) -> tuple[GradientCode, ...]:
        return (make_code("fr", self.n, self.n - 1),) * self.n

    @property
    def load(self) -> Fraction:
        """Without copies."""
        return Fraction(1, self.n)

    @property
    def delay(self) -> int:
        return 0

    @property
    def models(self) -> tuple[StragglerModel, ...]:
        return (PerRound(0),)

    @property
    def streams(self) -> bool:
        return False

    def assign(self, t: int, rows: Rows) -> Plan:
        own = np.arange(self.n) if t in rows else np.full(self.n, NOTHING)
        return Plan(np.full((1, self.n), t), own[None, :])

    def shortage(self, t: int, rows: Rows) -> Shortage | None:
        return silent(rows[t]) if t in rows else None

    def within(self, delay: int) -> Scheme:
        return self

    def on(self, n: int) -> Scheme:
        return replace(self, n=n)
