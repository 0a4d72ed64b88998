"""Random numbers keyed by event: pure functions of (seed, epoch, event, slot), the same whoever draws them and in which order.

The generator is SplitMix64 (Steele et al. 2014) used as a counter-based hash.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_STEP = np.uint64(0x9E3779B97F4A7C15)  # 2**64 divided by the golden ratio
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * _FIRST
    x ^= x >> np.uint64(27)
    x *= _SECOND
    x ^= x >> np.uint64(31)
    return x


def hashed(*keys: np.ndarray | int) -> np.ndarray:
    """uint64 numbers from integer keys that broadcast; the order of the keys matters.

    >>> int(hashed(1, 2)[()]) == int(hashed(2, 1)[()])
    False
    """
    x = np.zeros((), np.uint64)
    for key in keys:
        # Negative keys wrap; errstate because scalars, unlike arrays, warn about the intended overflow.
        with np.errstate(over="ignore"):
            x = _mix((x + _STEP) ^ np.asarray(key).astype(np.uint64))
    return x


@dataclass(frozen=True)
class Draws:
    """The random numbers of one epoch of one learner."""

    seed: int
    epoch: int = 0

    def integers(self, events: np.ndarray, slot: int, first: int, end: int) -> np.ndarray:
        """(Q,) int64 in first .. end - 1, uniform, one for each event."""
        span = np.uint64(end - first)
        return (hashed(self.seed, self.epoch, slot, events) % span).astype(np.int64) + first

    def kept(self, keys: tuple[np.ndarray, ...], slot: int, width: int, rate: float, dtype: torch.dtype) -> Tensor:
        """(Q, width) factors of dropout: 0 with probability `rate`, else 1 / (1 - rate)."""
        start = hashed(self.seed, self.epoch, slot, *keys)[:, None]
        with np.errstate(over="ignore"):
            x = _mix(start + _STEP * np.arange(1, width + 1, dtype=np.uint64))
        return torch.from_numpy(x >= np.uint64(rate * 2.0**64)).to(dtype) / (1 - rate)
