"""Computes rows of learners that draw random numbers: a seeded pass per block, or one pass with a dropout mask per block."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from distseq.cluster.errors import DrawsError
from distseq.gradients.dropout import BlockDropout
from distseq.gradients.randomness import drawing, seed_all, undrawn


class Block(NamedTuple):
    """Neighbouring samples begin .. end - 1 of a row that are one block of the batch."""

    seed: int
    begin: int
    end: int


def blocks_of_row(numbers: np.ndarray, seeds: Sequence[int]) -> list[Block]:
    """The blocks of a row, in its order. numbers: (B,) the block of each of its samples; seeds: of the blocks of the batch."""
    borders = np.flatnonzero(np.diff(numbers)) + 1
    edges = [0, *borders.tolist(), len(numbers)]
    return [Block(seeds[int(numbers[begin])], begin, end) for begin, end in pairwise(edges) if begin < end]


def in_one_pass(compute: Callable[[], Tensor], blocks: Sequence[Block], device: torch.device) -> Tensor | None:
    """What `compute` returns for all blocks together; None if it draws anything but dropout over their samples, or raises."""
    edges = [0, *(block.end for block in blocks)]

    def attempt() -> Tensor | None:
        with BlockDropout([block.seed for block in blocks], edges, device) as dropout:
            found = compute()
        return None if dropout.unseen else found

    # Not every model runs under a mode, compiled ones for instance; an error of its own is raised again, block by block.
    try:
        return undrawn(attempt, device)
    except (DrawsError, Exception):
        return None


def block_by_block(compute: Callable[[int, int], Tensor], blocks: Sequence[Block], device: torch.device) -> Tensor:
    """The sum over blocks of `compute(begin, end)`, each called after all global generators were seeded for its block."""
    total: Tensor | None = None
    with drawing(device):
        for block in blocks:
            seed_all(block.seed, device)
            found = compute(block.begin, block.end)
            # In the order of blocks and in the row's dtype, as .backward() adds up gradients in a plain loop.
            total = found if total is None else total.add_(found)
    assert total is not None, "a row without samples has no blocks, and is not computed"
    return total
