"""A Work of no learning: its rows are known in closed form. Measures pools, and tests them."""

import time

import numpy as np

from distseq.cluster.pool import Payload


def feature(ids: np.ndarray, size: int) -> np.ndarray:
    """(B, size) small whole numbers that stand for the gradients of samples; sums of them are exact in float32."""
    return (ids[:, None] * 31 + np.arange(size)[None, :] * 7) % 101 - 50


class Probe:
    """row = sum of weight x feature(id) in `dtype`, after `seconds` of holding the host's compute."""

    def __init__(self, size: int = 8, seconds: float = 0.0, dtype: str = "float32", fail_on: int | None = None) -> None:
        self.size, self.seconds, self.dtype, self.fail_on = size, seconds, np.dtype(dtype), fail_on

    def row(self, payload: Payload, ids: np.ndarray, weights: np.ndarray) -> np.ndarray:
        if self.fail_on is not None and self.fail_on in ids:
            raise ValueError(f"sample {self.fail_on} cannot be read")
        if self.seconds:
            time.sleep(self.seconds)
        row: np.ndarray = weights @ feature(ids, self.size)
        return row.astype(self.dtype)
