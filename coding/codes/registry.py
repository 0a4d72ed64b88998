"""Creates gradient codes by name, and refuses those that would amplify rounding errors too much."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from distseq.coding.codes.cyclic import (
    Cyclic,
)
from distseq.coding.codes.fractional_repetition import FractionalRepetition
from distseq.coding.codes.gradient_code import TOLERANCE, GradientCode

CODES: dict[str, Callable[[int, int], GradientCode]] = {"fr": FractionalRepetition, "cyclic": Cyclic}


# Cached, because a cyclic code draws and measures eight matrices, and because codes are compared by identity where groups share
# one. A selection among candidates uses about a hundred codes.
@lru_cache(maxsize=256)
def make_code(kind: str, n: int, s: int) -> GradientCode:
    """The (n, s) code of a kind, always the same object. With s = 0 every kind is the uncoded one: n parts, one per worker.

    ValueError for an unknown kind, or unless 0 <= s < n.
    """
    if kind not in CODES:
        raise ValueError(f"unknown code {kind!r}; known: {', '.join(CODES)}")
    return CODES["fr" if s == 0 else kind](n, s)


def check_precision(code: GradientCode, dtype: np.dtype, tolerance: float = TOLERANCE) -> None:
    """ValueError for a code that would amplify the rounding of rows of `dtype` beyond `tolerance`, relative."""
    # Here, where a code meets a dtype, not in its constructor: in float64 every code is accurate.
    loss = code.amplification * float(np.finfo(dtype).eps)
    if loss > tolerance:
        raise ValueError(
            f"a dense code with n={code.n}, s={code.s} amplifies {dtype} rounding errors {code.amplification:.1e} times: "
            f"relative error {loss:.1e} > {tolerance:.0e}; use code=fr, which does not amplify them, or a smaller s"
        )
