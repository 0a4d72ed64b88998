"""Start-ups that are rare and very long decide long runs, and a short history hardly ever shows one: they are counted apart.

A start-up of EVENT seconds or more is an event. Events are never forgotten, and RATE of them per invocation, of SECONDS each,
are expected unless there is evidence of more (measured on serverless workers: 3e-4 to 8e-3 of 25 to 40 s).
"""

from collections import deque

import numpy as np

EVENT = 10.0  # seconds
RATE = 3e-4  # events per invocation, at least
SECONDS = 27.0  # of the event that is always expected
GOLDEN = 0.6180339887498949  # its multiples are spread over the unit interval
EVENTS = 1024  # latest events whose seconds are kept; all are counted


class RareEvents:
    """How many start-ups are events, and how long those are."""

    def __init__(self) -> None:
        self.invocations = self.events = 0
        self._lengths: deque[float] = deque([SECONDS], maxlen=EVENTS)

    def add(self, startup: float) -> None:
        """Take in the start-up seconds of an invocation."""
        if startup >= EVENT:
            self.events += 1
            self._lengths.append(startup)
        self.invocations += 1

    @property
    def rate(self) -> float:
        """Events per invocation."""
        return max(RATE, self.events / self.invocations) if self.invocations else RATE

    def expected_in(self, table: np.ndarray) -> np.ndarray:
        """A table of start-up seconds with as many seconds of events as so many invocations are expected to have."""
        lacking = self.rate * table.size - np.count_nonzero(table >= EVENT)
        if lacking <= 0:
            return table
        count = int(np.ceil(lacking))
        places = np.floor(GOLDEN * np.arange(1, count + 1) % 1 * table.size).astype(int)
        table = table.copy()
        table.flat[places] += float(np.mean(self._lengths)) * lacking / count
        return table
