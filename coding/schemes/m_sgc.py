"""Multiplexed sequential gradient coding: most of a batch uncoded and retried, the rest coded.

Source: Krishnan, Ebrahimi, Khisti, ICLR 2023, section 3.2 (M-SGC) and its GC-Rep variant.
"""

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

import numpy as np

from distseq.coding.codes.gradient_code import Shortage
from distseq.coding.codes.registry import make_code
from distseq.coding.plan import NOTHING, Plan
from distseq.coding.schemes.gradient_coding import of_load
from distseq.coding.schemes.scheme import Rows, Scheme
from distseq.coding.stragglers import Arbitrary, Bursty, StragglerModel


@dataclass(frozen=True)
class MSGC(Scheme):
    """M-SGC(n, B, W, lam): W - 1 uncoded groups and, if lam < n, B groups under an (n, lam) code. Delay T = W - 2 + B.

    A job lives for W - 1 + B rounds. In each of them a worker does one mini-task for it, all of equal cost: first its W - 1
    uncoded parts, one per round; then any of them that are missing; otherwise the coded row of the job's age. ValueError unless
    0 < B < W and 0 <= lam <= n.
    """

    B: int
    W: int
    lam: int
    code: str = "fr"

    def __post_init__(self) -> None:
        if not 0 < self.B < self.W:
            raise ValueError(f"M-SGC needs 0 < B < W: got B={self.B}, W={self.W}")
        if not 0 <= self.lam <= self.n:
            raise ValueError(f"M-SGC needs 0 <= lam <= n: got lam={self.lam}, n={self.n}")
        make_code(self.code, self.n, min(self.lam, self.n - 1))

    @property
    def spec(self) -> str:
        return f"msgc:{self.B},{self.W},{self.lam}" + ("" if self.code == "fr" else f",code={self.code}")

    @property
    def slots(self) -> int:
        """The rounds of a job's life, which is also the number of mini-tasks of a worker per round."""
        return self.W - 1 + self.B

    @property
    def coded(self) -> int:
        """The number of coded groups."""
        # With lam = n all workers may straggle at once, so no code helps: everything is uncoded and retried.
        return self.B if self.lam < self.n else 0

    @property
    def tolerance(self) -> tuple[int, ...]:
        return (0,) * (self.W - 1) + (self.lam,) * self.coded

    @property
    def share(self) -> Fraction:
        """The fraction of the batch in one mini-task: (lam + 1)/Z for the cyclic code and for even replica sets."""
        # The x that solves n (W - 1) x + B x / load(code) = 1. Mini-tasks stay equal where replica sets are uneven, because then
        # a retry costs as much as a coded row, on which the schedule rests (docs/decisions/003).
        uncoded = Fraction(self.n * (self.W - 1))
        return 1 / (uncoded + self.B / self.codes[-1].load if self.coded else uncoded)

    @cached_property
    def shares(self) -> tuple[Fraction, ...]:
        uncoded = (self.share * self.n,) * (self.W - 1)
        return uncoded + (self.share / self.codes[-1].load,) * self.coded if self.coded else uncoded

    @property
    def load(self) -> Fraction:
        return self.slots * self.share

    @property
    def delay(self) -> int:
        return self.W - 2 + self.B

    @property
    def models(self) -> tuple[StragglerModel, ...]:
        return Bursty(self.B, self.W, self.lam), Arbitrary(self.B, self.W + self.B - 1, self.lam)

    def assign(self, t: int, rows: Rows) -> Plan:
        # Oldest job first: its rows are due first.
        slots = [self._of_age(age, rows.get(t - age)) for age in reversed(range(self.slots))]
        starts = np.repeat(np.arange(t - self.delay, t + 1)[:, None], self.n, axis=1)
        return Plan(starts, np.array(slots))

    def _of_age(self, age: int, rows: np.ndarray | None) -> np.ndarray:
        """(n,): each worker's group for the job of this age, given its rows (None: there is no such job, or it is complete)."""
        if rows is None:
            return np.full(self.n, NOTHING)
        if age < self.W - 1:
            return np.full(self.n, age)
        lost = ~rows[: self.W - 1]
        # The first missing part, not the last: it was tried in the oldest round, and retries keep this order.
        return np.where(lost.any(axis=0), lost.argmax(axis=0), age if self.coded else NOTHING)

    def shortage(self, t: int, rows: Rows) -> Shortage | None:
        for start in range(t - self.delay, t + 1):
            if start in rows:
                shortage = self._shortage(t - start, rows[start])
                if shortage is not None:
                    return shortage
        return None

    def _shortage(self, age: int, rows: np.ndarray) -> Shortage | None:
        """The shortage of a job of this age, at the end of the round."""
        # After the W - 1 first attempts, a worker uses each complete round to make up one missing uncoded part, and computes the
        # coded row of that age only if none is missing. With m parts missing it skips the next m coded rows. The job is safe if
        # all parts are made up by its last round, and each coded group still decodes with the rows that are not skipped.
        attempted, retried = min(age + 1, self.W - 1), max(age, self.W - 2)
        behind = attempted - rows[:attempted].sum(axis=0)  # (n,) parts to make up
        late = behind - (self.delay - retried)
        # Only the worker that is farthest behind is named: nothing else helps before it has answered.
        if late.max() > 0:
            worst = int(late.argmax())
            return Shortage(np.arange(self.n) == worst, int(late[worst]))
        for k in range(self.coded):
            group = self.W - 1 + k
            # Rounds to come are taken for complete: in its round, a worker computes this group's row unless it is still behind.
            has = rows[group] if group <= age else behind <= group - retried - 1
            shortage = self.codes[group].shortage(has)
            if shortage is not None:
                return shortage
        return None

    def within(self, delay: int) -> Scheme:
        if delay >= self.delay:
            return self
        # Without delay, gradient coding at the load that the run was planned for.
        if delay == 0:
            return of_load(self.n, self.load, self.code)
        # The longest window first, since most of the batch is uncoded then; B takes what is left of the delay.
        W = min(self.W, delay + 1)
        return MSGC(self.n, min(self.B, W - 1, delay + 2 - W), W, self.lam, self.code)

    def on(self, n: int) -> Scheme:
        return replace(self, n=n, lam=min(self.lam, n))
