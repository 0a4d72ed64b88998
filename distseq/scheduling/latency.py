"""Predicts how long a worker will take from how long its host took lately.

Straggling is a lasting property of a host (docs/decisions/012). Start-up and compute per unit of load are averaged separately,
each as an exponentially weighted mean of logarithms. A worker that has not answered yet has taken at least as long as it has
been silent.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import exp, log
from typing import Any

import numpy as np

from distseq.cluster.pool import Delivery

# Observations after which the weight of one has halved. Area under the ROC curve for "slower than 1.3 times the median" on the
# recorded trace: 0.820 (0.75 with half-life 1; 0.83 with 20, which follows a change four times later), docs/decisions/012.
HALF_LIFE = 5.0
DECAY = 0.5 ** (1 / HALF_LIFE)
# Smaller values count as this many seconds (or seconds per unit of load): the logarithm of 0 is not finite.
LEAST = 1e-6


@dataclass(slots=True)
class Average:
    """An exponentially weighted mean of logarithms.

    Of logarithms because latencies are heavy-tailed: one 27 s start-up must not hide what the worker usually takes.
    """

    weight: float = 0.0
    total: float = 0.0

    def add(self, value: float) -> None:
        self.weight = DECAY * self.weight + 1
        self.total = DECAY * self.total + log(max(value, LEAST))

    @property
    def mean(self) -> float | None:
        """The mean logarithm; None before the first value."""
        return self.total / self.weight if self.weight else None


@dataclass(slots=True)
class Host:
    """The averages of one host."""

    startup: Average = field(default_factory=Average)  # seconds
    compute: Average = field(default_factory=Average)  # seconds per unit of load


class Prediction:
    """Predicts latencies per host from what was sent and what arrived, stale or not.

    Loads are in units of a trace's slope: fraction of a batch times the job's cost. Seconds are pool time.
    """

    def __init__(self) -> None:
        self._hosts: dict[str, Host] = {}
        self._host: dict[int, str] = {}  # worker -> host
        self._since: dict[int, float] = {}  # worker -> when it was sent the work that it has not answered yet
        self._heard: dict[int, tuple[int, int]] = {}  # worker -> invocation and attempt of its latest delivery

    def members(self, workers: Mapping[int, str]) -> None:
        """Updates worker -> host, and forgets hosts that are gone."""
        moved = {worker for worker in self._since if workers.get(worker) != self._host.get(worker)}
        self._since = {worker: at for worker, at in self._since.items() if worker not in moved}
        self._host = dict(workers)
        staying = set(workers.values())
        self._hosts = {name: host for name, host in self._hosts.items() if name in staying}

    def record_sent(self, workers: Iterable[int], now: float) -> None:
        """These workers were sent work."""
        for worker in workers:
            since = self._since.get(worker)
            # It has not answered the work before, so it has taken longer than this: under "lost" there is no other evidence of
            # the slowest workers (docs/decisions/012).
            if since is not None:
                host = self._of(worker)
                silent, usual = now - since, host.startup.mean
                host.startup.add(silent if usual is None else max(silent, exp(usual)))
            self._since[worker] = now

    def record_delivery(self, delivery: Delivery, load: float) -> None:
        """A row, or the report of a stale one, has arrived; `load` of the row, 0 where it is not known."""
        worker = delivery.task.worker
        self._host[worker] = delivery.host
        # Only an answer to the latest message ends its silence. 1e-9 s absorbs the rounding of the subtraction.
        if delivery.at - delivery.startup - delivery.compute > self._since.get(worker, np.inf) - 1e-9:
            del self._since[worker]
        host = self._of(worker)
        message = (delivery.invocation, delivery.attempt)
        if self._heard.get(worker) != message:
            self._heard[worker] = message
            host.startup.add(delivery.startup)
        if load > 0 and delivery.compute > 0:
            host.compute.add(delivery.compute / load)

    def record_cancelled(self, worker: int, seconds: float) -> None:
        """The worker's message was cancelled after `seconds`, without an answer."""
        if worker in self._host:
            host = self._of(worker)
            # A message that was cancelled sooner than usual says nothing about how long it would have taken.
            if host.startup.mean is None or seconds > exp(host.startup.mean):
                host.startup.add(seconds)

    def expected(self, worker: int, load: float) -> float:
        """Predicted seconds of a worker for one message of this load, rounded to microseconds; 0 if it never answered.

        0 sorts unknown workers first, so that every worker is tried.
        """
        host = self._hosts.get(self._host.get(worker, ""))
        if host is None or host.startup.mean is None:
            return 0.0
        compute = 0.0 if host.compute.mean is None else load * exp(host.compute.mean)
        return float(_to_the_microsecond(exp(host.startup.mean) + compute))

    def _of(self, worker: int) -> Host:
        name = self._host.get(worker, "")
        if name not in self._hosts:
            self._hosts[name] = Host()
        return self._hosts[name]

    def seconds(self, n: int, load: float, now: float) -> np.ndarray:
        """(n,) predicted seconds of each worker for one message of this load, rounded to microseconds.

        A worker that never answered is predicted at the geometric mean of the others (0 without any); one that is silent takes
        at least as long as it has been silent.
        """
        startup, compute = self._usual()
        times = np.empty(n)
        for worker in range(n):
            host = self._hosts.get(self._host.get(worker, ""))
            own = None if host is None else host.startup.mean
            unit = None if host is None else host.compute.mean
            first = startup if own is None else exp(own)
            silent = now - self._since.get(worker, now)
            times[worker] = max(first, silent) + load * (compute if unit is None else exp(unit))
        return np.asarray(_to_the_microsecond(times))

    def order(self, n: int, load: float, now: float) -> np.ndarray:
        """(n,) workers, fastest first; ties in ascending order."""
        return np.argsort(self.seconds(n, load, now), kind="stable")

    def _usual(self) -> tuple[float, float]:
        """Geometric means over hosts: start-up seconds, and seconds per unit of load."""
        averages = ([h.startup for h in self._hosts.values()], [h.compute for h in self._hosts.values()])
        means = [[one.mean for one in kind if one.mean is not None] for kind in averages]
        startup, compute = (exp(sum(kind) / len(kind)) if kind else 0.0 for kind in means)
        return startup, compute


def _to_the_microsecond(seconds: Any) -> Any:
    """Rounded to microseconds."""
    # The compiled replays compute the same logarithms in another order: without rounding, a last digit would make one worker
    # faster there and another here, and replays would differ from runs (docs/decisions/015).
    return np.floor(1e6 * seconds + 0.5) / 1e6
