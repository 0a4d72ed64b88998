"""Synthetic sequences that test memory: words of a permutation group, recall of key-value pairs.

Sample `id` is drawn from a generator seeded by (seed, id), so every host generates the same one.
"""

from collections.abc import Callable
from hashlib import sha256
from itertools import permutations

import numpy as np
import torch

from distseq.models.data.dataset import check_ids
from distseq.models.sequence import IGNORED

Sample = tuple[np.ndarray, np.ndarray]  # inputs and targets, each (T,) int64


class Drawn:
    """Samples 0 to samples - 1, each drawn by `draw` from a generator of its own.

    `name` is part of the fingerprint and must contain everything that decides what the samples are.
    """

    def __init__(self, name: str, samples: int, seed: int, draw: Callable[[np.random.Generator], Sample]) -> None:
        if samples < 1:
            raise ValueError(f"{name} needs samples >= 1: got {samples}")
        self.fingerprint = sha256(f"{name}, {samples} samples of seed {seed}".encode()).hexdigest()
        self._samples, self._seed, self._draw = samples, seed, draw

    def __len__(self) -> int:
        return self._samples

    def batch(self, indices: np.ndarray) -> dict[str, torch.Tensor]:
        """Inputs and targets, each (B, T) int64."""
        check_ids(indices, self._samples)
        drawn = [self._draw(np.random.default_rng([self._seed, int(index)])) for index in indices]
        inputs, targets = (torch.from_numpy(np.stack(each)) for each in zip(*drawn, strict=True))
        return {"inputs": inputs, "targets": targets}


def group_words(points: int = 3, length: int = 16, samples: int = 100_000, seed: int = 0) -> Drawn:
    """Words of the symmetric group of `points`: symbols are its elements, and the target of a step is the product so far.

    Products in S3, the smallest group that does not commute, depend on the order of symbols. S5 is not solvable, which bounds
    what diagonal recurrences can track (Merrill et al. 2024). ValueError for other than 2 to 5 points, or a length below 1.
    """
    if not 2 <= points <= 5 or length < 1:
        raise ValueError(f"group words need 2 to 5 points and a length >= 1: got points={points}, length={length}")
    elements = np.array(list(permutations(range(points))))
    number = {tuple(element): at for at, element in enumerate(elements.tolist())}
    product = np.array(
        [[number[tuple(one[other])] for other in elements] for one in elements]
    )  # [one, other]: other first

    def draw(draws: np.random.Generator) -> Sample:
        word = draws.integers(len(elements), size=length)
        so_far = [int(word[0])]
        for symbol in word[1:]:
            so_far.append(int(product[symbol, so_far[-1]]))
        return word, np.array(so_far)

    return Drawn(f"words of S{points} of length {length}", samples, seed, draw)


def associative_recall(
    pairs: int = 8, length: int = 64, keys: int = 32, values: int = 32, samples: int = 100_000, seed: int = 0
) -> Drawn:
    """Multi-query associative recall (Arora et al. 2023): `pairs` of key and value, then each key again among fillers.

    Symbol 0 is the filler; the next `keys` symbols are keys, the next `values` are values. The target of a repeated key is its
    value; all other steps are ignored. ValueError for sizes that do not fit.
    """
    if pairs < 1 or values < 1 or keys < pairs or length < 3 * pairs:
        raise ValueError(
            f"recall needs 1 <= pairs <= keys, values >= 1 and length >= 3 pairs: "
            f"got pairs={pairs}, keys={keys}, values={values}, length={length}"
        )
    places = length - 2 * pairs
    # A power law, as in the paper: most queries come soon after the pairs, as repetitions in text do.
    chance = np.arange(1, places + 1) ** -0.9
    chance /= chance.sum()

    def draw(draws: np.random.Generator) -> Sample:
        chosen, answers = 1 + draws.choice(keys, pairs, replace=False), 1 + keys + draws.integers(values, size=pairs)
        at = 2 * pairs + draws.choice(places, pairs, replace=False, p=chance)
        inputs, targets = np.zeros(length, dtype=np.int64), np.full(length, IGNORED)
        inputs[0 : 2 * pairs : 2], inputs[1 : 2 * pairs : 2] = chosen, answers
        inputs[at], targets[at] = chosen, answers
        return inputs, targets

    return Drawn(f"recall of {pairs} of {keys} keys and {values} values in {length} steps", samples, seed, draw)
