"""Selective-repetition sequential gradient coding: missing rows are repeated B rounds later.

Source: Krishnan, Ebrahimi, Khisti, ICLR 2023, section 3.1 (SR-SGC) and its GC-Rep variant.
"""

from dataclasses import dataclass, replace

import numpy as np

from distseq.coding.codes.fractional_repetition import FractionalRepetition
from distseq.coding.codes.gradient_code import Shortage
from distseq.coding.codes.registry import make_code
from distseq.coding.plan import NOTHING, Plan
from distseq.coding.schemes.gradient_coding import GC
from distseq.coding.schemes.scheme import Rows, Scheme
from distseq.coding.stragglers import Bursty, EitherInWindow, PerRound, StragglerModel


@dataclass(frozen=True)
class SRSGC(Scheme):
    """SR-SGC(n, B, W, lam): (n, s)-GC with s = ceil(B lam / (W - 1 + B)), and delay T = B.

    In round t, workers whose row of job t - B is missing and needed repeat it; all others do job t. ValueError unless B divides
    W - 1 and 0 < lam <= n.
    """

    B: int
    W: int
    lam: int
    code: str = "fr"

    def __post_init__(self) -> None:
        if self.B < 1 or self.W < 2 or (self.W - 1) % self.B:
            raise ValueError(f"SR-SGC needs B to divide W - 1: got B={self.B}, W={self.W}")
        if not 0 < self.lam <= self.n:
            raise ValueError(f"SR-SGC needs 0 < lam <= n: got lam={self.lam}, n={self.n}")
        make_code(self.code, self.n, self.s)

    @property
    def s(self) -> int:
        return -(-self.B * self.lam // (self.W - 1 + self.B))

    @property
    def spec(self) -> str:
        return f"srsgc:{self.B},{self.W},{self.lam}" + ("" if self.code == "fr" else f",code={self.code}")

    @property
    def tolerance(self) -> tuple[int, ...]:
        return (self.s,)

    @property
    def delay(self) -> int:
        return self.B

    @property
    def models(self) -> tuple[StragglerModel, ...]:
        return (EitherInWindow((Bursty(self.B, self.W, self.lam), PerRound(self.s))),)

    def repeaters(self, t: int, has: np.ndarray) -> np.ndarray:
        """(n,) bool: the workers that repeat in round t, given the rows `has` (n,) of job t - B."""
        # Cyclic code: the first missing workers, as many as are needed. Fractional repetition: exactly one member of each silent
        # replica set, another one each round. If all members repeated, none would do job t, and conforming patterns would fail.
        code = self.codes[0]
        repeat = np.zeros(self.n, dtype=bool)
        if isinstance(code, FractionalRepetition):
            silent = ~code.answered(has)
            sizes = np.diff(code.starts, append=self.n)
            repeat[(code.starts + t % sizes)[silent]] = True
        else:
            need = self.n - self.s - int(np.count_nonzero(has))
            repeat[np.flatnonzero(~has)[: max(0, need)]] = True
        return repeat

    def assign(self, t: int, rows: Rows) -> Plan:
        # A job that is complete is not in `rows`, and needs no repetition.
        none = np.zeros(self.n, dtype=bool)
        repeat = self.repeaters(t, rows[t - self.B][0]) if t - self.B in rows else none
        jobs = np.where(repeat, t - self.B, t)[None, :]
        return Plan(jobs, np.where(repeat | (t in rows), 0, NOTHING)[None, :])

    def shortage(self, t: int, rows: Rows) -> Shortage | None:
        due = t - self.B
        return self.codes[0].shortage(rows[due][0]) if due in rows else None

    def within(self, delay: int) -> Scheme:
        if delay >= self.B:
            return self
        # The code stays the same, only the repetition goes.
        if delay == 0:
            return GC(self.n, self.s, code=self.code)
        # B must divide W - 1; 1 always does.
        B = max(b for b in range(1, delay + 1) if (self.W - 1) % b == 0)
        return SRSGC(self.n, B, self.W, self.lam, self.code)

    def on(self, n: int) -> Scheme:
        # A single worker has nobody to be replaced by, and s >= 1 needs two.
        return GC(n, 0, code=self.code) if n == 1 else replace(self, n=n, lam=min(self.lam, n))
