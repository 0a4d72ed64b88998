"""Vectors between processes: blocks are really allocated, reused and never torn; nothing is left behind."""

import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distseq.cluster.local.pool import local_pool
from distseq.cluster.local.segment_files import SegmentFiles
from distseq.cluster.local.shared_memory import HEAD, SMALLEST, Arena, Reader, Reference, block_size
from distseq.cluster.pool import Payload, PoolError
from distseq.cluster.work import WorkSpec
from distseq.coding.plan import MiniTask

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(params=["memory", "folder"])
def arena(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Arena]:
    made = Arena(SegmentFiles(str(tmp_path) if request.param == "folder" else ""))
    yield made
    made.close()
    assert not list(tmp_path.iterdir()), "files have no names"


def reader_of(arena: Arena) -> Reader:
    reader = Reader()
    reader.attach([os.dup(descriptor) for descriptor in arena.descriptors])
    return reader


def test_a_vector_is_read_as_it_was_written(arena: Arena) -> None:
    vectors = [np.arange(100.0), np.ones(3, np.float32), np.zeros(0)]
    references = [arena.write(vector) for vector in vectors]
    reader = reader_of(arena)
    for vector, reference in zip(vectors, references, strict=True):
        np.testing.assert_array_equal(reader.read(reference), vector)


def test_a_block_that_was_written_again_is_not_what_was_asked_for(arena: Arena) -> None:
    first = arena.write(np.ones(10))
    reader = reader_of(arena)
    arena.free(first)
    second = arena.write(np.full(10, 2.0))
    assert (second.segment, second.offset) == (first.segment, first.offset), "the block is reused"
    assert reader.read(first) is None
    np.testing.assert_array_equal(reader.read(second), np.full(10, 2.0))


def test_a_block_that_is_being_written_is_torn(arena: Arena) -> None:
    reference = arena.write(np.ones(10))
    reader = reader_of(arena)
    generation = np.ndarray(1, np.int64, arena._segments[0], reference.offset)
    generation[0] += 1
    assert reader.read(reference) is None


def test_a_block_that_is_freed_twice_is_handed_out_once(arena: Arena) -> None:
    old = arena.write(np.ones(10))
    arena.free(old)
    arena.free(old)
    new = [arena.write(np.ones(10)) for _ in range(2)]
    arena.free(old)
    assert len({(one.segment, one.offset) for one in [*new, arena.write(np.ones(10))]}) == 3


@given(st.lists(st.tuples(st.integers(0, 2000), st.booleans()), max_size=60))
def test_blocks_that_are_held_never_overlap_and_keep_their_vectors(steps: list[tuple[int, bool]]) -> None:
    arena, held = Arena(SegmentFiles()), dict[Reference, np.ndarray]()
    for k, (length, frees) in enumerate(steps):
        if frees and held:
            arena.free(gone := next(iter(held)))
            del held[gone]
        vector = np.full(length, float(k))
        held[arena.write(vector)] = vector
    reader = reader_of(arena)
    for reference, vector in held.items():
        np.testing.assert_array_equal(reader.read(reference), vector)
    arena.close()


@given(st.integers(0, 1 << 40))
def test_a_block_wastes_at_most_an_eighth_and_two_lines(nbytes: int) -> None:
    assert nbytes + HEAD <= block_size(nbytes) <= nbytes * 9 / 8 + 2 * HEAD
    assert block_size(nbytes) % HEAD == 0


def test_twenty_thousand_jobs_take_the_memory_of_those_that_are_open_at_once(arena: Arena) -> None:
    for job in range(20_000):
        held = [arena.write(np.ones(50 + job % 3)) for _ in range(4)]
        for reference in held:
            arena.free(reference)
    assert (arena.bytes, len(arena.descriptors)) == (SMALLEST, 1)


