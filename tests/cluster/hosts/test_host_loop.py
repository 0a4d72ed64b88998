"""When a host sends what: answers at once or gathered, signs of life, and announcements of what may end its process."""

import json
import time

import numpy as np
import pytest

from distseq.cluster.hosts import host_loop
from distseq.cluster.hosts.host_loop import HostLoop
from distseq.cluster.hosts.messages import Answer, Assign, Progress, Publish, Report
from distseq.cluster.pool import Payload
from distseq.cluster.work import WorkSpec
from distseq.coding.plan import MiniTask

N = 4


def loop(**probe: float) -> HostLoop:
    made = HostLoop(WorkSpec("distseq.cluster.probe:Probe", json.dumps(probe)))
    made.post([Publish(0, lambda: Payload(0, 0, 0, np.zeros(0), np.arange(40), 0, "gc:1,q=10", N, version=1))])
    return made


def messages(group: int, announced: bool = False) -> list[Assign]:
    return [Assign(worker, (MiniTask(0, group, worker),), 1, group, 0.0, announced) for worker in range(N)]


def workers(reports: list[Report]) -> list[int]:
    return [report.task.worker for report in reports if isinstance(report, Answer)]


def test_answers_leave_at_once_when_nothing_more_is_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    # A host that held them back as long as this would be seen by the clock.
    monkeypatch.setattr(host_loop, "FLUSH", 20.0)
    host, begun = loop(), time.monotonic()
    for group in range(10):
        host.post(messages(group))
        answers: list[int] = []
        while len(answers) < N:
            answers += workers(host.gather())
        assert answers == list(range(N))
    assert time.monotonic() - begun < 10.0


def test_answers_are_gathered_while_more_are_coming(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_loop, "FLUSH", 20.0)
    host = loop(seconds=0.02)
    host.post(messages(0))
    first = workers(host.gather())
    # The first one leaves after a pause, the others together, and none of them is waited for longer than they take.
    assert first == [0]
    begun = time.monotonic()
    assert workers(host.gather()) == [1, 2, 3]
    assert time.monotonic() - begun < 10.0


def test_answers_are_gathered_no_longer_than_a_hundredth_of_a_second() -> None:
    host = loop(seconds=0.05)
    host.post(messages(0))
    assert [workers(host.gather()) for _ in range(N)] == [[0], [1], [2], [3]]


def test_a_sign_of_life_says_what_is_in_hand_and_for_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_loop, "IDLE", 0.1)
    host = loop(seconds=0.5)
    assert host.gather() == [Progress((), 0.0, idle=True)]
    host.post(messages(0)[2:3])
    reports = [host.gather() for _ in range(3)]
    seconds = []
    for report in reports:
        (progress,) = report
        assert isinstance(progress, Progress)
        assert (progress.tasks, progress.idle) == ((MiniTask(0, 0, 2),), False)
        seconds.append(progress.seconds)
    assert seconds == sorted(seconds)
    assert 0.2 < seconds[-1] < 0.5


def test_a_host_that_waits_for_a_start_up_is_not_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_loop, "IDLE", 0.1)
    host = loop()
    host.post([messages(0)[0]._replace(startup=30.0)])
    host.gather()
    assert host.gather() == [Progress((), 0.0, idle=False)]


def test_an_announced_row_begins_when_the_driver_has_been_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_loop, "ANNOUNCED", 60.0)
    host = loop()
    host.post(messages(0, announced=True)[:2])
    batches: list[list[Report]] = []
    while len(workers([report for batch in batches for report in batch])) < 2:
        batches.append(host.gather())
    reports = [report for batch in batches for report in batch]
    told = [Progress((MiniTask(0, 0, worker),), 0.0) for worker in range(2)]
    assert [report for report in reports if isinstance(report, Progress)] == [reports[0], reports[2]] == told
    # Never together: whoever has passed a batch on asks for the next.
    assert all(told[worker] not in batch for batch in batches for worker in workers(batch))


def test_a_driver_that_does_not_listen_does_not_hold_an_announced_row_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_loop, "ANNOUNCED", 0.05)
    host = loop()
    host.post(messages(0, announced=True)[:1])
    time.sleep(0.5)
    assert host.gather()[0] == Progress((MiniTask(0, 0, 0),), 0.0)
    assert workers(host.gather()) == [0]
