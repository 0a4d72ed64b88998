"""Dense gradient codes, decoded in the null space; among them the cyclic code (Tandon et al. 2017)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property, lru_cache
from itertools import combinations
from math import comb, inf

import numpy as np

from distseq.coding.codes.gradient_code import Shortage, check_range

# Largest |a^T B - 1| of a decode. Well-conditioned sets of rows leave 1e-9 at n = 256, s = 27; a set that does not decode leaves
# errors of order 1, which are wrong gradients, so the exact threshold matters little.
RESIDUAL = 1e-6
# Decode weights kept, by set of rows. Straggler patterns repeat; at n = 256 a solve takes .2 ms (docs/benchmarks.md) and a vector
# 2 kB, so the cache takes 8 MB at most.
CACHED_DECODES = 4096
# Pairs of stragglers that are measured at once: weights of 4,096 x n take 8 MB at n = 256.
PAIRS = 4096


@dataclass(frozen=True, eq=False)
class DenseCode:
    """A dense code given by its matrix B (n, parts), any n - s rows of which span the all-ones row.

    Decode weights are a = a0 + N z, where a0^T B = 1^T, the columns of N span the left null space of B, and z makes a vanish on
    the stragglers.
    """

    # Solving for z has at most s unknowns instead of n: at n = 256, s = 27 it takes .2 ms (docs/benchmarks.md), where least
    # squares for a takes 5 to 11 ms (one thread), with the same condition number. a0 and N depend on B alone.

    B: np.ndarray = field(repr=False)  # (n, parts)
    s: int

    def __post_init__(self) -> None:
        check_range(len(self.B), self.s)

    @property
    def n(self) -> int:
        return len(self.B)

    @property
    def parts(self) -> int:
        return int(self.B.shape[1])

    @cached_property
    def load(self) -> Fraction:
        return Fraction(int(np.count_nonzero(self.B, axis=1).max()), self.parts)

    def row(self, worker: int) -> tuple[tuple[int, float], ...]:
        return tuple((int(k), float(self.B[worker, k])) for k in np.flatnonzero(self.B[worker]))

    def shortage(self, has: np.ndarray) -> Shortage | None:
        need = self.n - self.s - int(np.count_nonzero(has))
        return Shortage(~has, need) if need > 0 else None

    def amplified(self, has: np.ndarray) -> float:
        try:
            return float(np.abs(self.decode(has)) @ self._sizes) / self.parts
        except ValueError:
            return inf

    @cached_property
    def _sizes(self) -> np.ndarray:
        """(n,) |B_i|_1."""
        sizes: np.ndarray = np.abs(self.B).sum(axis=1)
        return sizes

    @cached_property
    def _solutions(self) -> tuple[np.ndarray, np.ndarray]:
        """a0 (n,), the solution of least norm, and N (n, nullity); every decoder of the full set of rows is a0 + N z."""
        # By the singular value decomposition, which gives both; the rank is numerical, with the usual bound n eps times 8.
        u, singular, vt = np.linalg.svd(self.B)
        rank = int(np.count_nonzero(singular > singular[0] * self.n * np.finfo(float).eps * 8))
        a0 = u[:, :rank] @ ((vt[:rank] @ np.ones(self.parts)) / singular[:rank])
        return a0, u[:, rank:]

    @cached_property
    def _cached(self) -> Callable[[bytes], np.ndarray]:
        return lru_cache(maxsize=CACHED_DECODES)(self._decode)

    def _decode(self, packed: bytes) -> np.ndarray:
        has = np.unpackbits(np.frombuffer(packed, dtype=np.uint8), count=self.n).astype(bool)
        a0, null = self._solutions
        weights = a0
        if not has.all():
            # Without a null space there is nothing that could make a vanish on a straggler: s is 0.
            if not null.shape[1]:
                raise ValueError("this code decodes only from all of its rows")
            z = np.linalg.lstsq(null[~has], -a0[~has], rcond=None)[0]
            weights = a0 + null @ z
        # Exactly zero on stragglers, whose rows are not there to be multiplied. The residual is checked with these weights, and
        # is the only sign of rows that do not decode: the least-squares solution exists for any rows.
        weights = np.where(has, weights, 0.0)
        residual = float(np.abs(weights @ self.B - 1.0).max())
        if not residual <= RESIDUAL:
            raise ValueError(
                f"rows of {int(has.sum())} of {self.n} workers do not decode: |a^T B - 1| = {residual:.1e} > {RESIDUAL:.0e}"
            )
        # The cache hands out the same array to every caller.
        weights.setflags(write=False)
        return weights

    # Packed to bytes, an array can be a key of the cache.
    def decode(self, has: np.ndarray) -> np.ndarray:
        return self._cached(np.packbits(has).tobytes())

    @cached_property
    def amplification(self) -> float:
        """The largest `amplified` over straggler sets: over all of them for s <= 2 or where they are few, else a selection.

        ValueError if one of them does not decode accurately.
        """
        found = max(
            float(np.abs(self.decode(has)) @ self._sizes) / self.parts for has in _straggler_sets(self.n, self.s)
        )
        return max(found, self._of_pairs()) if self.s == 2 else found

    def _of_pairs(self) -> float:
        """The largest `amplified` over all pairs of stragglers."""
        # All pairs at once: their number grows with n^2, and a decode of each would take seconds from n = 128 on. Of 2,016 pairs
        # at n = 64 the worst amplifies 1.6e5 times, where 64 random ones and all neighbours amplify 296 times at most.
        (a0, null), worst = self._solutions, 0.0
        one, other = np.triu_indices(self.n, 1)
        for begin in range(0, len(one), PAIRS):
            lost = np.stack([one[begin : begin + PAIRS], other[begin : begin + PAIRS]], 1)
            try:
                # Two equations in two unknowns; a null space of more columns leaves freedom that `decode` uses.
                solve = np.linalg.solve if null.shape[1] == 2 else _least
                weights = a0 + solve(null[lost], -a0[lost][..., None])[..., 0] @ null.T
            except np.linalg.LinAlgError:
                weights = np.full((len(lost), self.n), np.nan)
            # What is left on the stragglers, whose rows are not there, is the error of the decode, in units of their sizes.
            left = np.abs(np.take_along_axis(weights, lost, 1)) * self._sizes[lost]
            if not float(left.max()) <= RESIDUAL:
                raise ValueError(f"some pair of stragglers of {self.n} workers does not decode")
            np.put_along_axis(weights, lost, 0.0, 1)
            worst = max(worst, float((np.abs(weights) @ self._sizes).max()) / self.parts)
        return worst


def _least(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    solutions: np.ndarray = np.linalg.pinv(matrices) @ vectors
    return solutions


def _straggler_sets(n: int, s: int) -> list[np.ndarray]:
    """Masks (n,) bool of the surviving workers, for which a code is measured."""
    # All sets up to 2,000. Otherwise none missing, all bursts of neighbours, whose rows share most of their parts, and 64 random
    # sets, which stand for the usual ones.
    if comb(n, s) <= 2000:
        stragglers = [list(c) for size in range(s + 1) for c in combinations(range(n), size)]
    else:
        draws = np.random.default_rng([n, s])
        bursts = [[(i + j) % n for j in range(s)] for i in range(n)]
        stragglers = [[], *bursts, *(list(draws.choice(n, s, replace=False)) for _ in range(64))]
    masks = []
    for lost in stragglers:
        has = np.ones(n, dtype=bool)
        has[lost] = False
        masks.append(has)
    return masks


def cyclic_matrix(n: int, s: int, seed: int) -> np.ndarray:
    """B (n, n) of the cyclic (n, s) code: row i is supported on parts i to i + s modulo n (Tandon et al. 2017, Alg. 2)."""
    # H would have no rows.
    if s == 0:
        return np.eye(n)
    # H has rows of sum zero, so the all-ones vector is in its null space. Each row of B is a vector of that null space with the
    # required support, and any n - s rows span it, hence the all-ones row.
    H = np.random.default_rng([n, s, seed]).standard_normal((s, n))
    H[:, -1] = -H[:, :-1].sum(axis=1)
    B = np.zeros((n, n))
    for i in range(n):
        others = [(i + j) % n for j in range(1, s + 1)]
        B[i, i] = 1.0
        B[i, others] = -np.linalg.solve(H[:, others], H[:, i])
    return B


class Cyclic(DenseCode):
    """The cyclic (n, s) code, the best of eight random draws."""

    def __init__(self, n: int, s: int) -> None:
        check_range(n, s)
        # Draws differ: at n = 256, s = 27 the eight amplify 4e4 to 5e6 times. For s <= 3, where the code is usable in
        # float32, they are compared by their amplification; beyond that by the largest coefficient, which takes no decoding.
        draws = [cyclic_matrix(n, s, seed) for seed in range(8)]
        super().__init__(min(draws, key=lambda B: _measured(B, s) if s <= 3 else float(np.abs(B).max())), s)


def _measured(B: np.ndarray, s: int) -> float:
    """Amplification of a draw; infinite if it does not decode accurately from each measured straggler set."""
    try:
        return DenseCode(B, s).amplification
    except ValueError:
        return inf
