"""Decides which rows of several learners may be computed in one vmap pass (distseq.gradients.stacked).

A host uses a pass only after a trial has shown that its rows are bit-identical to rows computed one by one, so that replicas
agree whichever way they were computed, and that it takes clearly less time (docs/decisions/017). Which operations run depends on
shapes, not on values, so each shape is tried once.

A trial adds at most one pass to a call: the rows that are asked for are computed one by one, which they must be anyway, and one
more step of the trial follows. Rows that take long are never tried, since stacking saves calls and not arithmetic.
"""

from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
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

# CPU seconds of one row beyond which its shape is not tried: a trial would cost more than the calls that a pass saves.
LONG = 0.1

Rows = list[np.ndarray]
Trial = Generator[None, None, bool]  # a step for each `next`, then the outcome
Compute = Callable[[Sequence[RowRequest]], Rows]


class PassTrials:
    """The outcome of trials: which shapes may be stacked, in which numbers, and with which learners.

    alone: computes rows one by one; together: computes them in one pass.
    """

    def __init__(self, alone: Compute, together: Compute) -> None:
        self._alone, self._together = alone, together
        self._passed: dict[Hashable, bool] = {}  # (shape, number of rows) -> outcome of its trials so far
        self._trials: dict[
            Hashable, tuple[set[int], Trial]
        ] = {}  # the same -> learners and steps of a trial that goes on
        self._met: set[int] = set()  # learners that were in a successful trial

    def rows(self, shape: Hashable, requests: Sequence[RowRequest]) -> Rows:
        """The requested rows, all of one `shape`, in their order; in passes where trials allow it."""
        found: Rows = []
        # Powers of two, so that a shape needs three trials (2, 4, 8 rows) and not seven.
        for part in powers_of_two(requests):
            key = (shape, len(part))
            # A row that is not finite is computed again alone, which finds out and says which sample is to blame.
            rows = self._together(part) if self.passed(key, part) else []
            if rows and np.isfinite([row.sum() for row in rows]).all():
                found += rows
                continue
            alone, seconds = timed(partial(self._alone, part))
            found += alone
            if not rows and len(part) > 1 and self._passed.get(key, True):
                self._advance(key, part, alone, seconds)
        return found

    def passed(self, key: Hashable, requests: Sequence[RowRequest]) -> bool:
        """Whether these rows may be computed in one pass: their shape and each of their learners was tried."""
        # A new learner of a known shape is tried, too: something that it holds beside parameters and buffers would show.
        return self._passed.get(key, False) and {each.payload.learner for each in requests} <= self._met

    def _advance(self, key: Hashable, requests: Sequence[RowRequest], alone: Rows, seconds: float) -> None:
        """The next step of the trial of a shape, or the first one of a new trial, of these requests.

        `alone`: their rows; `seconds`: CPU time that these took.
        """
        if seconds > LONG * len(requests):
            self._end(key, set(), False)
            return
        learners = {each.payload.learner for each in requests}
        learners, trial = self._trials.setdefault(key, (learners, self._trial(requests, alone)))
        try:
            next(trial)
        except StopIteration as outcome:
            self._end(key, learners, outcome.value)
        except Exception:  # a user's model may raise anything where its tensors are stacked
            self._end(key, learners, False)

    def _end(self, key: Hashable, learners: set[int], passed: bool) -> None:
        self._trials.pop(key, None)
        self._passed[key] = passed
        self._met |= learners if passed else set()

    def _trial(self, requests: Sequence[RowRequest], alone: Rows) -> Trial:
        """Compares a pass with separate rows twice, with the given and with disturbed parameters. Each step is one pass."""
        # Only the second comparison is timed: in the first one memory is allocated and libraries choose their algorithms.
        if bits(alone) != bits(self._together(requests)):
            return False
        yield
        others = disturbed(requests)
        expected, apart = timed(partial(self._alone, others))
        yield
        found, together = timed(partial(self._together, others))
        return bits(expected) == bits(found) and together <= FASTER * apart


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
