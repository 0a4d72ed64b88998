"""One thread for what must have the same bits on every replica."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """torch on one thread inside; also a decorator.

    With several, the last bits of some steps differ: seen at width 100 in all modes (tests/models/temporal/test_state.py).
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
