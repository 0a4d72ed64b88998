"""Sets the number of threads of the BLAS libraries that this process has loaded, such as numpy's OpenBLAS."""

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

# Prefix and suffix of the functions' names: numpy's and scipy's own builds of OpenBLAS, the plain one, MKL's and BLIS's.
OPENBLAS = [(before, after) for before in ("scipy_openblas", "openblas") for after in ("64_", "")]
FUNCTIONS = [
    *((f"{before}_get_num_threads{after}", f"{before}_set_num_threads{after}") for before, after in OPENBLAS),
    ("MKL_Get_Max_Threads", "MKL_Set_Num_Threads"),
    ("bli_thread_get_num_threads", "bli_thread_set_num_threads"),
]
LIBRARIES = ("blas", "mkl_rt", "blis")  # parts of their files' names


class Library(NamedTuple):
    """A loaded BLAS library."""

    get: Callable[[], int]
    set: Callable[[int], object]


@contextmanager
def blas_threads(count: int) -> Iterator[None]:
    """Libraries loaded by now use `count` threads meanwhile. On systems without /proc nothing changes."""
    # Libraries come with modules: where no module was imported since, none was loaded.
    changed = [(library, before) for library in _loaded(len(sys.modules)) if (before := library.get()) != count]
    for library, _ in changed:
        library.set(count)
    try:
        yield
    finally:
        for library, before in changed:
            library.set(before)


@cache
def _loaded(modules: int) -> tuple[Library, ...]:
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return ()
    paths = {line.partition("/")[2] for line in maps.splitlines() if line.partition("/")[1]}
    files = sorted(f"/{path}" for path in paths if any(part in path.rpartition("/")[2] for part in LIBRARIES))
    return tuple(found for file in files if (found := _library(file)) is not None)


def _library(file: str) -> Library | None:
    """The functions of a library that is loaded already; None for a file that only has its name."""
    try:
        library = ctypes.CDLL(file)
    except OSError:
        return None
    for get, put in FUNCTIONS:
        if hasattr(library, get) and hasattr(library, put):
            return Library(getattr(library, get), getattr(library, put))
    return None
