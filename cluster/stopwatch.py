"""How long messages took by the master's clock. A host that is stopped or starved cannot time itself."""

from collections import defaultdict
from typing import NamedTuple


class Mark(NamedTuple):
    """A moment of a host."""

    at: float  # pool time
    host: str
    computed: float  # seconds that the host had computed in all, for all its workers


class Stopwatch:
    """Times the messages of each worker, which it does in their order: one begins when it is sent or, if that is later, when
    the worker has answered the one before."""

    def __init__(self) -> None:
        self._computed: defaultdict[str, float] = defaultdict(float)  # host -> seconds
        self._sent: defaultdict[int, dict[int, Mark]] = defaultdict(dict)  # worker -> invocation, not answered yet
        self._answered: dict[int, Mark] = {}  # worker -> its last answer
        self._begun: dict[int, tuple[int, Mark, bool]] = {}  # worker -> invocation, its beginning, whether it had queued

    def sent(self, worker: int, invocation: int, host: str, now: float) -> None:
        self._sent[worker][invocation] = Mark(now, host, self._computed[host])

    def answered(self, worker: int, invocation: int, host: str, compute: float, now: float) -> tuple[float, bool]:
        """Seconds of the message so far that no computing of its host accounts for, and whether it had to queue.

        `compute`: seconds of the row that has arrived.
        """
        if self._begun.get(worker, (-1,))[0] != invocation:
            self._begin(worker, invocation)
        self._computed[host] += compute
        _, begun, queued = self._begun[worker]
        computed = self._computed[host] - begun.computed if host == begun.host else compute
        self._answered[worker] = Mark(now, host, self._computed[host])
        return max(0.0, now - begun.at - computed), queued

    def _begin(self, worker: int, invocation: int) -> None:
        sent, last = self._sent[worker].pop(invocation), self._answered.get(worker)
        for older in [k for k in self._sent[worker] if k < invocation]:
            del self._sent[worker][older]
        queued = last is not None and last.at > sent.at
        self._begun[worker] = (invocation, last if last is not None and queued else sent, queued)
