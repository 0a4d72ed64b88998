"""Random numbers that are a function of (seed, epoch, event, slot), so that batches may be cut anywhere.

Shapes: n events, S slots.
"""

import numpy as np

# Steele, Lea and Flood (2014), SplitMix64: the increment of its counter (2^64 / golden ratio, odd) and the two factors of its
# finalizer in the variant of Stafford (mix 13).
STEP, FIRST, SECOND = (np.uint64(one) for one in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def bits(seed: int, epoch: int, events: np.ndarray, slots: np.ndarray) -> np.ndarray:
    """uint64 of the shape that events and slots broadcast to, uniform over all bits.

    events, slots: arrays of whole numbers. Each key is hashed into the state of the next: no sequence is shared between events,
    so an event has the same numbers in any batch, on any host.

    >>> whole = bits(0, 1, np.arange(4)[:, None], np.arange(2))
    >>> np.array_equal(whole[2:], bits(0, 1, np.array([[2], [3]]), np.arange(2)))
    True
    """
    state = np.zeros((), np.uint64)
    # Counters wrap around, as they should.
    with np.errstate(over="ignore"):
        for key in (seed, epoch, events, slots):
            # Two's complement: -1 is another key than 1.
            numbers = np.atleast_1d(np.asarray(key, np.int64)).view(np.uint64)
            state = _mixed(state + STEP * (numbers + np.uint64(1)))
    return state


def whole_numbers(random: np.ndarray, size: np.ndarray | int) -> np.ndarray:
    """int64 in [0, size) of the upper 32 of random bits (uint64), uniform up to size / 2^32; `size` broadcasts to them."""
    # A product, not a remainder: cheaper, and it uses the better mixed half.
    return (((random >> np.uint64(32)) * np.asarray(size, np.int64).astype(np.uint64)) >> np.uint64(32)).astype(
        np.int64
    )


def _mixed(state: np.ndarray) -> np.ndarray:
    state = (state ^ (state >> np.uint64(30))) * FIRST
    state = (state ^ (state >> np.uint64(27))) * SECOND
    mixed: np.ndarray = state ^ (state >> np.uint64(31))
    return mixed
