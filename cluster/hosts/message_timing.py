"""How long messages took by the master's clock. A host that is stopped or starved cannot time itself."""

from collections import defaultdict
from typing import NamedTuple


class Mark(NamedTuple):
    """A moment of a host."""

    at: float  # pool time
    computed: float  # seconds that the host had computed in all, for all its workers


class MessageTimer:
    """Times the messages of each worker. A host does them in their order: one begins when it is sent or, if that is later,
    when the worker has answered the one before."""

    def __init__(self) -> None:
        self._computed: defaultdict[str, float] = defaultdict(float)  # host -> seconds
        # By (worker, host): invocations that are not answered yet, the last answer, and the invocation that is answered now,
        # with its beginning and whether it had queued.
        self._sent: defaultdict[tuple[int, str], dict[int, Mark]] = defaultdict(dict)
        self._answered: dict[tuple[int, str], Mark] = {}
        self._begun: dict[tuple[int, str], tuple[int, Mark, bool]] = {}

    def sent(self, worker: int, invocation: int, host: str, now: float) -> None:
        self._sent[worker, host][invocation] = Mark(now, self._computed[host])

    def answered(self, worker: int, invocation: int, host: str, compute: float, now: float) -> tuple[float, bool]:
        """Seconds of the message so far that no computing of its host accounts for, and whether it had to queue.

        `compute`: seconds of the row that has arrived.
        """
        key = (worker, host)
        if self._begun.get(key, (-1,))[0] != invocation:
            self._begin(key, invocation)
        self._computed[host] += compute
        _, begun, queued = self._begun[key]
        self._answered[key] = Mark(now, self._computed[host])
        return max(0.0, now - begun.at - (self._computed[host] - begun.computed)), queued

    def _begin(self, key: tuple[int, str], invocation: int) -> None:
        sent, last = self._sent[key].pop(invocation), self._answered.get(key)
        for older in [k for k in self._sent[key] if k < invocation]:
            del self._sent[key][older]
        queued = last is not None and last.at > sent.at
        self._begun[key] = (invocation, last if last is not None and queued else sent, queued)
