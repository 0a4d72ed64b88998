"""Cuts a batch into a scheme's parts, and gives the samples and weights of each row.

The parts of all groups are cut at rounded cumulative shares of the job's sample ids, so that every host cuts a batch alike.
"""

from fractions import Fraction
from functools import cached_property, lru_cache
from itertools import accumulate

import numpy as np

from distseq.coding.plan import MiniTask
from distseq.coding.schemes.registry import parse
from distseq.coding.schemes.scheme import Scheme


class Layout:
    """The cut of a batch into the parts of every group of a scheme."""

    def __init__(self, scheme: Scheme) -> None:
        self.scheme = scheme
        sizes = [
            share / code.parts
            for share, code in zip(scheme.shares, scheme.codes, strict=True)
            for _ in range(code.parts)
        ]
        # Fractions: with floating-point sums, hosts of different processors could cut a batch at different samples.
        self._edges = [Fraction(0), *accumulate(sizes)]
        self._first = [0, *accumulate(code.parts for code in scheme.codes)]
        self._cuts: dict[int, np.ndarray] = {}

    def cuts(self, samples: int) -> np.ndarray:
        """(parts + 1,) positions at which a batch of `samples` is cut."""
        cuts = self._cuts.get(samples)
        if cuts is None:
            # Rounded half up, in integers: cumulative shares, so that rounding never adds up.
            edges = [(2 * e.numerator * samples + e.denominator) // (2 * e.denominator) for e in self._edges]
            cuts = np.array(edges)
            # One size only, that of nearly all batches of a run.
            self._cuts = {samples: cuts}
        return cuts

    def empty_parts(self, samples: int) -> int:
        """The number of parts without any sample, for a batch of `samples`."""
        return int(np.count_nonzero(np.diff(self.cuts(samples)) == 0))

    @cached_property
    def loads(self) -> list[list[float]]:
        """[group][worker] -> the fraction of the batch that the mini-task processes."""
        # Computed once for each kind of group: a pipelined job has dozens of equal groups.
        kinds = list(zip(self.scheme.shares, self.scheme.codes, strict=True))
        loads = {
            (share, code): [float(share * len(code.row(i)) / code.parts) for i in range(code.n)]
            for share, code in set(kinds)
        }
        return [loads[kind] for kind in kinds]

    def row(self, task: MiniTask, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sample ids (B,) and weights (B,) that a mini-task sums over, part after part."""
        cuts, first = self.cuts(len(ids)), self._first[task.group]
        # In the order of the code's row, which is the same for all replicas: sums in another order would have other bits.
        pieces = [(cuts[first + k], cuts[first + k + 1], c) for k, c in self.scheme.codes[task.group].row(task.worker)]
        chosen = [ids[begin:end] for begin, end, _ in pieces]
        weights = [np.full(end - begin, c) for begin, end, c in pieces]
        return np.concatenate(chosen), np.concatenate(weights)

    def combined(self, weights: dict[MiniTask, float], samples: int) -> np.ndarray:
        """(samples,): the weight of each sample in the weighted sum of rows. All are one if the weights decode."""
        cuts, total = self.cuts(samples), np.zeros(samples)
        for task, weight in weights.items():
            for k, c in self.scheme.codes[task.group].row(task.worker):
                part = self._first[task.group] + k
                total[cuts[part] : cuts[part + 1]] += weight * c
        return total


# Every mini-task looks its layout up. 64 schemes are far more than a run moves between.
@lru_cache(maxsize=64)
def layout(spec: str, n: int) -> Layout:
    """The layout of a scheme, given by its specification, on n workers. Cached."""
    return Layout(parse(spec, n))
