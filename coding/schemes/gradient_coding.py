"""Uncoded training, gradient coding and streamed gradient coding: one round for each job."""

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from math import ceil
from typing import ClassVar

import numpy as np

from distseq.coding.codes.fractional_repetition import FractionalRepetition
from distseq.coding.codes.registry import make_code
from distseq.coding.plan import NOTHING, Plan
from distseq.coding.schemes.scheme import Rows, Scheme


@dataclass(frozen=True)
class GC(Scheme):
    """(n, s) gradient coding (Tandon et al. 2017); s = 0 is uncoded training.

    With q > 1 it is streamed: the batch is cut into q groups under the same code. A worker computes its q rows one by one and
    sends each at once, so that a straggler's first rows count too. ValueError unless 0 <= s < n and q >= 1.
    """

    s: int
    q: int = 1
    code: str = "fr"
    streams: ClassVar[bool] = True

    def __post_init__(self) -> None:
        # Made now, so that a wrong n, s or code is refused where the scheme is written and not in the middle of a run.
        make_code(self.code, self.n, self.s)
        if self.q < 1:
            raise ValueError(f"streamed GC needs q >= 1 groups: got q={self.q}")

    @property
    def spec(self) -> str:
        if self.s == 0 and self.q == 1 and self.code == "fr":
            return "uncoded"
        return (
            f"gc:{self.s}"
            + (f",q={self.q}" if self.q > 1 else "")
            + ("" if self.code == "fr" else f",code={self.code}")
        )

    @property
    def tolerance(self) -> tuple[int, ...]:
        return (self.s,) * self.q

    @cached_property
    def _order(self) -> np.ndarray:
        """(q, n): the groups in each worker's order."""
        # Replicas start at different groups: if s + 1 workers all began with group 0, the last group would have no row for long.
        code = self.codes[0]
        first = code.member if isinstance(code, FractionalRepetition) else np.arange(self.n)
        return (np.arange(self.q)[:, None] + first[None, :]) % self.q

    def assign(self, t: int, rows: Rows) -> Plan:
        jobs = np.full((self.q, self.n), t)
        return Plan(jobs, self._order if t in rows else np.full((self.q, self.n), NOTHING))

    def on(self, n: int) -> Scheme:
        # The same s, not the same load: with fewer workers each straggler weighs more.
        return replace(self, n=n, s=min(self.s, n - 1))


def of_load(n: int, load: Fraction, code: str) -> GC:
    """The GC with the largest tolerance whose load is at most `load`, or uncoded if there is none."""
    # Fractional repetition has load 1 / floor(n / (s + 1)), the cyclic code (s + 1) / n; both solved for s.
    s = n // ceil(1 / load) - 1 if code == "fr" else int(load * n) - 1
    return GC(n, min(n - 1, max(0, s)), code=code)
