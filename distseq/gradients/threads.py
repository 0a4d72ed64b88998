"""Runs torch and BLAS on one thread, wherever bits are made."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from distseq.cluster.system.blas_threads import blas_threads


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch and BLAS meanwhile.

    The number of threads decides where sums and vectorized loops are cut, and with it their last bits: rows, initial weights and
    optimizer steps must not depend on a machine's cores or on OMP_NUM_THREADS.
    """
    before = torch.get_num_threads()
    # Only where it changes something: torch drops what oneDNN has prepared whenever it is told a number.
    if before != 1:
        torch.set_num_threads(1)
    try:
        with blas_threads(1):
            yield
    finally:
        if before != 1:
            torch.set_num_threads(before)