def test_many_blocks_lie_in_few_segments(arena: Arena) -> None:
    vector = np.zeros(SMALLEST // 8)
    references = [arena.write(vector) for _ in range(40)]
    assert len(arena.descriptors) <= 10
    assert len({(one.segment, one.offset) for one in references}) == 40
    assert arena.bytes <= 1.7 * 40 * block_size(vector.nbytes)


def test_the_bytes_of_a_segment_are_there_before_it_is_mapped(tmp_path: Path) -> None:
    arena = Arena(SegmentFiles(str(tmp_path)))
    arena.write(np.ones(1))
    status = os.fstat(arena.descriptors[0])
    assert status.st_blocks * 512 >= status.st_size == SMALLEST
    arena.close()


TMPFS = """
import numpy as np, sys
from distseq.cluster.local.segment_files import SegmentFiles
from distseq.cluster.local.shared_memory import Arena
arena = Arena(SegmentFiles("/dev/shm"))
rows = 0
try:
    while True:
        arena.write(np.ones(1 << 18))
        rows += 1
finally:
    print(rows, flush=True)
"""


def in_small_shm(size: str, code: str) -> "subprocess.CompletedProcess[str]":
    """Runs Python where /dev/shm is a file system of this size, as in a container."""
    mounted = f"mount -t tmpfs -o size={size} none /dev/shm && exec {sys.executable} -c '{code}'"
    words = ["unshare", "-rm", "sh", "-c", mounted]
    if subprocess.run([*words[:-1], "mount -t tmpfs none /mnt"], capture_output=True, check=False).returncode:
        pytest.skip("may not mount a file system here")
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_full_dev_shm_is_used_to_the_end_and_then_refused_in_one_line() -> None:
    run = in_small_shm("16m", TMPFS)
    assert int(run.stdout) == 7, "2 MiB each, of 16, and their heads"
    assert re.search(
        r"PoolError: shared memory in /dev/shm is full: 2.00 MiB more are needed, .* MiB are free \(No space left on device\): "
        r"set shared_memory in \[pool\] to a folder with more room, .* start the container with a larger --shm-size$",
        run.stderr.strip(),
    )


def test_a_file_that_may_not_become_as_large_is_refused(tmp_path: Path) -> None:
    """As by ulimit -f, or a quota."""
    files, before = SegmentFiles(str(tmp_path)), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALLEST, before[1]))
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        os.close(files.create(2 * SMALLEST, least=SMALLEST))  # as much as there is
        with pytest.raises(
            PoolError, match=r"shared memory in .* is full: 2.00 MiB more are needed, .*File too large.*ulimit -f"
        ):
            files.create(4 * SMALLEST, least=2 * SMALLEST)
    finally:
        signal.signal(signal.SIGXFSZ, handler)
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_memory_that_is_not_left_is_refused_before_processes_are_killed_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distseq.cluster.local.segment_files.available_memory", lambda: 3 << 20)
    with pytest.raises(PoolError, match=r"shared memory is full: 4.00 MiB more are needed, 3 MiB of memory are left"):
        SegmentFiles().create(1 << 23, least=1 << 22)


@pytest.mark.parametrize("folder", ["/proc", "/nowhere/at/all", "/etc/passwd"])
def test_a_folder_that_cannot_be_written_to_is_refused(folder: str) -> None:
    with pytest.raises(
        ValueError, match=rf"cannot create a file for shared memory in {folder}: .*: set shared_memory in \[pool\]"
    ):
        SegmentFiles(folder)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks at /proc")
def test_a_pool_maps_as_much_after_many_jobs_as_after_a_few() -> None:
    pool = local_pool(1, WorkSpec("distseq.cluster.probe:Probe"), hosts=1)
    counts = []
    for job in range(24):
        pool.publish(job, Payload(job, 0, 0, np.zeros(1000, np.float32), np.arange(4), 0, "uncoded", 1))
        pool.send([MiniTask(job, 0, 0)])
        pool.poll(None)
        pool.retire(job)
        maps = Path(f"/proc/{pool.pids()[0]}/maps").read_text()
        counts.append(maps.count("/memfd:distseq"))
    descriptors = len(os.listdir(f"/proc/{pool.pids()[0]}/fd"))
    pool.close()
    assert counts[8:] == [2] * 16, "one of parameters, one of rows"
    assert descriptors < 20
