"""Straggler models: the patterns of stragglers that a scheme is designed to tolerate.

A pattern (rounds, n) bool is True where a worker straggled in a round. Each model bounds windows of consecutive rounds; a prefix
that is shorter counts as a window. Source: Krishnan, Ebrahimi, Khisti, ICLR 2023, section 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


class StragglerModel(Protocol):
    """A pattern conforms iff each of its windows of `window` rounds is allowed."""

    @property
    def window(self) -> int: ...
    def allows(self, window: np.ndarray) -> bool:
        """Whether the model allows a window (at most `self.window` rounds, n) bool."""
        ...


@dataclass(frozen=True)
class PerRound:
    """At most s stragglers in a round."""

    s: int

    @property
    def window(self) -> int:
        return 1

    def allows(self, window: np.ndarray) -> bool:
        return int(window.sum(axis=1).max(initial=0)) <= self.s


@dataclass(frozen=True)
class Bursty:
    """(B, W, lam): in W rounds at most lam distinct stragglers, whose first and last straggle are less than B rounds apart."""

    B: int
    W: int
    lam: int

    @property
    def window(self) -> int:
        return self.W

    def allows(self, window: np.ndarray) -> bool:
        ever = window.any(axis=0)
        if int(ever.sum()) > self.lam:
            return False
        hit = window[:, ever]
        # The last straggle is the first one of the reversed window.
        first, last = hit.argmax(axis=0), len(hit) - 1 - hit[::-1].argmax(axis=0)
        return bool((last - first < self.B).all())


@dataclass(frozen=True)
class Arbitrary:
    """(N, W, lam): in W rounds at most lam distinct stragglers, each straggling at most N times."""

    N: int
    W: int
    lam: int

    @property
    def window(self) -> int:
        return self.W

    def allows(self, window: np.ndarray) -> bool:
        times = window.sum(axis=0)
        return int(np.count_nonzero(times)) <= self.lam and int(times.max(initial=0)) <= self.N


@dataclass(frozen=True)
class EitherInWindow:
    """Each window is allowed by at least one of the models, not always the same: the mixture that SR-SGC tolerates."""

    models: tuple[StragglerModel, ...]

    @property
    def window(self) -> int:
        # Shorter models look at every window of their own within the longest one.
        return max(model.window for model in self.models)

    def allows(self, window: np.ndarray) -> bool:
        return any(conforms(window, model) for model in self.models)


def conforms(pattern: np.ndarray, model: StragglerModel) -> bool:
    """Whether every window of the pattern (rounds, n) is allowed."""
    return all(model.allows(pattern[max(0, t + 1 - model.window) : t + 1]) for t in range(len(pattern)))


class History:
    """The pattern so far, compared with several models: it conforms while at least one model allows all of it."""

    def __init__(self, models: Sequence[StragglerModel], n: int) -> None:
        self._alive = list(models)
        self._rounds: list[np.ndarray] = []
        # A window that ends in the next round reaches back one round less than its length; older rounds are not needed.
        self._keep = max(model.window for model in models) - 1
        self._n = n

    def _allowed(self, stragglers: np.ndarray) -> list[StragglerModel]:
        rounds = [*self._rounds, stragglers]
        return [model for model in self._alive if model.allows(np.array(rounds[-model.window :]))]

    def allows(self, stragglers: np.ndarray) -> bool:
        """Whether the pattern still conforms with `stragglers` (n,) bool in the next round."""
        return bool(self._allowed(stragglers))

    def append(self, stragglers: np.ndarray) -> None:
        """Add a round to the pattern."""
        # If no model allows the round, all of them stay: with none left, no later round could conform.
        self._alive = self._allowed(stragglers) or self._alive
        self._rounds = [*self._rounds, stragglers][-self._keep :] if self._keep else []
