"""Decides which rows of several learners may be computed in one vmap pass (distseq.gradients.stacked).

A host uses a pass only after a trial has shown that its rows are bit-identical to rows computed one by one, so that replicas
agree whichever way they were computed, and that it takes clearly less time (docs/decisions/017). Which operations run depends on
shapes, not on values, so each shape is tried once.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from distseq.cluster.pool import Payload
from distseq.cluster.system.cpu_time import timed
from distseq.cluster.work import RowRequest

# Standard deviation of the noise added to parameters for the second half of a trial. Large enough that no gradient is zero,
# which would make a wrong pass look right; small enough that the model still works as it was built to.
SPREAD = 0.02
# A pass must take at most this share of the CPU time of separate rows: its first row arrives only with its last, so a small gain
# would delay the whole job. docs/benchmarks.md (Passes) has the ratios of each layer; it is used from 1 / 0.8 = 1.25 on.
FASTER = 0.8
# Most parameters of a model that is stacked: larger ones keep a core busy alone, and a trial would hold dozens of copies.
LARGEST = 2**20

Rows = list[np.ndarray]
Compute = Callable[[Sequence[RowRequest]], Rows]


class PassTrials:
    """The outcome of trials: which shapes may be stacked, in which numbers, and with which learners.

    alone: computes rows one by one; together: computes them in one pass.
    """

    def __init__(self, alone: Compute, together: Compute) -> None:
        self._alone, self._together = alone, together
        self._passed: dict[Hashable, bool] = {}  # (shape, number of rows) -> outcome of its trial
        self._met: set[int] = set()  # learners that were in a successful trial

    def rows(self, shape: Hashable, requests: Sequence[RowRequest]) -> Rows:
        """The requested rows, all of one `shape`, in their order; in passes where trials allow it."""
        found: Rows = []
        # Powers of two, so that a shape needs three trials (2, 4, 8 rows) and not seven.
        for part in powers_of_two(requests):
            # A row that is not finite is computed again alone, which finds out and says which sample is to blame.
            rows = self._together(part) if len(part) > 1 and self.passed((shape, len(part)), part) else []
            found += rows if rows and np.isfinite([row.sum() for row in rows]).all() else self._alone(part)
        return found

    def passed(self, key: Hashable, requests: Sequence[RowRequest]) -> bool:
        """Whether these rows may be computed in one pass; tried now if the shape or one of the learners is new."""
        # A new learner of a known shape is tried, too: something that it holds beside parameters and buffers would show.
        learners = {each.payload.learner for each in requests}
        if self._passed.get(key, True) and not (key in self._passed and learners <= self._met):
            self._passed[key] = self._try(requests)
            self._met |= learners if self._passed[key] else set()
        return self._passed[key]

    def _try(self, requests: Sequence[RowRequest]) -> bool:
        """Compares a pass with separate rows twice, with the given and with disturbed parameters."""
        try:
            # Only the second comparison is timed: in the first one memory is allocated and libraries choose their algorithms.
            same = bits(self._alone(requests)) == bits(self._together(requests))
            others = disturbed(requests)
            expected, alone = timed(partial(self._alone, others))
            found, together = timed(partial(self._together, others))
        except Exception:  # a user's model may raise anything where its tensors are stacked
            return False
        return same and bits(expected) == bits(found) and together <= FASTER * alone


def bits(rows: Rows) -> list[bytes]:
    """The bytes of each row: unlike ==, they tell 0.0 from -0.0 and equal NaNs compare equal."""
    return [row.tobytes() for row in rows]


def powers_of_two(requests: Sequence[RowRequest]) -> Iterator[Sequence[RowRequest]]:
    """Splits requests into pieces whose lengths are powers of two, the largest first."""
    while requests:
        count = 1 << (len(requests).bit_length() - 1)
        yield requests[:count]
        requests = requests[count:]


def disturbed(requests: Sequence[RowRequest]) -> list[RowRequest]:
    """The same requests with noise added to their parameters."""

    # Seeded alike for every request, because rows of one job must have one set of parameters; the negative version keeps the
    # Work from taking them for the parameters that it has loaded.
    def other(one: Payload) -> Payload:
        added = SPREAD * np.random.default_rng(0).standard_normal(one.parameters.shape).astype(one.parameters.dtype)
        return replace(one, parameters=one.parameters + added, version=-1 - one.version)

    return [each._replace(payload=other(each.payload)) for each in requests]
