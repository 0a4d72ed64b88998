"""The base class of schemes, which assign work as a pure function of round and rows in hand.

A job's batch is cut into groups. Group g consists of parts under an (n, s_g) code, of which worker i computes row i. `rows[t]`
(groups, n) bool says which rows of the job that started in round t are in hand; complete jobs are not in `rows`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import ClassVar

import numpy as np

from distseq.coding.codes.gradient_code import GradientCode, Shortage
from distseq.coding.codes.registry import make_code
from distseq.coding.plan import NOTHING, Plan
from distseq.coding.schemes.specification import to_words
from distseq.coding.stragglers import PerRound, StragglerModel

Rows = Mapping[int, np.ndarray]  # round in which the job started -> (groups, n) bool


@dataclass(frozen=True)
class Scheme(ABC):
    """A way to spread jobs over n workers and rounds: a frozen dataclass of n and its other parameters.

    Only `tolerance` must be defined. The defaults are those of a scheme whose jobs start and end in one round: groups of equal
    shares under fractional repetition, and each worker computes its row of every group, in order. A scheme with a delay also
    defines `delay`, `assign`, `shortage`, `models` and `within`.

    >>> @dataclass(frozen=True)
    ... class Twice(Scheme):  # gradient coding that tolerates one straggler
    ...     @property
    ...     def tolerance(self) -> tuple[int, ...]:
    ...         return (1,)
    >>> Twice(4).load
    Fraction(1, 2)
    """

    n: int
    exact: ClassVar[bool] = True  # the decoded sum is that over all parts, not an estimate of it
    streams: ClassVar[bool] = False  # relies on the rows of a message arriving one by one instead of all with the last
    code = "fr"  # the kind of the groups' codes (distseq.coding.codes.registry)

    @property
    @abstractmethod
    def tolerance(self) -> tuple[int, ...]:
        """The tolerance s_g of each group: how many rows of it may be missing."""
        ...

    @property
    def spec(self) -> str:
        """The specification that `parse` reads back, without n; by default `module:Class:VALUE,...,KEY=VALUE`."""
        return f"{type(self).__module__}:{type(self).__name__}{to_words(self)}"

    @property
    def shares(self) -> tuple[Fraction, ...]:
        """The fraction of the job's batch in each group; they add up to one."""
        return (Fraction(1, len(self.tolerance)),) * len(self.tolerance)

    @cached_property
    def codes(self) -> tuple[GradientCode, ...]:
        """The code of each group."""
        return tuple(make_code(self.code, self.n, s) for s in self.tolerance)

    @property
    def load(self) -> Fraction:
        """The fraction of a batch that a worker processes per round in steady state."""
        return sum((share * code.load for share, code in zip(self.shares, self.codes, strict=True)), Fraction(0))

    @property
    def delay(self) -> int:
        """T: a job that starts in round t is decoded by the end of round t + T."""
        return 0

    @property
    def models(self) -> tuple[StragglerModel, ...]:
        """Straggler models: under a pattern that conforms to one of them, every job is decoded on time without waiting."""
        return (PerRound(min(self.tolerance)),)

    def assign(self, t: int, rows: Rows) -> Plan:
        """The mini-tasks of round t. A pure function."""
        groups = np.arange(len(self.tolerance)) if t in rows else np.full(len(self.tolerance), NOTHING)
        return Plan(np.full((len(groups), self.n), t), np.repeat(groups[:, None], self.n, axis=1))

    def shortage(self, t: int, rows: Rows) -> Shortage | None:
        """What must still arrive before round t may end safely; None if it may.

        Safely: if every later round were complete, each open job would be complete by its due round. Any further rows that make
        it safe include at least `need` rows of the workers named.
        """
        return missing(self.codes, rows[t]) if t in rows else None

    def within(self, delay: int) -> "Scheme":
        """The scheme to use when only `delay` + 1 learners are left: same workers and code, with a delay of at most `delay`."""
        return self

    def on(self, n: int) -> "Scheme":
        """The scheme to use when there are n workers: the same parameters, as far as n allows."""
        return replace(self, n=n)


def missing(codes: tuple[GradientCode, ...], rows: np.ndarray) -> Shortage | None:
    """What must still arrive before a job with these rows (groups, n) is complete; None if it is."""
    # Pipelined jobs have dozens of groups of one part, for which one count over all groups tells more than the first shortage.
    if codes[0] is codes[-1] and codes[0].parts == 1:
        return silent(rows)
    # Of all groups, not only of the first that lacks something: the caller would ask again after nearly every row of a streamed
    # job, at a cost of one question per group (12 s per job of 1,000 groups).
    need, workers = 0, np.zeros(rows.shape[1], dtype=bool)
    for code, has in zip(codes, rows, strict=True):
        shortage = code.shortage(has)
        if shortage is not None:
            need += shortage.need
            workers |= shortage.workers
    return Shortage(workers, need) if need else None


def silent(rows: np.ndarray) -> Shortage | None:
    """The shortage of a job with these rows (groups, n) if any one row of a group suffices; else a lower bound of it."""
    groups, n = rows.shape
    need = groups - int(np.count_nonzero(rows.any(axis=1)))
    return Shortage(np.ones(n, dtype=bool), need) if need else None


def interchangeable(scheme: Scheme) -> bool:
    """Whether each row is the sum over its whole group, so that any worker may do any mini-task in place of another."""
    # A set, because groups share their codes: one comparison in place of one for each of n groups.
    return all(code.parts == 1 for code in set(scheme.codes))
