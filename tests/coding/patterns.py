"""Patterns of stragglers that conform to a model: all of them, or random ones."""

from collections.abc import Iterator
from itertools import product

import numpy as np

from distseq.coding.stragglers import StragglerModel


def patterns(model: StragglerModel, n: int, rounds: int) -> Iterator[np.ndarray]:
    """Every conforming pattern (rounds, n), by exhaustive search: for small n and few rounds only."""
    choices = [np.array(bits, dtype=bool) for bits in product((False, True), repeat=n)]

    def extend(prefix: list[np.ndarray]) -> Iterator[np.ndarray]:
        if len(prefix) == rounds:
            yield np.array(prefix)
            return
        for stragglers in choices:
            pattern = [*prefix, stragglers]
            if model.allows(np.array(pattern[-model.window :])):
                yield from extend(pattern)

    return extend([])


def random_pattern(model: StragglerModel, n: int, rounds: int, rate: float, draws: np.random.Generator) -> np.ndarray:
    """A conforming pattern (rounds, n): each round's stragglers are drawn at `rate` and thinned until the model allows them."""
    pattern = np.zeros((0, n), dtype=bool)
    for _ in range(rounds):
        wanted = draws.random(n) < rate
        candidate = np.vstack([pattern, np.zeros((1, n), dtype=bool)])
        for worker in draws.permutation(np.flatnonzero(wanted)):
            candidate[-1, worker] = True
            if not model.allows(candidate[-model.window :]):
                candidate[-1, worker] = False
        pattern = candidate
    return pattern
