"""Maps .npy files: the header is compared with the size of the file before anything is allocated. Never unpickles."""

import math
import os
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def map_npy(path: str | Path) -> np.ndarray:
    """The array of a file, mapped: pages are read when they are used. ValueError, in one line, for a damaged file or none.

    Writing to the array changes neither the file nor what other processes see.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/a.npy", np.arange(3))
    ...     map_npy(f"{folder}/a.npy").tolist()
    [0, 1, 2]
    """
    with open(path, "rb") as file:
        shape, dtype = check_header(file, f"{Path(path).name!r}", os.fstat(file.fileno()).st_size)
    if not math.prod(shape):
        # An empty file cannot be mapped.
        return np.empty(shape, dtype)
    # "c", not "r": torch.from_numpy warns of arrays that must not be written to. The pages are the page cache's either way.
    return np.asarray(np.load(path, mmap_mode="c", allow_pickle=False))


def check_header(file: IO[bytes], name: str, size: int) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of the array in a file of `size` bytes; `name` it has in messages. The file is left after the header.

    ValueError unless the array that the header describes is as large as what follows it.
    """
    if file.read(len(npy.MAGIC_PREFIX)) != npy.MAGIC_PREFIX:
        raise ValueError(f"member {name} is not an array")
    file.seek(0)
    version = npy.read_magic(file)
    if version not in HEADERS:
        raise ValueError(f"array {name} has format {version}, which only arrays with named fields have")
    try:
        shape, _, dtype = HEADERS[version](file)
    # The header is a Python expression: what is wrong in it may raise a SyntaxError, TokenError, RecursionError, ...
    except Exception as error:
        raise ValueError(f"array {name} has no readable header: {type(error).__name__}") from None
    if dtype.hasobject:
        raise ValueError(f"Object arrays cannot be loaded: array {name} holds Python objects, not numbers")
    # Python's integers: numpy's would overflow on the shapes that matter here.
    needed, left = math.prod(shape) * dtype.itemsize, size - file.tell()
    if needed != left or any(length < 0 for length in shape):
        raise ValueError(f"array {name} of shape {shape} takes {needed} bytes, and the file has {left}")
    return shape, dtype
