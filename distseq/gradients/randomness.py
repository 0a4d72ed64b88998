"""Seeds the global random generators for the blocks of a batch, and notices what draws from them without being seeded.

A learner that draws random numbers (dropout, noise, augmentation) has its batch cut into a fixed number of blocks, as
np.array_split cuts it. What is drawn for a block depends on the learner's seed, the step and the block alone, so that replicas,
reruns, resumed runs, codes, schedulers and pools all draw the same numbers (docs/decisions/023).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple, TypeVar

import numpy as np
import torch

from distseq.cluster.errors import DrawsError
from distseq.cluster.system import generators

T = TypeVar("T")


def block_seeds(seed: int, step: int, blocks: int) -> list[int]:
    """The seed of each block of the batch of a learner's step, from the learner's seed.

    A block is computed as a plain loop would, after `torch.manual_seed(s)`, `random.seed(s)` and `np.random.seed(s % 2**32)`: its
    samples are read, then their losses computed. Seeds are whole numbers below 2**63.

    >>> block_seeds(0, 7, 2) == block_seeds(0, 7, 3)[:2]
    True
    >>> ids = np.arange(10)  # of the batch of step 7, learner.ids(7)
    >>> for block, s in zip(np.array_split(ids, 3), block_seeds(0, 7, 3)):
    ...     generator = torch.manual_seed(s)
    ...     noise = torch.rand(len(block))
    """
    # With a spawn key, because the words of the entropy alone would be those from which the step's sample ids are drawn.
    words = np.random.SeedSequence(seed, spawn_key=(step,)).generate_state(blocks, np.uint64)
    return [int(word) >> 1 for word in words]


class States(NamedTuple):
    """The states of all global generators: torch's on the CPU and on the device, numpy's and Python's."""

    cpu: torch.Tensor
    cuda: torch.Tensor | None
    others: generators.State


def states(device: torch.device) -> States:
    """The present states."""
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return States(torch.get_rng_state(), cuda, generators.state())


def restore(before: States, device: torch.device) -> None:
    """Restores states that `states` has returned."""
    torch.set_rng_state(before.cpu)
    if before.cuda is not None:
        torch.cuda.set_rng_state(before.cuda, device)
    generators.restore(before.others)


def same(one: States, other: States) -> bool:
    """Whether nothing was drawn between two states."""
    cuda = one.cuda is None or other.cuda is None or torch.equal(one.cuda, other.cuda)
    return cuda and torch.equal(one.cpu, other.cpu) and generators.same(one.others, other.others)


def seed_all(number: int, device: torch.device) -> None:
    """Seeds all global generators."""
    # Not torch.manual_seed, which formats a stack trace for devices that are not in use: 260 us instead of 5.
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(number)
    generators.seed(number)


def undrawn(compute: Callable[[], T], device: torch.device) -> T:
    """What `compute` returns, if it leaves all global generators as they are; else DrawsError, with their states restored."""
    # Another thread may have drawn meanwhile, while it read samples: only alone, the second time, does a draw count.
    for alone in (nullcontext(), generators.LOCK):
        with alone:
            before = states(device)
            try:
                found = compute()
                if same(before, states(device)):
                    return found
            finally:
                # Also after an exception: what it drew before it raised belongs to the user's generators.
                if not same(before, states(device)):
                    restore(before, device)
    raise DrawsError("random numbers were drawn for a row of a job whose batch is not cut into blocks")


@contextmanager
def drawing(device: torch.device) -> Iterator[None]:
    """Holds the lock of all global generators, and restores their states at the end."""
    with generators.LOCK:
        before = states(device)
        try:
            yield
        finally:
            restore(before, device)
