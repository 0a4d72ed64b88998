"""Start-ups that are rare and very long decide long runs, and a short history hardly ever shows one: they are counted apart.

A start-up of EVENT seconds or more is an event. Events are never forgotten, and RATE of them per invocation, of SECONDS each,
are expected unless there is evidence of more (measured on serverless workers: 3e-4 to 8e-3 of 25 to 40 s).
"""

from collections import deque

import numpy as np

EVENT = 10.0  # seconds
RATE = 3e-4  # events per invocation, at least
SECONDS = 27.0  # of the event that is always expected
BODY = 4096  # latest start-ups that are no events
GOLDEN = 0.6180339887498949  # its multiples are spread over the unit interval
EVENTS = 1024  # latest events whose seconds are kept; all are counted


class Tail:
    """Distribution of the start-up of any invocation: the latest start-ups as they were, and events in their share."""

    def __init__(self) -> None:
        self.invocations = self.events = 0
        self._body = np.zeros(BODY)  # ring
        self._lengths: deque[float] = deque([SECONDS], maxlen=EVENTS)

    def add(self, startup: float) -> None:
        """Take in the start-up seconds of an invocation."""
        if startup >= EVENT:
            self.events += 1
            self._lengths.append(startup)
        else:
            self._body[(self.invocations - self.events) % BODY] = startup
        self.invocations += 1

    @property
    def rate(self) -> float:
        """Events per invocation."""
        return max(RATE, self.events / self.invocations) if self.invocations else RATE

    def quantiles(self, q: np.ndarray) -> np.ndarray:
        """Start-up seconds below which the fraction `q` (any shape, 0 to 1) of invocations lies; 0 for a body never seen."""
        body = np.sort(self._body[: max(1, self.invocations - self.events)])
        events = np.sort(np.array(self._lengths))
        usual = 1 - self.rate
        within = np.where(q < usual, q / max(usual, RATE), 0.0)
        beyond = (np.maximum(q, usual) - usual) / self.rate
        return np.where(q < usual, _inverse(body, within), _inverse(events, beyond))

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

    def draw(self, draws: np.random.Generator, size: int) -> np.ndarray:
        """(size,) start-up seconds."""
        return self.quantiles(draws.random(size))


def _inverse(values: np.ndarray, q: np.ndarray) -> np.ndarray:
    """The value of sorted `values` at each fraction of them."""
    chosen: np.ndarray = values[np.minimum((q * len(values)).astype(int), len(values) - 1)]
    return chosen
