"""One thread for what must have the same bits on every replica."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """torch on one thread inside; also a decorator.

    With several, elementwise functions change bits where threads divide a tensor (the last elements of each piece are computed
    without vector instructions), and so do products of matrices.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
