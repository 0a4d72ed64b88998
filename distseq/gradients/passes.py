"""Which rows of several learners are computed in one pass (distseq.gradients.stacked): those for which it has been tried.

A pass is used where it has given the very bits of rows computed one by one, so that replicas agree whoever uses it, in clearly
less time. Which operations run hangs on shapes and not on values, so a shape is tried once: with its parameters, and with
parameters disturbed at random, for a gradient of zeros says nothing.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from distseq.cluster.pool import Payload
from distseq.cluster.system.cpu_time import timed
from distseq.cluster.work import RowRequest

SPREAD = 0.02  # standard deviation of what is added to parameters for the second trial
# Of the time of rows alone, in which a pass must be done: its first row comes later than it would alone.
FASTER = 0.8
LARGEST = 2**20  # parameters of a model: larger ones keep a core busy alone, and a trial would hold dozens of copies

Rows = list[np.ndarray]
Compute = Callable[[Sequence[RowRequest]], Rows]


class PassTrials:
    """Which shapes, for how many rows, have passed, and with which learners."""

    def __init__(self, alone: Compute, together: Compute) -> None:
        self._alone, self._together = alone, together
        self._passed: dict[Hashable, bool] = {}
        self._met: set[int] = set()

    def rows(self, shape: Hashable, requests: Sequence[RowRequest]) -> Rows:
        """The rows, in passes of powers of two, so that few counts are tried; alone where that is as good, or one is not
        finite: then whoever computes it says why."""
        found: Rows = []
        for part in powers_of_two(requests):
            rows = self._together(part) if len(part) > 1 and self.passed((shape, len(part)), part) else []
            found += rows if rows and np.isfinite([row.sum() for row in rows]).all() else self._alone(part)
        return found

    def passed(self, key: Hashable, requests: Sequence[RowRequest]) -> bool:
        """What is known, or what a trial shows where the shape, or one of the learners, is new."""
        learners = {each.payload.learner for each in requests}
        if self._passed.get(key, True) and not (key in self._passed and learners <= self._met):
            self._passed[key] = self._try(requests)
            self._met |= learners if self._passed[key] else set()
        return self._passed[key]

    def _try(self, requests: Sequence[RowRequest]) -> bool:
        """The first time memory is got and libraries choose, so the second, with disturbed parameters, is timed."""
        try:
            same = bits(self._alone(requests)) == bits(self._together(requests))
            others = disturbed(requests)
            expected, alone = timed(partial(self._alone, others))
            found, together = timed(partial(self._together, others))
        except Exception:  # a user's model may raise anything where its tensors are stacked
            return False
        return same and bits(expected) == bits(found) and together <= FASTER * alone


def bits(rows: Rows) -> list[bytes]:
    return [row.tobytes() for row in rows]


def powers_of_two(requests: Sequence[RowRequest]) -> Iterator[Sequence[RowRequest]]:
    """Pieces whose lengths are powers of two, the largest first."""
    while requests:
        count = 1 << (len(requests).bit_length() - 1)
        yield requests[:count]
        requests = requests[count:]


def disturbed(requests: Sequence[RowRequest]) -> list[RowRequest]:
    """The same of other parameters, as another version of the job: rows of one job have the same."""

    def other(one: Payload) -> Payload:
        added = SPREAD * np.random.default_rng(0).standard_normal(one.parameters.shape).astype(one.parameters.dtype)
        return replace(one, parameters=one.parameters + added, version=-1 - one.version)

    return [each._replace(payload=other(each.payload)) for each in requests]
