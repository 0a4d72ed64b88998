"""Passes vectors between processes through shared memory, so that pipes carry only references.

A writer has one arena: a few segments, each one anonymous file that is mapped by the writer and by its readers, cut into blocks
that are reused. A block is a generation number, then a vector. The writer increments the generation before and after writing
(odd = being written), so a reader that expects a certain generation detects a torn or overwritten vector.

Segments have no names: their descriptors travel to the readers, and the system frees them when the last process that has them
ends, however it ends.
"""

import mmap
import os
from collections import defaultdict
from typing import NamedTuple

import numpy as np

from distseq.cluster.local.segment_files import SegmentFiles

# Bytes before the vector: the generation number, an int64, on a cache line of its own, which keeps vectors aligned.
HEAD = 64
# Smallest segment. A page is the least that memory is shared by; a megabyte holds the rows of a small model for a whole run.
SMALLEST = 1 << 20
# Blocks are rounded up to an eighth of a power of two, so that the rows of learners of about one size share blocks.
EIGHTHS = 4


class Reference(NamedTuple):
    """Where a vector is stored, as which generation, and how to read it."""

    segment: int  # of its writer's arena
    offset: int
    generation: int
    length: int
    dtype: str


class Arena:
    """The writer's side: blocks that are taken by `write` and given back by `free`. Not safe for several threads.

    `descriptors` are those of the segments, in the order of their numbers, for whoever sends them to readers.
    """

    def __init__(self, files: SegmentFiles) -> None:
        self.descriptors: list[int] = []
        self._files = files
        self._segments: list[mmap.mmap] = []
        self._used = 0  # bytes of the last segment that belong to blocks
        self._free: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)  # bytes of a block -> segment, offset
        self._held: dict[tuple[int, int], Reference] = {}

    def write(self, vector: np.ndarray) -> Reference:
        """Copy a vector into a block, where it may be read until it is freed. PoolError when there is no room."""
        size = block_size(vector.nbytes)
        segment, offset = self._free[size].pop() if self._free[size] else self._new_block(size)
        generation = np.ndarray(1, np.int64, self._segments[segment], offset)
        # Odd while the copy is under way: the protocol of a sequence lock, in which the writer never waits for readers.
        generation[0] += 1
        np.ndarray(len(vector), vector.dtype, self._segments[segment], offset + HEAD)[:] = vector
        generation[0] += 1
        reference = Reference(segment, offset, int(generation[0]), len(vector), vector.dtype.str)
        self._held[segment, offset] = reference
        return reference

    def free(self, reference: Reference) -> None:
        """Give a block back. Freeing twice does nothing, so that no block is ever handed out twice."""
        place = (reference.segment, reference.offset)
        if self._held.get(place) == reference:
            del self._held[place]
            self._free[block_size(reference.length * np.dtype(reference.dtype).itemsize)].append(place)

    @property
    def bytes(self) -> int:
        """Of all segments."""
        return sum(map(len, self._segments))

    def _new_block(self, size: int) -> tuple[int, int]:
        if not self._segments or self._used + size > len(self._segments[-1]):
            self._new_segment(size)
        segment, offset = len(self._segments) - 1, self._used
        self._used += size
        return segment, offset

    def _new_segment(self, size: int) -> None:
        # Half of what there is: few segments, since each costs every process a descriptor, and at most half too much memory.
        room = max(size, self.bytes // 2, SMALLEST)
        descriptor = self._files.create(room, least=size)
        self._segments.append(mmap.mmap(descriptor, os.fstat(descriptor).st_size))
        self.descriptors.append(descriptor)
        self._used = 0

    def close(self) -> None:
        """Close the descriptors; may be called twice. The memory goes with the last process that has it mapped."""
        for descriptor in self.descriptors:
            os.close(descriptor)
        # Not unmapped by hand: that would fail while a view of it is left.
        self.descriptors, self._segments, self._held, self._used = [], [], {}, 0
        self._free.clear()


class Reader:
    """Reads vectors of one writer by reference; maps each of its segments once."""

    def __init__(self) -> None:
        self._segments: list[mmap.mmap] = []

    def attach(self, descriptors: list[int]) -> None:
        """Map the writer's next segments, and close their descriptors."""
        for descriptor in descriptors:
            try:
                self._segments.append(mmap.mmap(descriptor, os.fstat(descriptor).st_size))
            finally:
                os.close(descriptor)

    def read(self, reference: Reference) -> np.ndarray | None:
        """A copy of the vector, or None if the block holds another generation by now."""
        vector = self.view(reference).copy()
        # The generation is compared after the copy: before it, a write during the copy would go unnoticed.
        return vector if self.holds(reference) else None

    def view(self, reference: Reference) -> np.ndarray:
        """A view of the vector, which the writer may overwrite: see `holds`."""
        block = self._segments[reference.segment]
        return np.ndarray(reference.length, np.dtype(reference.dtype), block, reference.offset + HEAD)

    def holds(self, reference: Reference) -> bool:
        """Whether the block still holds this generation, so that what was read from it is complete."""
        generation = np.ndarray(1, np.int64, self._segments[reference.segment], reference.offset)
        return int(generation[0]) == reference.generation


def block_size(nbytes: int) -> int:
    """Bytes of the block for a vector of `nbytes`: at most an eighth more, and whole cache lines."""
    step = max(HEAD, 1 << max(0, nbytes.bit_length() - EIGHTHS))
    return HEAD + -(-max(1, nbytes) // step) * step
