"""Passes vectors between processes through shared memory, so that pipes carry only references.

A slot is one block of shared memory: a generation number, then a vector. The writer increments the generation before and
after writing (odd = being written), so a reader that expects a certain generation detects a torn or overwritten vector.
"""

import _posixshmem
import contextlib
import mmap
import os
from itertools import count
from multiprocessing import resource_tracker, shared_memory
from typing import NamedTuple

import numpy as np

HEAD = 8  # bytes of the generation number, an int64


class Reference(NamedTuple):
    """Where a vector is stored, as which generation, and how to read it."""

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
        """Copy a vector into the slot, where it may be read until the next write."""
        # Odd while the copy is under way: the protocol of a sequence lock, in which the writer never waits for readers.
        self._generation[0] += 1
        np.ndarray(len(vector), vector.dtype, self._block.buf, HEAD)[:] = vector
        self._generation[0] += 1
        return Reference(self.name, int(self._generation[0]), len(vector), vector.dtype.str)

    def close(self) -> None:
        """Free the block; it is no error if it is gone already."""
        # The view first: a block with a view of it left cannot be closed.
        del self._generation
        self._block.close()
        with contextlib.suppress(FileNotFoundError):
            self._block.unlink()


class Reader:
    """Reads vectors by reference, and keeps their blocks attached."""

    def __init__(self) -> None:
        # Not SharedMemory, which registers every block that it attaches with the resource tracker as this process's own: the
        # tracker of the same family would then complain of blocks that their writer has freed, another's would remove them.
        self._blocks: dict[str, mmap.mmap] = {}

    def read(self, reference: Reference) -> np.ndarray | None:
        """A copy of the vector, or None if the slot holds another generation by now."""
        view = self.view(reference)
        vector = None if view is None else view.copy()
        # The generation is compared after the copy: before it, a write during the copy would go unnoticed.
        return vector if vector is not None and self.holds(reference) else None

    def take(self, reference: Reference) -> np.ndarray | None:
        """Like `read`, for a block that is read only once: it does not stay attached."""
        vector = self.read(reference)
        if reference.block in self._blocks:
            self._blocks.pop(reference.block).close()
        return vector

    def view(self, reference: Reference) -> np.ndarray | None:
        """A view of the vector, to be released before its block is closed; None if the block is gone."""
        if reference.block not in self._blocks:
            try:
                self._blocks[reference.block] = _attach(reference.block)
            except FileNotFoundError:
                return None
        return np.ndarray(reference.length, np.dtype(reference.dtype), self._blocks[reference.block], HEAD)

    def holds(self, reference: Reference) -> bool:
        """Whether the slot still holds this generation, so that what was read from it is complete."""
        return int(np.ndarray(1, np.int64, self._blocks[reference.block])[0]) == reference.generation

    def close(self) -> None:
        for block in self._blocks.values():
            block.close()
        self._blocks = {}


def sweep(prefix: str) -> None:
    """Free the blocks PREFIX0, PREFIX1, ... of a writer that was killed."""
    # By number, since a writer dies with blocks that it has told nobody of. Numbers have no gaps: the first miss is the end.
    for k in count():
        try:
            _posixshmem.shm_unlink(f"/{prefix}{k}")
        except FileNotFoundError:
            return
        # The dead writer registered the block; without this the tracker warns of a leak when the run ends.
        resource_tracker.unregister(f"/{prefix}{k}", "shared_memory")


def _attach(name: str) -> mmap.mmap:
    """Map a block by its name. FileNotFoundError if it is gone."""
    # Read and write, as mmap maps by default; 0600 is the mode of Python's own blocks.
    descriptor = _posixshmem.shm_open(f"/{name}", os.O_RDWR, mode=0o600)
    try:
        return mmap.mmap(descriptor, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)
