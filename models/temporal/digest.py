"""A digest of the state of memory that is kept current row by row: no pass over all memory after each batch.

Each row's words, times fixed odd numbers and added up, are mixed with the node; the sum over nodes is modulo 2**64. A changed bit
changes its row's number, since an odd number times a power of two is not 0. It tells replicas apart, and no forger.
"""

from functools import cache

import numpy as np
from torch import Tensor

from distseq.models.temporal.draws import hashed

_LIMIT = 1 << 64


@cache
def _odd(field: int, words: int) -> np.ndarray:
    """(words,) uint64 odd numbers."""
    numbers: np.ndarray = hashed(1, field, np.arange(words)) | np.uint64(1)
    return numbers


def _words(field: Tensor) -> np.ndarray:
    """(V, words) uint64: the bytes of each row, with zeros behind."""
    rows = len(field)
    # By its size, for a field without rows or columns has no bytes to be counted.
    width = field[0].numel() * field.element_size() if rows else 0
    flat = field.contiguous().reshape(rows, -1).numpy().view(np.uint8).reshape(rows, width)
    if width % 8:
        flat = np.concatenate([flat, np.zeros((rows, 8 - width % 8), np.uint8)], 1)
    return np.ascontiguousarray(flat).view(np.uint64)


def rows_digest(fields: dict[str, Tensor], nodes: np.ndarray) -> int:
    """The sum over nodes (V,) of a number for each of their rows, of the fields in their order.

    >>> import torch
    >>> row = {"memory": torch.ones(2, 3), "valid": torch.tensor([True, False])}
    >>> one, other = (rows_digest({k: v[i : i + 1] for k, v in row.items()}, np.array([i])) for i in (0, 1))
    >>> (one + other) % 2**64 == rows_digest(row, np.arange(2))
    True
    """
    total = np.zeros(len(nodes), np.uint64)
    for index, field in enumerate(fields.values()):
        words = _words(field)
        total += words @ _odd(index, words.shape[1])
    return int(hashed(total, nodes).sum(dtype=np.uint64)) if len(nodes) else 0


def replaced(total: int, before: int, after: int) -> int:
    """The sum over all nodes, of some of which other rows are there now."""
    return (total - before + after) % _LIMIT
