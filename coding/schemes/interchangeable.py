"""What schemes have in common whose parts may be done by any worker: n groups of one part each, any one row suffices."""

from dataclasses import dataclass
from fractions import Fraction

from distseq.coding.codes.registry import make_code
from distseq.coding.schemes.scheme import Scheme
from distseq.coding.stragglers import PerRound, StragglerModel


@dataclass(frozen=True)
class Interchangeable(Scheme):
    """A part for each of n workers, and no worker bound to its part."""

    def __post_init__(self) -> None:
        make_code("fr", self.n, self.n - 1)

    @property
    def tolerance(self) -> tuple[int, ...]:
        return (self.n - 1,) * self.n

    @property
    def load(self) -> Fraction:
        """Of a round in which nothing is done twice."""
        return Fraction(1, self.n)

    @property
    def models(self) -> tuple[StragglerModel, ...]:
        return (PerRound(0),)
