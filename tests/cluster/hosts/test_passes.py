"""Mini-tasks of one shape whose turn has come are computed in one pass by the worker loop."""

import queue
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from distseq.cluster.hosts.messages import Answer, Cancel, Command, Failure, Retire
from distseq.cluster.hosts.worker import WorkerLoop
from distseq.cluster.pool import Payload
from distseq.cluster.work import RowRequest, Work
from distseq.coding.plan import MiniTask
from tests.cluster.hosts.test_worker import Running, message, publish

Start = Callable[..., "Passing"]


class Noting:
    """Rows (job, group's first sample); its shape is that of `shapes`, by job. What it read, and what it computed at once."""

    def __init__(self, shapes: dict[int, Hashable], bad: int | None = None) -> None:
        self.shapes, self.bad = shapes, bad
        self.reads: list[int] = []
        self.passes: list[tuple[int, ...]] = []
        self.running: Running

    def read(self, payload: Payload, ids: np.ndarray) -> int:
        self.reads.append(payload.job)
        return payload.job

    def row(self, payload: Payload, ids: np.ndarray, weights: np.ndarray, samples: Any = None) -> np.ndarray:
        self.passes.append((payload.job,))
        return self._row(payload)

    def shape(self, asked: RowRequest) -> Hashable:
        return self.shapes.get(asked.samples)

    def rows(self, asked: Sequence[RowRequest]) -> list[np.ndarray]:
        self.passes.append(tuple(each.payload.job for each in asked))
        return [self._row(each.payload) for each in asked]

    def _row(self, payload: Payload) -> np.ndarray:
        if payload.job == self.bad:
            raise ValueError("bad")
        return np.array([float(payload.job)])


class Given:
    """In place of a WorkSpec."""

    def __init__(self, work: Work, stack: int, prefetch: bool) -> None:
        self.work, self.stack, self.prefetch = work, stack, prefetch

    def load(self) -> Work:
        return self.work


class Passing(Running):
    def __init__(self, work: Noting, stack: int, prefetch: bool) -> None:
        super().__init__()
        self.answers: queue.SimpleQueue[Answer | Failure] = queue.SimpleQueue()
        self.loop = WorkerLoop(Given(work, stack, prefetch), self.answers.put)  # type: ignore[arg-type]
        self.thread = threading.Thread(target=self.loop.run)


@pytest.fixture(params=[True, False], ids=["prefetch", "no-prefetch"])
def start(request: pytest.FixtureRequest) -> Iterator[Start]:
    made: list[Passing] = []

    def make(work: Noting, *commands: Command, stack: int = 8) -> Passing:
        made.append(Passing(work, stack, request.param))
        made[-1].post(*commands)
        work.running = made[-1]
        made[-1].begin()
        return made[-1]

    yield make
    for running in made:
        running.stop()


def jobs(answers: Sequence[Answer]) -> list[int]:
    return [answer.task.job for answer in answers]


def opened(count: int) -> list[Command]:
    return [publish(job) for job in range(count)]


def test_those_of_a_message_and_of_the_messages_after_it_share_a_pass(start: Start) -> None:
    work = Noting(dict.fromkeys(range(4), "a"))
    running = start(
        work, *opened(4), message(0, (0, 0), (1, 0)), message(0, (2, 0), invocation=1), message(0, (3, 0), invocation=2)
    )
    answers = running.take(4)
    assert jobs(answers) == [0, 1, 2, 3]
    assert [answer.invocation for answer in answers] == [0, 0, 1, 2]
    assert [answer.row[0] for answer in answers] == [0, 1, 2, 3]
    assert work.passes == [(0, 1, 2, 3)]


def test_workers_of_one_host_share_a_pass_once_they_have_started_up(start: Start) -> None:
    work = Noting(dict.fromkeys(range(3), "a"))
    running = start(work, *opened(3), message(0, (0, 0)), message(1, (1, 0)), message(2, (2, 0), startup=0.3))
    answers = running.take(3)
    assert work.passes == [(0, 1), (2,)]
    assert answers[2].startup == pytest.approx(0.3)


