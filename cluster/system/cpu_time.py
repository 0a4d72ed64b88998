"""How long something took this thread to compute."""

import time
from collections.abc import Callable
from typing import TypeVar

V = TypeVar("V")


def timed(action: Callable[[], V]) -> tuple[V, float]:
    """What it returns, and the seconds that this thread was computing, which do not depend on who else was."""
    begun = time.thread_time()
    found = action()
    return found, time.thread_time() - begun
