"""A Work that trains nothing and whose rows are known in advance, for measuring and testing pools."""

import time

import numpy as np

from distseq.cluster.pool import Payload


def feature(ids: np.ndarray, size: int) -> np.ndarray:
    """(B, size) small integers in place of the samples' gradients."""
    # At most 50 in size, so that sums over fewer than 2^24 / 50 samples are exact in float32 and tests compare with ==. The
    # primes 31, 7 and 101 make neighbouring samples and positions differ, so that a swapped row is noticed.
    return (ids[:, None] * 31 + np.arange(size)[None, :] * 7) % 101 - 50


class Probe:
    """row = sum of weight x feature(id) in `dtype`, after occupying the host for `seconds`; raises for sample `fail_on`."""

    def __init__(self, size: int = 8, seconds: float = 0.0, dtype: str = "float32", fail_on: int | None = None) -> None:
        self.size, self.seconds, self.dtype, self.fail_on = size, seconds, np.dtype(dtype), fail_on

    def row(self, payload: Payload, ids: np.ndarray, weights: np.ndarray) -> np.ndarray:
        if self.fail_on is not None and self.fail_on in ids:
            raise ValueError(f"sample {self.fail_on} cannot be read")
        if self.seconds:
            time.sleep(self.seconds)
        row: np.ndarray = weights @ feature(ids, self.size)
        return row.astype(self.dtype)
