"""K-sync, an inexact baseline: uncoded rounds in which the first K of n rows stand for all.

Source: Chen, Pan, Monga, Bengio, Jozefowicz, "Revisiting Distributed Synchronous SGD", ICLR workshop 2016.
"""

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import ClassVar

import numpy as np

from distseq.coding.codes.gradient_code import GradientCode, Shortage
from distseq.coding.schemes.scheme import Scheme


@dataclass(frozen=True)
class AnyK:
    """n parts, one per worker, any K of which stand for all. Not a gradient code: its weights do not decode unless K = n.

    If m >= K rows are in hand they are scaled by n/m. That scales everything in them, so that the sum of losses and the count of
    samples are estimates too.
    """

    n: int
    K: int

    @property
    def s(self) -> int:
        return self.n - self.K

    @property
    def parts(self) -> int:
        return self.n

    @property
    def load(self) -> Fraction:
        return Fraction(1, self.n)

    def row(self, worker: int) -> tuple[tuple[int, float], ...]:
        return ((worker, 1.0),)

    def shortage(self, has: np.ndarray) -> Shortage | None:
        need = self.K - int(np.count_nonzero(has))
        return Shortage(~has, need) if need > 0 else None

    def decode(self, has: np.ndarray) -> np.ndarray:
        count = int(np.count_nonzero(has))
        if count < self.K:
            raise ValueError(f"ksync needs {self.K} rows of {self.n}: got {count}")
        # By the rows there are, not by K: rows beyond the K-th that are here already make the estimate better.
        return has * (self.n / count)

    @property
    def amplification(self) -> float:
        # Rounding grows with the sum by n/m, so that relative to it nothing is amplified.
        return 1.0


@dataclass(frozen=True)
class KSync(Scheme):
    """A job is complete with its first K rows; the others are not waited for, and are lost. ValueError unless 1 <= K <= n."""

    K: int
    exact: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 1 <= self.K <= self.n:
            raise ValueError(f"ksync needs 1 <= K <= n: got K={self.K}, n={self.n}")

    @property
    def spec(self) -> str:
        return f"ksync:{self.K}"

    @property
    def tolerance(self) -> tuple[int, ...]:
        return (self.n - self.K,)

    @cached_property
    def codes(self) -> tuple[GradientCode, ...]:
        return (AnyK(self.n, self.K),)

    def on(self, n: int) -> Scheme:
        return replace(self, n=n, K=min(self.K, n))
