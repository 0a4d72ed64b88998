"""The worker loop that all real pools share, on a thread of its own."""

import queue
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from distseq.cluster.hosts.messages import Answer, Assign, Cancel, Command, Failure, Publish, Retire, Stop
from distseq.cluster.hosts.worker import WorkerLoop
from distseq.cluster.hosts.worker_queues import WorkerQueue, WorkerQueues
from distseq.cluster.pool import Payload
from distseq.cluster.work import WorkSpec
from distseq.coding.plan import MiniTask

IDS = np.arange(12)
Start = Callable[..., "Running"]


class Running:
    """A loop on a thread, and what it has emitted."""

    def __init__(self, config: str = "{}", target: str = "distseq.cluster.probe:Probe") -> None:
        self.answers: queue.SimpleQueue[Answer | Failure] = queue.SimpleQueue()
        self.loop = WorkerLoop(WorkSpec(target, config), self.answers.put)
        self.thread = threading.Thread(target=self.loop.run)

    def post(self, *commands: Command) -> None:
        for command in commands:
            self.loop.post(command)

    def begin(self) -> None:
        """After the first posts, so that the loop sees them in their order before it computes anything."""
        self.thread.start()

    def take(self, count: int) -> list[Answer]:
        answers = [self.answers.get(timeout=30) for _ in range(count)]
        for answer in answers:
            assert isinstance(answer, Answer), answer
        return [answer for answer in answers if isinstance(answer, Answer)]

    def stop(self) -> None:
        self.post(Stop())
        self.thread.join(timeout=30)
        assert not self.thread.is_alive()


@pytest.fixture
def start() -> Iterator[Start]:
    made: list[Running] = []

    def make(*commands: Command, **work: str) -> Running:
        running = Running(**work)
        made.append(running)
        running.post(*commands)
        running.begin()
        return running

    yield make
    for running in made:
        running.stop()


def publish(job: int, scheme: str = "gc:1,q=2", version: int = 1) -> Publish:
    return Publish(job, lambda: Payload(job, 0, 0, np.zeros(0), IDS, 0, scheme, 4, version=version))


def message(
    worker: int, *tasks: tuple[int, int], startup: float = 0.0, invocation: int = 0, attempt: int = 1
) -> Assign:
    return Assign(worker, tuple(MiniTask(job, group, worker) for job, group in tasks), attempt, invocation, startup)


def test_rows_come_one_by_one_in_the_order_of_the_message(start: Start) -> None:
    running = start(publish(0), publish(1), message(2, (1, 0), (0, 1), (0, 0)))
    assert [answer.task[:2] for answer in running.take(3)] == [(1, 0), (0, 1), (0, 0)]


def test_an_answer_carries_its_identity(start: Start) -> None:
    running = start(publish(0, version=17), message(1, (0, 1), attempt=3, invocation=5))
    (answer,) = running.take(1)
    assert (answer.version, answer.attempt, answer.invocation) == (17, 3, 5)
    assert answer.row is not None
    assert answer.digest != 0


def test_start_ups_of_different_workers_pass_side_by_side(start: Start) -> None:
    running = start(publish(0), *(message(worker, (0, 0), startup=1.0) for worker in range(4)))
    running.take(1)
    # The other three started up together with the first: they are there at once, not a second apart.
    assert [running.answers.get(timeout=0.9) for _ in range(3)]


def test_a_worker_that_starts_up_does_not_hold_up_another(start: Start) -> None:
    running = start(publish(0), message(0, (0, 0), startup=0.3), message(1, (0, 0)))
    assert [answer.task.worker for answer in running.take(2)] == [1, 0]


def test_messages_of_one_worker_are_done_in_turn(start: Start) -> None:
    running = start(publish(0), message(0, (0, 0), startup=0.1), message(0, (0, 1)))
    assert [answer.task.group for answer in running.take(2)] == [0, 1]


def test_cancelled_work_is_passed_over_and_can_be_sent_again(start: Start) -> None:
    running = start(publish(0), message(0, (0, 0), (0, 1)), Cancel((MiniTask(0, 0, 0),)))
    assert [answer.task.group for answer in running.take(1)] == [1]
    running.post(message(0, (0, 0)))
    assert [answer.task.group for answer in running.take(1)] == [0]


