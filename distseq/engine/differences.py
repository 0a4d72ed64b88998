"""How far a gradient is from another one, for each parameter alone: a small tensor's error must not vanish beside a large one."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

# Relative difference allowed by dtype: far above the rounding of sums in another order, far below what a sample that influences
# another one's loss changes.
TOLERANCE = {"float32": 1e-4, "float64": 1e-9}
# A tensor's difference is taken relative to its own size, but at least to this share of the whole gradient's: the gradient of an
# attention's key bias, for example, is zero but for rounding.
SHARE = 0.1
# Parameters are changed by this many units in the last place to see how much of a difference is rounding.
NUDGE = 4
# Differences up to this many times the effect of such a change are rounding: a product of many terms rounds in each of them.
ROUNDING = 10
# Not numpy's own number, which warns where a quotient by it is inf.
TINY = float(np.finfo(float).tiny)


class Difference(NamedTuple):
    """The largest difference of one parameter's gradient."""

    relative: float
    parameter: int  # its index among the trained ones


def largest(
    found: np.ndarray, expected: np.ndarray, sizes: Sequence[int], scales: Sequence[float] | None = None
) -> Difference:
    """The parameter whose gradient differs most, relative to its size in `expected`.

    found, expected: (P,) or longer; sizes: numbers in each parameter, P together; scales: sizes to compare with instead, of
    terms that may cancel. NaN counts as the largest.
    """
    edges = np.cumsum([0, *sizes])
    pieces = [slice(begin, end) for begin, end in pairwise(edges)]
    norms = [float(np.linalg.norm(expected[piece])) for piece in pieces]
    scale = norms if scales is None else [max(pair) for pair in zip(norms, scales, strict=True)]
    least = SHARE * float(np.linalg.norm(scale))
    relative = [
        # A gradient of zeros that is matched exactly differs by nothing.
        0.0 if off == 0 else off / max(own, least, TINY)
        for off, own in ((float(np.linalg.norm(found[p] - expected[p])), s) for p, s in zip(pieces, scale, strict=True))
    ]
    index = int(np.argmax(relative))  # of several NaNs the first: argmax takes NaN for the largest
    return Difference(relative[index], index)


def nudged(vector: np.ndarray) -> np.ndarray:
    """Parameters (P,) changed by a few units in their last place, each up or down."""
    signs = np.random.default_rng(0).choice(np.array([-NUDGE, NUDGE], vector.dtype), vector.shape)
    changed: np.ndarray = vector * (1 + signs * np.finfo(vector.dtype).eps)
    return changed


def is_rounding(found: np.ndarray, expected: np.ndarray, nudged: np.ndarray, index: int, sizes: Sequence[int]) -> bool:
    """Whether rounding explains how the gradient of parameter `index` differs from `expected`.

    nudged: the gradient at nudged parameters. Where that changes it as much as it differs, as at the minimum of a loss, whose
    gradient is rounding only, no more digits are to be had.
    """
    piece = slice(sum(sizes[:index]), sum(sizes[: index + 1]))
    off, noise = (float(np.linalg.norm(one[piece] - expected[piece])) for one in (found, nudged))
    return off <= ROUNDING * noise