@pytest.mark.parametrize(("stack", "passes"), [(1, [(0,), (1,), (2,)]), (2, [(0, 1), (2,)]), (3, [(0, 1, 2)])])
def test_a_pass_has_so_many_at_most(start: Start, stack: int, passes: list[tuple[int, ...]]) -> None:
    work = Noting(dict.fromkeys(range(3), "a"))
    start(work, *opened(3), message(0, (0, 0), (1, 0), (2, 0)), stack=stack).take(3)
    assert work.passes == passes


def test_another_shape_ends_a_pass_and_nothing_is_read_twice(start: Start) -> None:
    work = Noting({0: "a", 1: "a", 2: "b", 3: "b", 5: "a"})
    running = start(work, *opened(6), message(0, (0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (5, 0)))
    assert jobs(running.take(6)) == [0, 1, 2, 3, 4, 5]
    assert work.passes == [(0, 1), (2, 3), (4,), (5,)]
    assert sorted(work.reads) == [0, 1, 2, 3, 4, 5]


def test_what_was_read_for_a_pass_and_did_not_fit_may_be_cancelled(start: Start) -> None:
    class Cancelling(Noting):
        def rows(self, asked: Sequence[RowRequest]) -> list[np.ndarray]:
            self.running.post(Cancel((MiniTask(2, 0, 0),)), Retire(3))
            return super().rows(asked)

    work = Cancelling({0: "a", 1: "a", 2: "b", 3: "b", 4: "b"})
    running = start(work, *opened(5), message(0, (0, 0), (1, 0), (2, 0), (3, 0), (4, 0)))
    assert jobs(running.take(3)) == [0, 1, 4]
    assert not running.loop._set_aside
    running.post(message(0, (2, 0), invocation=1))
    assert jobs(running.take(1)) == [2]


def test_the_same_row_twice_in_a_pass_is_made_once(start: Start) -> None:
    work = Noting(dict.fromkeys(range(2), "a"))
    running = start(work, *opened(2), message(0, (0, 0)), message(0, (0, 0), (1, 0), invocation=1, attempt=2))
    assert jobs(running.take(2)) == [0, 1]
    assert work.passes == [(0, 1)]


def test_where_a_pass_fails_the_fault_is_that_of_its_row(start: Start) -> None:
    work = Noting(dict.fromkeys(range(3), "a"), bad=1)
    running = start(work, *opened(3), message(0, (0, 0), (1, 0), (2, 0)))
    first, second, third = running.take(3)
    assert (first.fault, third.fault) == (None, None)
    assert second.fault is not None
    assert second.fault.text == "ValueError: bad"
    # It was not sent: asked for again, it is computed again.
    running.post(message(0, (1, 0), invocation=1))
    assert running.take(1)[0].fault is not None


def test_a_pass_that_lacks_a_row_has_failed(start: Start) -> None:
    class Lacking(Noting):
        def rows(self, asked: Sequence[RowRequest]) -> list[np.ndarray]:
            return super().rows(asked)[1:]

    work = Lacking(dict.fromkeys(range(3), "a"))
    answers = start(work, *opened(3), message(0, (0, 0), (1, 0), (2, 0))).take(3)
    assert [answer.row[0] for answer in answers] == [0, 1, 2]


def test_the_seconds_of_a_pass_are_shared_out(start: Start) -> None:
    class Slow(Noting):
        def rows(self, asked: Sequence[RowRequest]) -> list[np.ndarray]:
            waited.wait(0.3)
            return super().rows(asked)

    waited = threading.Event()
    work = Slow(dict.fromkeys(range(3), "a"))
    begun = time.monotonic()
    answers = start(work, *opened(3), message(0, (0, 0), (1, 0), (2, 0))).take(3)
    assert all(answer.compute >= 0.1 for answer in answers)
    assert sum(answer.compute for answer in answers) <= time.monotonic() - begun
