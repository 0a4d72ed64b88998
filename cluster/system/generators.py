"""The states of the global random generators of numpy and Python, and the lock of those who draw from any global generator.

Cheap enough to be compared around every row: numpy's own function takes 60 us, this one less than 1.
"""

import ctypes
import random
import threading
from typing import Any, NamedTuple

import numpy as np

# Held while rows or samples are computed under seeds, and while samples are read in another thread: without it the draws of
# one would fall among those of the other.
LOCK = threading.RLock()
WORDS = 624  # of the Mersenne Twister's state


class State(NamedTuple):
    """The states of numpy's and Python's global generators; equal if nothing was drawn in between."""

    numpy: Any
    python: Any


_seen = b""  # a state of numpy's generator that is known to hold no spare normal number


def state() -> State:
    """The present state."""
    return State(_numpy(), random.getstate())


def _numpy() -> Any:
    global _seen
    generator = np.random.get_bit_generator()  # type: ignore[attr-defined]  # a public function that lacks its stub
    # The user has set another kind of generator.
    if not isinstance(generator, np.random.MT19937):
        return np.random.get_state()
    raw = ctypes.string_at(generator.ctypes.state_address, 4 * (WORDS + 1))
    # Normal numbers come in pairs, and the second one is drawn without a trace in the twister's own state. It exists only
    # after a draw, which does leave a trace: one look is enough for as long as the state is the same.
    if raw != _seen:
        full: Any = np.random.get_state()
        if full[3]:
            return (raw, full[4])
        _seen = raw
    return (raw, None)


def restore(before: State) -> None:
    """Restores a state that `state` has returned."""
    global _seen
    # Drawing on from an earlier state may leave a spare number where there was none the last time.
    _seen = b""
    random.setstate(before.python)
    if len(before.numpy) != 2:
        np.random.set_state(before.numpy)
        return
    raw, spare = before.numpy
    words = np.frombuffer(raw, np.uint32)
    np.random.set_state(("MT19937", words[:WORDS], int(words[WORDS]), int(spare is not None), spare or 0.0))


def same(one: State, other: State) -> bool:
    """Whether two states are equal."""
    # repr, because a state of another kind of generator holds arrays, whose == is no truth value.
    return repr(one.numpy) == repr(other.numpy) if len(one.numpy) != 2 else one == other


def seed(number: int) -> None:
    """Seeds both generators; numpy's takes the lower 32 bits."""
    global _seen
    _seen = b""
    random.seed(number)
    np.random.seed(number % 2**32)
