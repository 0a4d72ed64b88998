"""Works of local hosts that meet limits of the system."""

import ctypes
import os
import resource
import signal
from typing import Any

import numpy as np

from distseq.cluster.pool import Payload


class Wide:
    """Rows of `size` numbers."""

    def __init__(self, size: int = 1) -> None:
        self.size = size

    def row(self, payload: Payload, ids: np.ndarray, weights: np.ndarray, samples: Any = None) -> np.ndarray:
        return np.full(self.size, weights.sum())


class Few(Wide):
    """From its first row on, its host may open no more files."""

    def row(self, payload: Payload, ids: np.ndarray, weights: np.ndarray, samples: Any = None) -> np.ndarray:
        highest = os.dup(0)
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        return super().row(payload, ids, weights)


class Stuck(Wide):
    """Never returns, and never lets Python run."""

    def row(self, payload: Payload, ids: np.ndarray, weights: np.ndarray, samples: Any = None) -> np.ndarray:
        ctypes.PyDLL(None).sleep(600)
        raise AssertionError


class Stopped(Wide):
    """Stops its process."""

    def row(self, payload: Payload, ids: np.ndarray, weights: np.ndarray, samples: Any = None) -> np.ndarray:
        os.kill(os.getpid(), signal.SIGSTOP)
        return super().row(payload, ids, weights)
