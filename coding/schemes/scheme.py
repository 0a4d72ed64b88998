"""What every scheme is: frozen parameters, groups under codes, and an assignment that is a pure function of what has arrived.

A job's batch is cut into groups; group g is parts under an (n, s_g) code, worker i owning row i. `rows[t]` (groups, n) bool
says which rows of the job that started in round t are in hand; a job that is complete is no longer in `rows`.
"""

from collections.abc import Mapping
from fractions import Fraction
from typing import ClassVar, Protocol

import numpy as np

from distseq.coding.codes.gradient_code import GradientCode, Shortage
from distseq.coding.plan import Plan
from distseq.coding.stragglers import StragglerModel

Rows = Mapping[int, np.ndarray]  # round in which the job started -> (groups, n) bool


class Scheme(Protocol):
    """One way to spread jobs over n workers and rounds."""

    exact: ClassVar[bool]  # what is decoded is the sum over all parts, not an estimate of it

    @property
    def n(self) -> int: ...
    @property
    def spec(self) -> str:
        """What `parse` reads back, without n."""
        ...

    @property
    def tolerance(self) -> tuple[int, ...]:
        """s_g of each group."""
        ...

    @property
    def shares(self) -> tuple[Fraction, ...]:
        """Fraction of the job's batch in each group; they add up to one."""
        ...

    @property
    def codes(self) -> tuple[GradientCode, ...]:
        """The code of each group."""
        ...

    @property
    def load(self) -> Fraction:
        """Fraction of a batch that a worker processes per round in steady state."""
        ...

    @property
    def delay(self) -> int:
        """T: a job that starts in round t is decoded by the end of round t + T."""
        ...

    @property
    def models(self) -> tuple[StragglerModel, ...]:
        """A pattern that conforms to one of them is decoded on time without waiting."""
        ...

    @property
    def streams(self) -> bool:
        """Whether the scheme counts on a worker's rows arriving one by one, not as one message."""
        ...

    def assign(self, t: int, rows: Rows) -> Plan:
        """The mini-tasks of round t. A pure function."""
        ...

    def shortage(self, t: int, rows: Rows) -> Shortage | None:
        """What must still arrive before round t may end safely; None = the ledger is safe.

        Safe: were every later round complete, every open job would be complete by its due round. Any set of further rows
        that makes it safe holds at least `need` rows of the workers named.
        """
        ...

    def within(self, delay: int) -> "Scheme":
        """The scheme to move to when only `delay` + 1 learners are left: same workers and code, delay at most `delay`."""
        ...

    def on(self, n: int) -> "Scheme":
        """The scheme to move to when there are n workers: same parameters, as far as so few workers can bear them."""
        ...


def missing(codes: tuple[GradientCode, ...], rows: np.ndarray) -> Shortage | None:
    """What must still arrive before a job with these rows (groups, n) is complete: where one row of a group suffices, a row
    of each that has none, else the first group's shortage."""
    if codes[0] is codes[-1] and codes[0].parts == 1:
        return silent(rows)
    for code, has in zip(codes, rows, strict=True):
        shortage = code.shortage(has)
        if shortage is not None:
            return shortage
    return None


def silent(rows: np.ndarray) -> Shortage | None:
    """What a job with these rows (groups, n) is short of where any one row of a group suffices, and at least elsewhere."""
    groups, n = rows.shape
    need = groups - int(np.count_nonzero(rows.any(axis=1)))
    return Shortage(np.ones(n, dtype=bool), need) if need else None


def interchangeable(scheme: Scheme) -> bool:
    """Whether each row is the sum over its whole group, so that any worker may do any mini-task in another's place."""
    return all(code.parts == 1 for code in set(scheme.codes))
