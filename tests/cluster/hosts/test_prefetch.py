"""A host reads the samples of its next row while it computes the present one: order, bounds, errors, memory."""

import queue
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from distseq.cluster.hosts.messages import Answer, Assign, Cancel, Command, Failure, Publish, Retire, Stop
from distseq.cluster.hosts.prefetch import Prefetch, Reader
from distseq.cluster.hosts.worker import WorkerLoop
from distseq.cluster.pool import Payload
from distseq.coding.plan import MiniTask

LONG = 30.0  # seconds after which a test has failed
IDS, GROUPS, N = np.arange(24), 3, 4
SCHEME = f"gc:1,q={GROUPS}"


class Samples:
    """What has been read, something that can be watched."""

    def __init__(self, ids: np.ndarray) -> None:
        self.ids = ids


class Staged:
    """A ReadingWork that logs what is read and computed, and in which thread. `fail_on`: a sample that cannot be read."""

    def __init__(self, fail_on: int | None = None) -> None:
        self.fail_on = fail_on
        self.reads: list[tuple[int, tuple[int, ...]]] = []  # job, ids
        self.rows: list[tuple[int, tuple[int, ...]]] = []
        self.threads: dict[str, set[int]] = {"fetch": set(), "read": set(), "row": set()}
        self.fetched: list[int] = []
        self.held: list[weakref.ref[Samples]] = []
        self.done = threading.Condition()
        self.post: Callable[..., None]  # commands to the loop that it works for
        self.before_row_ends: Callable[[int], None] = lambda count: None

    def read(self, payload: Payload, ids: np.ndarray) -> Samples:
        self.threads["read"].add(threading.get_ident())
        samples = Samples(ids)
        with self.done:
            self.reads.append((payload.job, tuple(ids.tolist())))
            self.held.append(weakref.ref(samples))
            self.done.notify_all()
        if self.fail_on in ids:
            raise OSError(f"sample {self.fail_on} cannot be read")
        return samples

    def row(self, payload: Payload, ids: np.ndarray, weights: np.ndarray, samples: Any = None) -> np.ndarray:
        self.threads["row"].add(threading.get_ident())
        np.testing.assert_array_equal(samples.ids, ids)
        self.before_row_ends(len(self.rows))
        self.rows.append((payload.job, tuple(ids.tolist())))
        return np.array([weights @ samples.ids], dtype=np.float64)

    def wait_for_reads(self, count: int) -> bool:
        with self.done:
            return self.done.wait_for(lambda: len(self.reads) >= count, LONG)


class Given:
    """A specification of a Work that is there already."""

    def __init__(self, work: Staged, prefetch: bool) -> None:
        self.work, self.prefetch, self.stack = work, prefetch, 1

    def load(self) -> Staged:
        return self.work


class Running:
    def __init__(self, work: Staged, commands: tuple[Command, ...], prefetch: bool) -> None:
        self.work = work
        self.answers: queue.SimpleQueue[Answer | Failure] = queue.SimpleQueue()
        self.loop = WorkerLoop(Given(work, prefetch), self.answers.put)  # type: ignore[arg-type]
        work.post = self.post
        self.post(*commands)
        self.thread = threading.Thread(target=self.loop.run)
        self.thread.start()

    def post(self, *commands: Command) -> None:
        for command in commands:
            self.loop.post(command)

    def take(self, count: int) -> list[Answer]:
        answers = [self.answers.get(timeout=LONG) for _ in range(count)]
        for answer in answers:
            assert isinstance(answer, Answer), answer
        return [answer for answer in answers if isinstance(answer, Answer)]


Start = Callable[..., Running]


@pytest.fixture
def start() -> Iterator[Start]:
    made: list[Running] = []

    def make(work: Staged, *commands: Command, prefetch: bool = True) -> Running:
        made.append(Running(work, commands, prefetch))
        return made[-1]

    yield make
    for running in made:
        running.post(Stop())
        running.thread.join(timeout=LONG)
        assert not running.thread.is_alive()


def publish(work: Staged, job: int) -> Publish:
    def fetch() -> Payload:
        work.threads["fetch"].add(threading.get_ident())
        work.fetched.append(job)
        return Payload(job, 0, 0, np.zeros(0), IDS, 0, SCHEME, N, version=1)

    return Publish(job, fetch)


def message(worker: int, *tasks: tuple[int, int]) -> Assign:
    return Assign(worker, tuple(MiniTask(job, group, worker) for job, group in tasks), 1, 0, 0.0)


def whole(worker: int, job: int) -> Assign:
    return message(worker, *((job, group) for group in range(GROUPS)))


def test_the_next_row_is_read_before_the_present_one_ends_across_messages_and_jobs(start: Start) -> None:
    work = Staged()
    # Each row but the last waits for the next one's samples: without reading ahead it would wait for ever.
    work.before_row_ends = lambda count: None if count == 5 else _assert(work.wait_for_reads(count + 2))
    running = start(work, publish(work, 0), publish(work, 1), whole(0, 0), whole(0, 1))
    running.take(6)
    assert [job for job, _ in work.rows] == [0, 0, 0, 1, 1, 1]
    assert work.threads["fetch"] == work.threads["read"]
    assert work.fetched == [0, 1]


