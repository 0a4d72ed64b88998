"""Times messages by the master's clock, because a host that is stopped or starved cannot time itself."""

from collections import defaultdict
from typing import NamedTuple

# Messages of a worker whose sending is remembered. One whose jobs are over before it starts is never answered, and a worker that
# is always too late would collect them without end.
REMEMBERED = 1024


class Mark(NamedTuple):
    """A point in time, and how much a host had computed by then."""

    at: float  # pool time
    computed: float  # seconds computed so far, for all workers of the host


class MessageTimer:
    """Times the messages of each worker.

    A worker processes them in order: a message starts when it is sent or, if that is later, when the previous one is answered.
    """

    def __init__(self) -> None:
        self._computed: defaultdict[str, float] = defaultdict(float)  # host -> seconds
        # All by (worker, host), not by worker alone: after a death the same worker number is on another host, whose computing
        # says nothing about the first. `_begun` is the invocation being answered: its start, and whether it queued.
        self._sent: defaultdict[tuple[int, str], dict[int, Mark]] = defaultdict(dict)
        self._answered: dict[tuple[int, str], Mark] = {}
        self._begun: dict[tuple[int, str], tuple[int, Mark, bool]] = {}

    def sent(self, worker: int, invocation: int, host: str, now: float) -> None:
        sent = self._sent[worker, host]
        sent[invocation] = Mark(now, self._computed[host])
        if len(sent) > REMEMBERED:
            del sent[next(iter(sent))]

    def answered(self, worker: int, invocation: int, host: str, compute: float, now: float) -> tuple[float, bool]:
        """Seconds of the message so far in which its host was not computing, and whether it had to queue.

        `compute`: seconds of the row that has arrived.
        """
        key = (worker, host)
        if self._begun.get(key, (-1,))[0] != invocation:
            self._begin(key, invocation, now)
        self._computed[host] += compute
        _, begun, queued = self._begun[key]
        self._answered[key] = Mark(now, self._computed[host])
        # Computing for the host's other workers is subtracted too: they share one compute lock, so waiting for it is no delay
        # of the machine. Clamped at 0, since computing is timed on another clock and may exceed the elapsed time by noise.
        return max(0.0, now - begun.at - (self._computed[host] - begun.computed)), queued

    def _begin(self, key: tuple[int, str], invocation: int, now: float) -> None:
        last = self._answered.get(key)
        sent = self._sent[key].pop(invocation, Mark(now, self._computed[key[1]]))
        # A worker answers in order, so an older message that is still here was cancelled as a whole and never answers.
        for older in [k for k in self._sent[key] if k < invocation]:
            del self._sent[key][older]
        # A message that was sent while its worker still answered an earlier one starts when that one is answered.
        queued = last is not None and last.at > sent.at
        self._begun[key] = (invocation, last if last is not None and queued else sent, queued)
