"""The driver's threads of torch and BLAS during a run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from rich.console import Console

from distseq.gradients.threads import one_thread

# Variables by which users set the number of threads, for OpenMP and each BLAS.
VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


@contextmanager
def driver_threads() -> Iterator[None]:
    """One thread during a run, or those that the user's environment asks for; then those of before."""
    before = torch.get_num_threads()
    try:
        if _given():
            yield
        else:
            # More would compete with the hosts for their cores (docs/benchmarks.md).
            with one_thread():
                yield
    finally:
        # A simulated pool on a GPU makes a host's Work in this process.
        torch.set_num_threads(before)


def announce_threads(console: Console) -> None:
    """Prints what the user's environment says of threads, if anything, and what does not depend on it."""
    if given := _given():
        said = f"threads: {', '.join(given)} is kept to by the driver; rows and optimizer steps use one"
        console.print(said, highlight=False, soft_wrap=True)


def _given() -> list[str]:
    return [f"{name}={os.environ[name]}" for name in VARIABLES if os.environ.get(name)]
