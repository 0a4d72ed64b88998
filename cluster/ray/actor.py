"""The actor of one host: it runs the worker loop, and adds rows that stayed in the object store."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import ray

from distseq.cluster.hosts.host_loop import HostLoop
from distseq.cluster.hosts.messages import Answer, Command, Publish, Report
from distseq.cluster.hosts.transport import verified
from distseq.cluster.ray.metrics import HostMeter
from distseq.cluster.reduction import sum_in_place
from distseq.cluster.work import WorkSpec

# Threads of an actor, by the kind of call. "answers" blocks until there is an answer and "sums" computes; a cancellation, which
# comes through "control", must wait for neither.
GROUPS = {"control": 1, "answers": 1, "sums": 1}


class RemoteRow(NamedTuple):
    """A row that stays in the object store of the node that computed it."""

    reference: Any
    length: int


@dataclass(frozen=True)
class RemoteVector:
    """A vector in the object store, of the state that a learner carries: it is read by the hosts that need it."""

    reference: Any

    def __call__(self) -> np.ndarray:
        vector: np.ndarray = ray.get(self.reference)
        return vector


class Host:
    """The actor of one host."""

    def __init__(self, spec: WorkSpec, name: str, inline: int) -> None:
        self._loop, self._inline, self._meter = HostLoop(spec), inline, HostMeter(name)

    def pid(self) -> int:
        """Process id, once the Work is loaded or has failed to load."""
        self._loop.wait_loaded()
        return os.getpid()

    def post(self, commands: list[Command], published: Mapping[int, list[Any]]) -> None:
        """Publish payloads, given as job -> [reference], then pass on the commands."""
        # Each reference is in a list, because Ray fetches references that are arguments themselves before it calls: a payload is
        # fetched by the worker loop instead, and only if a row of its job is computed here.
        self._loop.post([Publish(job, lambda ref=boxed[0]: ray.get(ref)) for job, boxed in published.items()])  # type: ignore[misc]
        self._loop.post(commands)

    def answers(self) -> list[Report]:
        """The next batch of answers; the first one comes once the Work is loaded or has failed to load."""
        self._loop.wait_loaded()
        return [self._outgoing(answer) for answer in self._loop.gather()]

    def _outgoing(self, answer: Report) -> Report:
        if not isinstance(answer, Answer) or answer.row is None:
            return answer
        self._meter.row(answer.compute)
        if answer.row.nbytes <= self._inline:
            return answer
        return answer._replace(row=RemoteRow(ray.put(answer.row), len(answer.row)))

    def add(self, names: list[str], weights: list[float], digests: list[int | None], *rows: np.ndarray) -> np.ndarray:
        """The weighted sum of a block of rows. Those with a digest, which are no sums yet, are verified."""
        intact = [
            row if sent is None else verified(name, row, sent)
            for name, row, sent in zip(names, rows, digests, strict=True)
        ]
        return sum_in_place(list(zip(weights, intact, strict=True)))
