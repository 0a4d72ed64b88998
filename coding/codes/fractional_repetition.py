"""Fractional repetition: replicas send the same plain sum, so that decoding only selects rows."""

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np

from distseq.coding.codes.gradient_code import Shortage, check_range


@dataclass(frozen=True)
class FractionalRepetition:
    """G = floor(n / (s + 1)) replica sets of at least s + 1 neighbours, each of which owns 1/G of the data.

    All members of a set send the same plain sum, so decoding selects one row per set, without arithmetic, and its amplification
    is 1. Sets are contiguous, the larger ones first. The code tolerates any s stragglers and many larger sets of them (Tandon et
    al. 2017, section 3). ValueError unless 0 <= s < n.
    """

    n: int
    s: int

    def __post_init__(self) -> None:
        check_range(self.n, self.s)

    @property
    def parts(self) -> int:
        return self.n // (self.s + 1)

    @property
    def load(self) -> Fraction:
        return Fraction(1, self.parts)

    @cached_property
    def starts(self) -> np.ndarray:
        """(G,) first worker of each replica set."""
        # The larger sets first: a rule that every host follows without being told the sets.
        size, larger = divmod(self.n, self.parts)
        k = np.arange(self.parts)
        return k * size + np.minimum(k, larger)

    @cached_property
    def replica_set(self) -> np.ndarray:
        """(n,) replica set of each worker."""
        return np.searchsorted(self.starts, np.arange(self.n), side="right") - 1

    @cached_property
    def member(self) -> np.ndarray:
        """(n,) position of each worker within its replica set."""
        first: np.ndarray = self.starts[self.replica_set]
        position: np.ndarray = np.arange(self.n) - first
        return position

    def row(self, worker: int) -> tuple[tuple[int, float], ...]:
        return ((int(self.replica_set[worker]), 1.0),)

    def answered(self, has: np.ndarray) -> np.ndarray:
        """(G,) bool: which replica sets have a row in hand."""
        return np.logical_or.reduceat(has, self.starts)

    def shortage(self, has: np.ndarray) -> Shortage | None:
        silent = ~self.answered(has)
        # Sets are disjoint, so each needs a row of its own.
        need = int(np.count_nonzero(silent))
        return Shortage(silent[self.replica_set], need) if need else None

    def decode(self, has: np.ndarray) -> np.ndarray:
        # Uncoded groups decode only from all of their rows, so this is their only case; it needs no search.
        if self.parts == self.n and has.all():
            return np.ones(self.n)
        workers = np.flatnonzero(has)
        sets, first = np.unique(self.replica_set[workers], return_index=True)
        if sets.size < self.parts:
            raise ValueError(
                f"fractional repetition needs a row from each of {self.parts} replica sets: got {sets.size}"
            )
        # The first worker in hand of each set: replicas are equal bit for bit, so that any choice gives the same sum.
        weights = np.zeros(self.n)
        weights[workers[first]] = 1.0
        return weights

    @property
    def amplification(self) -> float:
        return 1.0
