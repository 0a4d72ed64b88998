"""Gradient codes: who sends which combination of parts, and how the sum of all parts comes back from the rows in hand.

A code is a matrix B (n rows, one per worker; one column per part). Worker i sends `B[i] @ part gradients`.
Any rows whose span holds the all-ones row decode: weights a, zero outside the rows in hand, with a^T B = 1^T.
Source: Tandon, Lei, Dimakis, Karampatziakis, "Gradient Coding", ICML 2017.
"""

from fractions import Fraction
from typing import NamedTuple, Protocol

import numpy as np


class Shortage(NamedTuple):
    """What is still missing: at least `need` more rows, all of them from `workers`."""

    workers: np.ndarray  # (n,) bool
    need: int


class GradientCode(Protocol):
    """An (n, s) code: any n - s rows decode."""

    @property
    def n(self) -> int: ...
    @property
    def s(self) -> int: ...
    @property
    def parts(self) -> int: ...
    @property
    def load(self) -> Fraction: ...
    def row(self, worker: int) -> tuple[tuple[int, float], ...]:
        """The (part, coefficient) pairs of a worker's row, in the order of its computation."""
        ...

    def shortage(self, has: np.ndarray) -> Shortage | None:
        """None when the rows of `has` (n,) bool decode, else what must still arrive."""
        ...

    def decode(self, has: np.ndarray) -> np.ndarray:
        """Weights a (n,) with a^T B = 1^T and zero outside `has`; ValueError when the rows do not decode."""
        ...

    @property
    def amplification(self) -> float:
        """Worst growth of relative rounding errors of rows in the decoded sum (1 = none)."""
        ...


def _check_range(n: int, s: int) -> None:
    if n < 1:
        raise ValueError(f"a code needs n >= 1 workers: got n={n}")
    if not 0 <= s < n:
        raise ValueError(f"an (n, s) code needs 0 <= s < n: got n={n}, s={s}")
