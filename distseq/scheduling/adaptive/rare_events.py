"""Counts rare, very long start-ups separately, and adds as many as are expected to a table of start-ups.

Such start-ups decide how long a long run takes, but a short history hardly ever shows one. A start-up of EVENT seconds or more
is an *event*. Events are never forgotten, and a floor of RATE events per invocation, SECONDS each, is assumed even where none
was seen.
"""

from collections import deque

import numpy as np

# Seconds from which a start-up counts as an event: far above usual ones (the recorded trace of docs/benchmarks.md has a median
# of 0.63 s), far below the events themselves.
EVENT = 10.0
# Measured on serverless workers: 3e-4 to 8e-3 events per invocation, of 25 to 40 s each. The floor is the mildest of these, so
# that a pool without events loses little by it.
RATE = 3e-4
SECONDS = 27.0
# Multiples of the golden ratio, modulo 1, spread evenly over the unit interval for any count: deterministic, unlike random
# draws, so that one table always gives one choice.
GOLDEN = 0.6180339887498949
EVENTS = 1024  # events whose lengths are kept for their mean; all are counted


class RareEvents:
    """The rate and the mean length of events among the start-ups seen so far."""

    def __init__(self) -> None:
        self.invocations = self.events = 0
        # Begins with the assumed event, so that the mean exists before the first one and moves only slowly with it.
        self._lengths: deque[float] = deque([SECONDS], maxlen=EVENTS)

    def add(self, startup: float) -> None:
        """Counts one invocation that started up in so many seconds."""
        if startup >= EVENT:
            self.events += 1
            self._lengths.append(startup)
        self.invocations += 1

    @property
    def rate(self) -> float:
        """Events per invocation: what was seen, but at least RATE."""
        return max(RATE, self.events / self.invocations) if self.invocations else RATE

    def expected_in(self, table: np.ndarray) -> np.ndarray:
        """A copy of a table of start-up seconds whose events sum to the seconds expected of that many invocations."""
        lacking = self.rate * table.size - np.count_nonzero(table >= EVENT)
        if lacking <= 0:
            return table
        # A table of 32 x 256 cells expects 2.5 events: whole events would make it 2 or 3, so each added one is scaled instead,
        # and the expected *sum* is exact.
        count = int(np.ceil(lacking))
        places = np.floor(GOLDEN * np.arange(1, count + 1) % 1 * table.size).astype(int)
        table = table.copy()
        table.flat[places] += float(np.mean(self._lengths)) * lacking / count
        return table
