"""The interface of gradient codes: the row of each worker, and the weights that decode the sum.

A code is a matrix B with a row for each of n workers and a column for each part. Worker i sends `B[i] @ part gradients`. A set of
rows decodes if it spans the all-ones row: there are weights a, zero outside the set, with a^T B = 1^T.
Source: Tandon, Lei, Dimakis, Karampatziakis, "Gradient Coding", ICML 2017.
"""

from fractions import Fraction
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

# Largest relative errors of a decoded sum by the rounding of its rows. A dense code is refused beyond the first, which is far
# below the noise of a minibatch gradient; a single decode waits for more rows beyond the second, the tolerance of a contract.
TOLERANCE, OF_ONE_DECODE = 1e-3, 1e-4


class Shortage(NamedTuple):
    """What is still missing: at least `need` more rows from `workers`."""

    # A lower bound, not a list: the ledger asks again only when so many rows of these workers have arrived, which makes closing
    # rounds cheap (docs/decisions/001).

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
        """The (part, coefficient) pairs of a worker's row, in the order in which they are computed."""
        ...

    def shortage(self, has: np.ndarray) -> Shortage | None:
        """None if the rows of `has` (n,) bool decode, else what must still arrive."""
        ...

    def decode(self, has: np.ndarray) -> np.ndarray:
        """Weights a (n,), zero outside `has`, with a^T B = 1^T. ValueError if the rows do not decode."""
        ...

    @property
    def amplification(self) -> float:
        """By how much decoding amplifies the relative rounding errors of rows, at worst; 1 = not at all."""
        ...


@runtime_checkable
class AmplifyingCode(GradientCode, Protocol):
    """A code whose decodes amplify rounding errors by different factors."""

    def amplified(self, has: np.ndarray) -> float:
        """By how much the decode of these rows amplifies their relative rounding errors, at worst: sum_i |a_i| |B_i|_1 / parts.

        1 = not at all; inf if they do not decode accurately.
        """
        ...


# s < n, because some row must arrive.
def check_range(n: int, s: int) -> None:
    if n < 1:
        raise ValueError(f"a code needs n >= 1 workers: got n={n}")
    if not 0 <= s < n:
        raise ValueError(f"an (n, s) code needs 0 <= s < n: got n={n}, s={s}")
