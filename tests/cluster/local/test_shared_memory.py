"""Vectors between processes: who owns a block, and who only reads it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from distseq.cluster.local.pool import local_pool
from distseq.cluster.local.shared_memory import Reader, Slot, sweep
from distseq.cluster.pool import Payload
from distseq.cluster.work import WorkSpec
from distseq.coding.plan import MiniTask

ROOT = Path(__file__).resolve().parents[3]
READ = """
import sys
from distseq.cluster.local.shared_memory import Reader, Reference
block, generation, length, dtype = sys.argv[1:]
print(Reader().read(Reference(block, int(generation), int(length), dtype)).sum())
"""


def test_a_process_that_has_read_a_block_and_ended_leaves_it_in_place() -> None:
    slot = Slot(800)
    reference = slot.write(np.arange(100.0))
    words = [sys.executable, "-c", READ, *map(str, reference)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    read = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert (read.stdout, read.stderr) == ("4950.0\n", "")
    vector = Reader().read(reference)
    slot.close()
    assert vector is not None
    np.testing.assert_array_equal(vector, np.arange(100.0))


def test_what_a_dead_writer_has_left_is_freed() -> None:
    """Whether anybody has heard of it or not."""
    slots = [Slot(8, f"psm_left_{os.getpid()}_{k}") for k in range(3)]
    references = [slot.write(np.ones(1)) for slot in slots]
    assert Reader().read(references[1]) is not None
    sweep(f"psm_left_{os.getpid()}_")
    assert [Reader().read(reference) for reference in references] == [None] * 3
    for slot in slots:
        slot.close()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks at /proc")
def test_hosts_let_go_of_the_parameters_of_jobs_that_are_over() -> None:
    pool = local_pool(1, WorkSpec("distseq.cluster.probe:Probe"), hosts=1)
    for job in range(12):
        pool.publish(job, Payload(job, 0, 0, np.zeros(1000, np.float32), np.arange(4), 0, "uncoded", 1))
        pool.send([MiniTask(job, 0, 0)])
        pool.poll(None)
        pool.retire(job)
    maps = Path(f"/proc/{pool.pids()[0]}/maps").read_text()
    pool.close()
    assert maps.count("/dev/shm/psm_") <= 4, "of parameters and rows together"
