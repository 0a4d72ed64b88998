"""Vectors between processes of one machine through shared memory, so that a pipe carries only their names.

A slot is one block of shared memory: a generation number, then a vector. The writer counts the generation up before and after
writing (odd = being written), so a reader that was told a generation finds a torn or overwritten slot out.
"""

import contextlib
from multiprocessing import shared_memory
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

    def __init__(self, room: int) -> None:
        self.room = room
        self._block = shared_memory.SharedMemory(create=True, size=HEAD + max(1, room))
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
    """Reads slots by reference, keeping blocks attached. Remembers every name, to free what a dead writer has left."""

    def __init__(self) -> None:
        self._blocks: dict[str, shared_memory.SharedMemory] = {}

    def read(self, reference: Reference) -> np.ndarray | None:
        """A copy of the vector, or None when the slot holds another generation by now."""
        view = self.view(reference)
        vector = None if view is None else view.copy()
        return vector if vector is not None and self.holds(reference) else None

    def view(self, reference: Reference) -> np.ndarray | None:
        """The vector where it lies, to be let go before its block is closed; None when the block is gone."""
        if reference.block not in self._blocks:
            try:
                self._blocks[reference.block] = shared_memory.SharedMemory(reference.block)
            except FileNotFoundError:
                return None
        return np.ndarray(reference.length, np.dtype(reference.dtype), self._blocks[reference.block].buf, HEAD)

    def holds(self, reference: Reference) -> bool:
        """Whether the slot holds this generation still, so that what was read of it is whole."""
        return int(np.ndarray(1, np.int64, self._blocks[reference.block].buf)[0]) == reference.generation

    def close(self, *, unlink: bool = False) -> None:
        for block in self._blocks.values():
            block.close()
            if unlink:
                with contextlib.suppress(FileNotFoundError):
                    block.unlink()
        self._blocks = {}
