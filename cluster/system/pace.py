"""Keeps what is done now and then to a share of the time."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Pace:
    """Says when an action is due again, so that in the long run it takes at most `share` of the time by the clock.

    What the action does on several threads is added up.

    >>> pace = Pace(0.05)
    >>> pace.due()
    True
    >>> with pace.taking():
    ...     time.sleep(0.01)
    >>> pace.due()  # in 0.19 seconds
    False
    """

    def __init__(self, share: float) -> None:
        self._rest = 1 / share - 1  # seconds of rest after a second of the action
        self._until, self._running, self._lock = 0.0, 0, threading.Lock()

    @contextmanager
    def taking(self) -> Iterator[None]:
        """Within it the action, or a part of it, takes place."""
        begun = time.monotonic()
        with self._lock:
            self._running += 1
        try:
            yield
        finally:
            ended = time.monotonic()
            with self._lock:
                self._running -= 1
                self._until = max(self._until, ended) + self._rest * (ended - begun)

    def due(self) -> bool:
        """Whether the action may begin now."""
        return not self._running and time.monotonic() >= self._until
