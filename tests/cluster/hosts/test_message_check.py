"""A host whose reports cannot be true counts as dead, before anything of them is believed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distseq.cluster.errors import Fault, PoolError
from distseq.cluster.hosts.host_pool import HostPool
from distseq.cluster.hosts.message_check import damage
from distseq.cluster.hosts.messages import Answer, Failure, Progress
from distseq.cluster.hosts.transport import verified
from distseq.cluster.pool import Payload
from distseq.cluster.probe import feature
from distseq.coding.plan import MiniTask
from tests.fuzz.harness import fuzz
from tests.fuzz.messages import IDS, REPORTS, TASKS, Mutating

ANSWER = Answer(MiniTask(0, 0, 1), 1, 1, 0, 0.0, 0.5, None, 0)


def exists(task: MiniTask) -> bool:
    return task.worker < 4


def test_true_reports_are_used() -> None:
    for report in (
        ANSWER,
        ANSWER._replace(fault=Fault("ValueError: x", "", "here")),
        Progress((MiniTask(0, 0, 3),), 2.5),
        Progress((), 0.0, True),
        Failure("x", "y", "z"),
    ):
        assert damage([report, report], exists) is None
    assert damage([], exists) is None


@pytest.mark.parametrize(
    ("report", "message"),
    [
        (None, "it sent a NoneType in place of a report"),
        (ANSWER._replace(task=(0, 0, 1)), "it reported a mini-task that does not exist"),  # type: ignore[arg-type]
        (ANSWER._replace(task=MiniTask(0, 0, 4)), "it reported a mini-task that does not exist"),
        (ANSWER._replace(task=MiniTask(0, -1, 0)), "it reported a mini-task that does not exist"),
        (ANSWER._replace(startup=float("nan")), "it reported seconds that no clock shows"),
        (ANSWER._replace(compute=-1.0), "it reported seconds that no clock shows"),
        (ANSWER._replace(compute=10**400), "it reported seconds that no clock shows"),
        (ANSWER._replace(invocation=-1), "it sent an answer without its numbers"),
        (ANSWER._replace(version="1"), "it sent an answer without its numbers"),  # type: ignore[arg-type]
        (ANSWER._replace(fault=Fault(5)), "it sent a fault that is no text"),  # type: ignore[arg-type]
        (Progress((MiniTask(0, 0, 9),), 1.0), "it reported a mini-task that does not exist"),
        (Progress(5, 1.0), "it reported a mini-task that does not exist"),  # type: ignore[arg-type]
        (Progress((), float("inf")), "it reported seconds that no clock shows"),
        (Progress((), 0.0, np.ones(2)), "it reported seconds that no clock shows"),  # type: ignore[arg-type]
        (Failure("x", None, "z"), "it sent a failure that is no text"),  # type: ignore[arg-type]
    ],
)
def test_a_report_that_cannot_be_true_is_named(report: Any, message: str) -> None:
    assert damage([ANSWER, report], exists) == message
    assert damage(report, exists) is not None


def test_what_a_damaged_host_owed_is_done_by_its_successor() -> None:
    """The first two batches hold a row of a worker that does not exist."""
    batches = iter([True, True])

    def change(reports: list[Any]) -> list[Any]:
        wrong = [ANSWER._replace(task=MiniTask(0, 0, 99))]
        return [*reports, *wrong] if any(isinstance(r, Answer) for r in reports) and next(batches, False) else reports

    pool = HostPool(4, Mutating(change), 2)
    pool.publish(0, Payload(0, 0, 0, np.zeros(0), IDS, 0, "uncoded", 4))
    pool.send(TASKS)
    came: dict[int, int] = {}
    while len(came) < 4:
        came |= {one.task.worker: one.attempt for one in pool.poll(pool.now() + 1)}
    np.testing.assert_array_equal(pool.collect(0, dict.fromkeys(TASKS, 1.0)), feature(IDS, 4).sum(0))
    assert min(came.values()) >= 2
    assert all("it reported a mini-task that does not exist" in line for line in pool.news())
    pool.close()


@pytest.mark.parametrize("row", [None, [1.0], "x", np.ones((1, 2), np.float32), np.ones(2, np.int64), np.array([None])])
def test_a_row_that_is_no_vector_is_refused(row: Any) -> None:
    with pytest.raises(PoolError, match=r"^the row of x is not a vector of numbers$"):
        verified("x", row, 0)


def test_a_check_that_is_missing_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distseq.cluster.hosts.host_pool.damage", lambda reports, exists: None)
    assert len(fuzz(REPORTS, range(60), tmp_path).failures) > 10
