"""Vectors between processes of one machine through shared memory, so that a pipe carries only their names.

A slot is one block of shared memory: a generation number, then a vector. The writer counts the generation up before and after
writing (odd = being written), so a reader that was told a generation finds a torn or overwritten slot out.
"""

import _posixshmem
import contextlib
import mmap
import os
from itertools import count
from multiprocessing import resource_tracker, shared_memory
from typing import NamedTuple

import numpy as np

HEAD = 8  # bytes of the generation


class Reference(NamedTuple):
    """Where a vector lies: block, generation, and how to read it."""

    block: str
    generation: int
    length: int
    dtype: str


class Slot:
    """The writer's side of one block."""

    def __init__(self, room: int, name: str | None = None) -> None:
        self.room = room
        self._block = shared_memory.SharedMemory(name, create=True, size=HEAD + max(1, room))
        self._generation = np.ndarray(1, np.int64, self._block.buf)
        self._generation[0] = 0

    @property
    def name(self) -> str:
        return self._block.name

    def write(self, vector: np.ndarray) -> Reference:
        """Copy a vector in; it may be read until the next write."""
        self._generation[0] += 1
        np.ndarray(len(vector), vector.dtype, self._block.buf, HEAD)[:] = vector
        self._generation[0] += 1
        return Reference(self.name, int(self._generation[0]), len(vector), vector.dtype.str)

    def close(self) -> None:
        """Free the block; a name that is gone already is no error."""
        del self._generation
        self._block.close()
        with contextlib.suppress(FileNotFoundError):
            self._block.unlink()


class Reader:
    """Reads slots by reference, keeping blocks attached.

    It attaches blocks without `SharedMemory`, which would register them as this process's own: the family's resource tracker
    would hold on to a block that its writer has freed meanwhile, and another family's would remove it.
    """

    def __init__(self) -> None:
        self._blocks: dict[str, mmap.mmap] = {}

    def read(self, reference: Reference) -> np.ndarray | None:
        """A copy of the vector, or None when the slot holds another generation by now."""
        view = self.view(reference)
        vector = None if view is None else view.copy()
        return vector if vector is not None and self.holds(reference) else None

    def take(self, reference: Reference) -> np.ndarray | None:
        """`read`, of a block that is read only once: it is not kept attached."""
        vector = self.read(reference)
        if reference.block in self._blocks:
            self._blocks.pop(reference.block).close()
        return vector

    def view(self, reference: Reference) -> np.ndarray | None:
        """The vector where it lies, to be let go before its block is closed; None when the block is gone."""
        if reference.block not in self._blocks:
            try:
                self._blocks[reference.block] = _attach(reference.block)
            except FileNotFoundError:
                return None
        return np.ndarray(reference.length, np.dtype(reference.dtype), self._blocks[reference.block], HEAD)

    def holds(self, reference: Reference) -> bool:
        """Whether the slot holds this generation still, so that what was read of it is whole."""
        return int(np.ndarray(1, np.int64, self._blocks[reference.block])[0]) == reference.generation

    def close(self) -> None:
        for block in self._blocks.values():
            block.close()
        self._blocks = {}


def sweep(prefix: str) -> None:
    """Free the blocks PREFIX0, PREFIX1, ... of a writer that was killed, whoever was told of them."""
    for k in count():
        try:
            _posixshmem.shm_unlink(f"/{prefix}{k}")
        except FileNotFoundError:
            return
        resource_tracker.unregister(f"/{prefix}{k}", "shared_memory")


def _attach(name: str) -> mmap.mmap:
    """A block by its name. FileNotFoundError when it is gone."""
    descriptor = _posixshmem.shm_open(f"/{name}", os.O_RDWR, mode=0o600)
    try:
        return mmap.mmap(descriptor, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)
