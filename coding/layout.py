"""Cuts a batch into a scheme's parts, and gives the samples and weights of each row.

The parts of all groups are cut at rounded cumulative shares of the job's sample ids, so that every host cuts a batch alike.
A batch may also be cut into a fixed number of blocks, whatever the scheme: then parts are whole blocks.
"""

from fractions import Fraction
from functools import cached_property, lru_cache
from itertools import accumulate

import numpy as np

from distseq.coding.plan import MiniTask
from distseq.coding.schemes.registry import parse
from distseq.coding.schemes.scheme import Scheme


def block_edges(samples: int, blocks: int) -> np.ndarray:
    """(blocks + 1,) positions at which a batch of `samples` is cut into blocks, as np.array_split cuts it.

    >>> block_edges(10, 4).tolist()
    [0, 3, 6, 8, 10]
    """
    size, longer = divmod(samples, blocks)
    numbers = np.arange(blocks + 1)
    return numbers * size + np.minimum(numbers, longer)


def block_numbers(samples: int, blocks: int) -> np.ndarray:
    """(samples,) the block of each sample of a batch."""
    return np.repeat(np.arange(blocks), np.diff(block_edges(samples, blocks)))


def check_parts(whose: str, blocks: int, parts: int) -> None:
    """ValueError, with `whose` in front, when a batch that is cut into blocks has more parts than blocks."""
    if parts > blocks:
        raise ValueError(
            f"{whose}it draws random numbers, so its batch is cut into blocks={blocks}, but a job has {parts} parts, each of "
            f"whole blocks: set its blocks to {parts} or more (at most its batch), or schedule at most {blocks} parts"
        )


class Layout:
    """The cut of a batch into the parts of every group of a scheme.

    In all methods `blocks` is the number of blocks of the batch, 0 for a batch that is not cut into blocks.
    """

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
        self._cuts: dict[tuple[int, int], np.ndarray] = {}

    @property
    def parts(self) -> int:
        """The number of parts of all groups."""
        return self._first[-1]

    def cuts(self, samples: int, blocks: int = 0) -> np.ndarray:
        """(parts + 1,) positions at which a batch of `samples` is cut."""
        cuts = self._cuts.get((samples, blocks))
        if cuts is None:
            whole = blocks or samples
            # Rounded half up, in integers: cumulative shares, so that rounding never adds up.
            cuts = np.array([(2 * e.numerator * whole + e.denominator) // (2 * e.denominator) for e in self._edges])
            cuts = block_edges(samples, blocks)[cuts] if blocks else cuts
            # One size only, that of nearly all batches of a run.
            self._cuts = {(samples, blocks): cuts}
        return cuts

    def empty_parts(self, samples: int, blocks: int = 0) -> int:
        """The number of parts without any sample, for a batch of `samples`."""
        return int(np.count_nonzero(np.diff(self.cuts(samples, blocks)) == 0))

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

    def row(self, task: MiniTask, ids: np.ndarray, blocks: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Sample ids (B,) and weights (B,) that a mini-task sums over, part after part."""
        pieces = self._pieces(task, len(ids), blocks)
        weights = [np.full(end - begin, c) for begin, end, c in pieces]
        return np.concatenate([ids[begin:end] for begin, end, _ in pieces]), np.concatenate(weights)

    def row_blocks(self, task: MiniTask, samples: int, blocks: int) -> np.ndarray:
        """(B,) the block of each sample of a mini-task, in the order of `row`."""
        numbers = block_numbers(samples, blocks)
        return np.concatenate([numbers[begin:end] for begin, end, _ in self._pieces(task, samples, blocks)])

    def _pieces(self, task: MiniTask, samples: int, blocks: int) -> list[tuple[int, int, float]]:
        """(first position, position after the last one, weight) of each part of a row."""
        cuts, first = self.cuts(samples, blocks), self._first[task.group]
        # In the order of the code's row, which is the same for all replicas: sums in another order would have other bits.
        return [(cuts[first + k], cuts[first + k + 1], c) for k, c in self.scheme.codes[task.group].row(task.worker)]

    def combined(self, weights: dict[MiniTask, float], samples: int, blocks: int = 0) -> np.ndarray:
        """(samples,): the weight of each sample in the weighted sum of rows. All are one if the weights decode."""
        cuts, total = self.cuts(samples, blocks), np.zeros(samples)
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
