"""Vectors that several payloads hold travel once, and stay as long as one of them is open."""

import numpy as np
import pytest

from distseq.cluster.carried import Carried, Held
from distseq.cluster.hosts.kept_vectors import KeptVectors
from distseq.cluster.local.messages import Stored
from distseq.cluster.local.pool import LocalTransport
from distseq.cluster.pool import Payload
from distseq.cluster.work import WorkSpec


class Shelf:
    def __init__(self) -> None:
        self.shared: list[np.ndarray] = []
        self.taken_back: list[int] = []

    def share(self, vector: np.ndarray) -> int:
        self.shared.append(vector)
        return len(self.shared) - 1


def test_a_vector_is_shared_once_and_taken_back_with_its_last_user() -> None:
    shelf = Shelf()
    kept = KeptVectors(shelf.share, shelf.taken_back.append)
    one, other = np.zeros(3), np.zeros(3)
    assert [kept.take(Held(one)), kept.take(Held(other)), kept.take(Held(one))] == [0, 1, 0]
    kept.give_back([Held(one), Held(other)])
    assert shelf.taken_back == [1]
    kept.give_back([Held(one)])
    assert shelf.taken_back == [1, 0]
    assert len(kept) == 0


def payload(job: int, carried: Carried | None) -> Payload:
    return Payload(job, 0, job, np.full(4, float(job)), np.arange(3), 0, "uncoded", 1, carried=carried)


@pytest.fixture
def transport() -> LocalTransport:
    return LocalTransport(WorkSpec("builtins:dict"))


def test_a_local_host_reads_what_it_asks_for(transport: LocalTransport) -> None:
    past, snapshot = [Held(np.full(4, float(k))) for k in range(3)], Held(np.arange(9, dtype=np.uint8))
    open_jobs = [payload(k, Carried(8, k, b"", 0, snapshot, tuple(past[:k]))) for k in range(3)]
    shared = [transport.share(one) for one in open_jobs]
    arena = transport._arena
    assert len(arena._held) == 3 + 1 + 2, "parameters of each, one snapshot, two vectors of the past"
    found = shared[2].payload.carried
    assert found is not None
    for one, vector in zip(found.past, past, strict=False):
        assert isinstance(one, Stored)
        view = np.ndarray(4, np.float64, arena._segments[one.reference.segment], one.reference.offset + 64)
        assert np.array_equal(view, vector.vector)
    for one, sent in zip(open_jobs[:2], shared[:2], strict=True):
        transport.unshare(one, sent)
    assert len(arena._held) == 1 + 1 + 2
    transport.unshare(open_jobs[2], shared[2])
    assert not arena._held
    transport.close()
