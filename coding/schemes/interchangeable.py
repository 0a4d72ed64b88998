"""Base class of schemes in which any worker may compute any part; each part is a group of its own."""

from dataclasses import dataclass
from fractions import Fraction

from distseq.coding.codes.registry import make_code
from distseq.coding.schemes.scheme import Scheme
from distseq.coding.stragglers import PerRound, StragglerModel


@dataclass(frozen=True)
class Interchangeable(Scheme):
    """n parts, one for each worker, that any worker may compute."""

    def __post_init__(self) -> None:
        make_code("fr", self.n, self.n - 1)

    @property
    def tolerance(self) -> tuple[int, ...]:
        return (self.n - 1,) * self.n

    @property
    def load(self) -> Fraction:
        """The load of a round in which nothing is computed twice."""
        return Fraction(1, self.n)

    @property
    def models(self) -> tuple[StragglerModel, ...]:
        # Nothing is computed twice in advance, so that no straggler is tolerated without waiting or copies.
        return (PerRound(0),)