def test_no_more_than_one_row_is_read_ahead(start: Start) -> None:
    work, ahead = Staged(), list[int]()

    def count_reads(count: int) -> None:
        _assert(work.wait_for_reads(min(count + 2, 6)))
        ahead.append(len(work.reads) - count - 1)

    work.before_row_ends = count_reads
    start(work, publish(work, 0), publish(work, 1), whole(0, 0), whole(0, 1)).take(6)
    assert ahead == [1, 1, 1, 1, 1, 0]


def test_one_thread_reads_everything_once_in_the_order_of_the_rows(start: Start) -> None:
    work = Staged()
    commands = [publish(work, job) for job in range(2)]
    running = start(work, *commands, *(whole(worker, job) for job in range(2) for worker in (2, 0, 1)))
    running.take(18)
    assert work.reads == work.rows
    assert len(work.threads["read"]) == 1
    assert work.threads["read"].isdisjoint(work.threads["row"])


def test_rows_are_the_same_as_without_reading_ahead(start: Start) -> None:
    def rows(prefetch: bool) -> list[tuple[MiniTask, int]]:
        work = Staged()
        commands = [publish(work, job) for job in range(2)]
        messages = [whole(worker, job) for job in range(2) for worker in range(N)]
        answers = start(work, *commands, *messages, prefetch=prefetch).take(24)
        assert work.threads["read"].isdisjoint(work.threads["row"]) == prefetch
        return [(answer.task, answer.digest) for answer in answers]

    assert rows(prefetch=True) == rows(prefetch=False)


def samples_of(task: MiniTask) -> list[int]:
    payload = Payload(task.job, 0, 0, np.zeros(0), IDS, 0, SCHEME, N)
    return payload.layout.row(task, IDS)[0].tolist()


def test_an_error_of_reading_is_raised_when_its_row_is_computed_and_not_earlier(start: Start) -> None:
    work = Staged(fail_on=samples_of(MiniTask(0, 1, 0))[0])
    work.before_row_ends = lambda count: None if count else _assert(work.wait_for_reads(2))
    running = start(work, publish(work, 0), whole(0, 0))
    first, failing, last = running.take(3)
    assert [answer.task.group for answer in (first, failing, last)] == [0, 1, 2]
    assert failing.fault is not None
    assert failing.fault.text == f"OSError: sample {work.fail_on} cannot be read"
    assert 'raise OSError(f"sample' in failing.fault.traceback
    assert first.fault is last.fault is failing.row is None


def test_an_error_of_reading_what_is_cancelled_is_never_raised(start: Start) -> None:
    work, failing = Staged(fail_on=samples_of(MiniTask(0, 1, 0))[0]), MiniTask(0, 1, 0)

    def cancel(count: int) -> None:
        if count == 0:
            _assert(work.wait_for_reads(2))
            work.post(Cancel((failing,)))

    work.before_row_ends = cancel
    running = start(work, publish(work, 0), whole(0, 0))
    assert [answer.task.group for answer in running.take(2)] == [0, 2]


@pytest.mark.parametrize("drop", [Retire(0), Cancel((MiniTask(0, 1, 0), MiniTask(0, 2, 0)))])
def test_what_was_read_for_work_that_is_dropped_is_freed(start: Start, drop: Command) -> None:
    work = Staged()

    def dropped(count: int) -> None:
        if count == 0:
            _assert(work.wait_for_reads(2))
            work.post(drop, publish(work, 1), message(1, (1, 0)))

    work.before_row_ends = dropped
    running = start(work, publish(work, 0), whole(0, 0))
    assert [answer.task.job for answer in running.take(2)] == [0, 1]
    running.post(Stop())
    running.thread.join(timeout=LONG)
    assert [samples() for samples in work.held] == [None] * 3


def test_what_comes_after_something_else_than_was_said_is_read_anew_and_not_held() -> None:
    begun = list[str]()
    reads: Prefetch[str, None] = Prefetch(lambda key: lambda: begun.append(key), ahead=True)
    for key, coming in (("a", "b"), ("c", "d"), ("b", None), ("d", None)):
        reads.take(key, coming)
    assert begun == ["a", "b", "c", "d", "b", "d"]
    reads.close()


def test_a_read_that_is_dropped_before_its_turn_is_not_begun() -> None:
    begun, go_on, reader = list[str](), threading.Event(), Reader()
    reader.submit(lambda: _assert(go_on.wait(LONG)))
    dropped = reader.submit(lambda: begun.append("dropped"))
    last = reader.submit(lambda: begun.append("last"))
    dropped.cancel()
    go_on.set()
    last.result(LONG)
    assert begun == ["last"]
    reader.close()


def _assert(true: bool) -> None:
    assert true, "not within 30 s"
