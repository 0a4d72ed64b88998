"""How long a worker will take: straggling is a lasting propensity of a host, so what it took lately says what it will take.

Averages are of logarithms, exponentially weighted with a half-life of HALF_LIFE invocations, of start-up and of compute per
unit of load apart. A worker that has not answered has taken at least as long as it has been waited for.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import exp, log
from typing import Any

import numpy as np

from distseq.cluster.pool import Delivery

HALF_LIFE = 5.0  # observations
DECAY = 0.5 ** (1 / HALF_LIFE)
LEAST = 1e-6  # seconds, or seconds per unit of load: what is less counts as this


@dataclass(slots=True)
class Average:
    """An exponentially weighted mean of logarithms."""

    weight: float = 0.0
    total: float = 0.0

    def add(self, value: float) -> None:
        self.weight = DECAY * self.weight + 1
        self.total = DECAY * self.total + log(max(value, LEAST))

    @property
    def mean(self) -> float | None:
        """Of the logarithms; None before the first value."""
        return self.total / self.weight if self.weight else None


@dataclass(slots=True)
class Host:
    """What is known of one host."""

    startup: Average = field(default_factory=Average)  # seconds
    compute: Average = field(default_factory=Average)  # seconds per unit of load


class Prediction:
    """Told what is sent and what arrives, stale or not; predicts per host. Loads are in units of a trace's slope: fraction of
    a batch times the job's cost. Seconds are pool time."""

    def __init__(self) -> None:
        self._hosts: dict[str, Host] = {}
        self._host: dict[int, str] = {}  # worker -> host
        self._since: dict[int, float] = {}  # worker -> when it was sent the work that it has not answered
        self._heard: dict[int, tuple[int, int]] = {}  # worker -> invocation and attempt heard of last

    def members(self, workers: Mapping[int, str]) -> None:
        """worker -> host, now. What is known of a host that is gone is forgotten."""
        moved = {worker for worker in self._since if workers.get(worker) != self._host.get(worker)}
        self._since = {worker: at for worker, at in self._since.items() if worker not in moved}
        self._host = dict(workers)
        staying = set(workers.values())
        self._hosts = {name: host for name, host in self._hosts.items() if name in staying}

    def record_sent(self, workers: Iterable[int], now: float) -> None:
        """New work for these workers. Who has not answered the work before has taken longer than this."""
        for worker in workers:
            since = self._since.get(worker)
            if since is not None:
                host = self._of(worker)
                silent, usual = now - since, host.startup.mean
                host.startup.add(silent if usual is None else max(silent, exp(usual)))
            self._since[worker] = now

    def record_delivery(self, delivery: Delivery, load: float) -> None:
        """A row, or word of work that went stale; `load` of the row, 0 where it is not known."""
        worker = delivery.task.worker
        self._host[worker] = delivery.host
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
        """The worker's message was given up when it had taken this long; a worker that was quicker than usual says nothing."""
        if worker in self._host:
            host = self._of(worker)
            if host.startup.mean is None or seconds > exp(host.startup.mean):
                host.startup.add(seconds)

    def expected(self, worker: int, load: float) -> float:
        """Seconds that a worker will take for this load in one message, to the microsecond; 0 when it has not been heard of."""
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
        """(n,) seconds, to the microsecond, that each worker is expected to take for this load in one message; who has not been
        heard of takes what the others take (nothing, if there are none), who has not answered yet at least as long as it has been
        silent."""
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
        """(n,) workers, the fastest first; equal ones by number."""
        return np.argsort(self.seconds(n, load, now), kind="stable")

    def _usual(self) -> tuple[float, float]:
        """Start-up seconds and seconds per unit of load: the geometric means over hosts."""
        averages = ([h.startup for h in self._hosts.values()], [h.compute for h in self._hosts.values()])
        means = [[one.mean for one in kind if one.mean is not None] for kind in averages]
        startup, compute = (exp(sum(kind) / len(kind)) if kind else 0.0 for kind in means)
        return startup, compute


def _to_the_microsecond(seconds: Any) -> Any:
    """So that rounding in the last digit makes no worker faster than another."""
    return np.floor(1e6 * seconds + 0.5) / 1e6
