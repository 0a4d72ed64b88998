"""Measures the CPU time of a call."""

import time
from collections.abc import Callable
from typing import TypeVar

V = TypeVar("V")


def timed(action: Callable[[], V]) -> tuple[V, float]:
    """The action's result, and the CPU seconds that this thread spent on it."""
    # CPU time, since wall-clock time would also count other processes: two ways of computing are compared on busy machines.
    begun = time.thread_time()
    result = action()
    return result, time.thread_time() - begun