def test_a_row_that_was_sent_is_not_made_again_but_for_a_new_attempt(start: Start) -> None:
    running = start(publish(0), message(1, (0, 0)))
    running.take(1)
    running.post(message(1, (0, 0), (0, 1), invocation=1), message(1, (0, 0), invocation=2, attempt=2))
    assert [(answer.task.group, answer.attempt) for answer in running.take(2)] == [(1, 1), (0, 2)]


def test_work_of_a_retired_job_is_passed_over(start: Start) -> None:
    running = start(publish(0), publish(1), message(0, (0, 0), (1, 0), (0, 1)), Retire(0))
    assert [answer.task.job for answer in running.take(1)] == [1]


def test_an_invocation_that_goes_stale_while_it_starts_up_is_reported_once(start: Start) -> None:
    running = start(publish(0), message(0, (0, 0), (0, 1), startup=0.1, invocation=7))
    running.post(Retire(0), publish(1), message(1, (1, 0), startup=0.3))
    stale, fresh = running.take(2)
    assert (stale.row, stale.invocation) == (None, 7)
    assert stale.startup == pytest.approx(0.1)
    assert fresh.task.job == 1


def test_an_error_of_the_work_is_reported_with_its_traceback_and_the_loop_goes_on(start: Start) -> None:
    running = start(publish(0, version=4), message(0, (0, 0), attempt=2), message(3, (0, 0)), config='{"fail_on": 0}')
    bad, good = sorted(running.take(2), key=lambda answer: answer.task.worker == 3)
    assert bad.fault is not None
    assert bad.fault.text == "ValueError: sample 0 cannot be read"
    assert "Traceback" in bad.fault.traceback
    assert (bad.task, bad.version, bad.attempt, bad.row) == (MiniTask(0, 0, 0), 4, 2, None)
    assert good.fault is None


class MuteError(Exception):
    def __str__(self) -> str:
        raise self


class Odd:
    """A Work whose user raises, or returns, anything."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def row(self, payload: Payload, ids: np.ndarray, weights: np.ndarray) -> Any:
        match self.kind:
            case "exit":
                sys.exit(3)
            case "interrupt":
                raise KeyboardInterrupt
            case "mute":
                raise MuteError
            case "matrix":
                return np.zeros((2, 3))
            case "whole numbers":
                return np.zeros(3, dtype=np.int64)
        return [0.0, 1.0]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("exit", "SystemExit: 3"),
        ("interrupt", "KeyboardInterrupt"),
        ("mute", "MuteError: <exception str() failed>"),
        ("matrix", "TypeError: a row must be a float32 or float64 vector: got float64 of shape (2, 3)"),
        ("whole numbers", "TypeError: a row must be a float32 or float64 vector: got int64 of shape (3,)"),
        ("list", "TypeError: a row must be a float32 or float64 vector: got list"),
    ],
)
def test_whatever_a_row_raises_or_returns_is_a_fault_of_that_row(start: Start, kind: str, text: str) -> None:
    running = start(publish(0), message(0, (0, 0), (0, 1)), config=f'{{"kind": "{kind}"}}', target=f"{__name__}:Odd")
    for answer in running.take(2):
        assert answer.fault is not None
        assert answer.fault.text == text


def test_a_work_that_cannot_be_built_is_reported(start: Start) -> None:
    failure = start(config='{"sise": 3}').answers.get(timeout=30)
    assert isinstance(failure, Failure)
    assert "sise" in failure.text


def test_what_a_row_costs_does_not_grow_with_the_workers_of_the_host(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looks at a queue, per row: a loop that looks at all its workers for each would make a thousand times as many."""
    looks, workers = [0], 1000
    settle = WorkerQueues._settle

    def counted(self: WorkerQueues, queue: WorkerQueue, now: float) -> None:
        looks[0] += 1
        settle(self, queue, now)

    monkeypatch.setattr(WorkerQueues, "_settle", counted)
    ids = np.arange(workers)
    jobs = [
        Publish(job, lambda: Payload(0, 0, 0, np.zeros(0), ids, 0, "uncoded", workers, version=1)) for job in range(2)
    ]
    running = start(*jobs, *(message(worker, (0, 0), (1, 0)) for worker in range(workers)))
    running.post(*(message(worker, (0, 0)) for worker in range(workers)), Cancel((MiniTask(1, 0, 3),)))
    answers = running.take(2 * workers - 1)
    assert len({answer.task for answer in answers}) >= 2 * workers - 1
    running.post(Retire(0), Retire(1))
    running.stop()
    # Assigned twice, taken, passed over as sent, and twice retired.
    assert looks[0] <= 8 * 2 * workers
