"""Gradient codes by name, and the check that rounding stays small under a dense one."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from distseq.coding.codes.cyclic import (
    Cyclic,
)
from distseq.coding.codes.fractional_repetition import FractionalRepetition
from distseq.coding.codes.gradient_code import GradientCode

CODES: dict[str, Callable[[int, int], GradientCode]] = {"fr": FractionalRepetition, "cyclic": Cyclic}


@lru_cache(maxsize=256)
def make_code(kind: str, n: int, s: int) -> GradientCode:
    """The (n, s) code of a kind, one object per code; with s = 0 every kind is the uncoded one: n parts, one each.

    ValueError for an unknown kind.
    """
    if kind not in CODES:
        raise ValueError(f"unknown code {kind!r}; known: {', '.join(CODES)}")
    return CODES["fr" if s == 0 else kind](n, s)


def check_precision(code: GradientCode, dtype: np.dtype, tolerance: float = 1e-3) -> None:
    """Refuse (ValueError) a code that would amplify the rounding of rows of `dtype` beyond `tolerance`, relative."""
    loss = code.amplification * float(np.finfo(dtype).eps)
    if loss > tolerance:
        raise ValueError(
            f"a dense code with n={code.n}, s={code.s} amplifies {dtype} rounding {code.amplification:.1e} times: relative "
            f"error {loss:.1e} > {tolerance:.0e}; use code=fr, which does no arithmetic, or a smaller s"
        )
