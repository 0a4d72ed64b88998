"""What schemes have in common whose parts may be done by any worker: n groups of one part each, any one row suffices."""

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import ClassVar, Self

from distseq.coding.codes.gradient_code import GradientCode
from distseq.coding.codes.registry import make_code
from distseq.coding.stragglers import PerRound, StragglerModel


@dataclass(frozen=True)
class Interchangeable:
    """A part for each of n workers, and no worker bound to its part."""

    n: int
    exact: ClassVar[bool] = True

    def __post_init__(self) -> None:
        make_code("fr", self.n, self.n - 1)

    @property
    def code(self) -> str:
        return "fr"

    @property
    def tolerance(self) -> tuple[int, ...]:
        return (self.n - 1,) * self.n

    @property
    def shares(self) -> tuple[Fraction, ...]:
        return (Fraction(1, self.n),) * self.n

    @cached_property
    def codes(self) -> tuple[GradientCode, ...]:
        return (make_code("fr", self.n, self.n - 1),) * self.n

    @property
    def load(self) -> Fraction:
        """Of a round in which nothing is done twice."""
        return Fraction(1, self.n)

    @property
    def models(self) -> tuple[StragglerModel, ...]:
        return (PerRound(0),)

    def on(self, n: int) -> Self:
        return replace(self, n=n)
