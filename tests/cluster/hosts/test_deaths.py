"""Rows that take their host along, by ending its process or by never ending: laid to their learner, and the others go on."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distseq.cluster.hosts.host_pool import HostPool
from distseq.cluster.hosts.job_table import BLAMED
from distseq.cluster.local.pool import local_pool
from distseq.cluster.pool import Delivery, Payload
from distseq.cluster.probe import feature
from distseq.cluster.work import WorkSpec
from distseq.coding.plan import MiniTask
from tests.cluster.hosts.deadly import SIZE, deadly, strikes

N, IDS = 4, np.arange(20)
LONG = 60.0  # seconds after which a test has failed
Make = Callable[..., HostPool]


def heavy(*marks: pytest.MarkDecorator) -> tuple[pytest.MarkDecorator, ...]:
    return (pytest.mark.slow, *marks)


@pytest.fixture(
    params=[
        "local",
        pytest.param("ray", marks=heavy(pytest.mark.ray)),
        pytest.param("ray-kept", marks=heavy(pytest.mark.ray, pytest.mark.long)),
    ]
)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """(how, options of Deadly, options of the pool) -> a pool of four workers on two hosts."""
    made: list[HostPool] = []
    if request.param != "local":
        request.getfixturevalue("ray_session")

    def pool(how: str, options: dict[str, Any] | None = None, **more: Any) -> HostPool:
        work = deadly(how, tmp_path / "log", **(options or {}))
        made.append(start(request.param, work, **{"hosts": 2, **more}))
        return made[-1]

    yield pool
    for one in made:
        one.close()


def start(kind: str, work: WorkSpec, **options: Any) -> HostPool:
    if kind == "local":
        return local_pool(N, work, **options)
    from distseq.cluster.ray.pool import ray_pool
    from distseq.cluster.ray.transport import Hosting

    return ray_pool(N, work, **options, **({"hosting": Hosting(inline=0)} if kind == "ray-kept" else {}))


def publish(pool: HostPool, job: int, learner: int, scheme: str = "uncoded", kind: str = "gradient") -> list[MiniTask]:
    pool.publish(job, Payload(job, learner, 0, np.zeros(0), IDS, 0, scheme, N, kind=kind))
    return [MiniTask(job, 0, worker) for worker in range(N)]


def await_(pool: HostPool, enough: Callable[[list[Delivery]], bool]) -> list[Delivery]:
    """What is delivered until it is enough; a job with a fault is retired, as a run does."""
    got: list[Delivery] = []
    end = pool.now() + LONG
    while not enough(got):
        assert pool.now() < end, f"only {got} within {LONG} s"
        for delivery in pool.poll(end):
            got.append(delivery)
            if delivery.fault is not None:
                pool.retire(delivery.task.job)
    return got


def rows(got: list[Delivery], job: int) -> list[MiniTask]:
    return sorted(delivery.task for delivery in got if delivery.task.job == job and not delivery.stale)


def faults(got: list[Delivery]) -> list[Delivery]:
    return [delivery for delivery in got if delivery.fault is not None]


def check_sum(pool: HostPool, tasks: list[MiniTask]) -> None:
    np.testing.assert_array_equal(pool.collect(tasks[0].job, dict.fromkeys(tasks, 1.0)), feature(IDS, SIZE).sum(axis=0))


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ("segfault", "gradient"),
        ("exit", "evaluation"),
        pytest.param("read segfault", "gradient", marks=heavy(pytest.mark.long)),
        pytest.param("segfault", "evaluation", marks=heavy(pytest.mark.long)),
    ],
)
def test_a_learner_whose_rows_kill_their_process_gets_a_fault_and_the_others_their_rows(
    make: Make, tmp_path: Path, how: str, kind: str
) -> None:
    pool = make(how)
    bad, good = publish(pool, 0, 0, kind=kind), publish(pool, 1, 1)
    pool.send(bad + good)
    got = await_(pool, lambda got: len(faults(got)) == 1 and len(rows(got, 1)) == N)
    (fault,) = faults(got)
    assert fault.task in bad
    assert fault.fault is not None
    assert f"its host was lost in each of {BLAMED} attempts at one row; last cause: " in fault.fault.text
    assert rows(got, 0) == []
    check_sum(pool, good)
    # Each host may die once of something unknown and twice before one at a time is tried.
    assert strikes(tmp_path / "log") <= 2 * 3 + BLAMED
    # A later learner has a pool as good as new.
    later = publish(pool, 2, 2)
    pool.send(later)
    await_(pool, lambda got: rows(got, 2) == later)
    check_sum(pool, later)


def test_one_sample_that_kills_is_laid_to_its_row_and_the_others_are_delivered(make: Make) -> None:
    pool = make("segfault", {"sample": 7})
    tasks, killer = publish(pool, 0, 0), MiniTask(0, 0, 1)
    pool.send(tasks)
    got: list[Delivery] = []
    end = pool.now() + LONG
    # Not retired, as a run would: what waited for the trial of the killer is delivered then.
    while len(got) < N and pool.now() < end:
        got += [delivery for delivery in pool.poll(end) if delivery.fault is not None or not delivery.stale]
    assert [delivery.task for delivery in faults(got)] == [killer]
    assert rows(got, 0) == [task for task in tasks if task != killer]


@pytest.mark.parametrize("times", [BLAMED - 1, pytest.param(1, marks=heavy())])
def test_a_row_that_kills_less_often_is_computed_in_the_end(make: Make, tmp_path: Path, times: int) -> None:
    pool = make("exit", {"times": times, "sample": 7})
    tasks = publish(pool, 0, 0)
    pool.send(tasks)
    got = await_(pool, lambda got: rows(got, 0) == tasks)
    assert faults(got) == []
    assert strikes(tmp_path / "log") == times
    check_sum(pool, tasks)


@pytest.mark.parametrize("how", ["hang", pytest.param("read hang", marks=heavy())])
def test_a_row_that_never_ends_is_sent_again_and_laid_to_its_learner_in_the_end(
    make: Make, tmp_path: Path, how: str
) -> None:
    pool = make(how, row_timeout=0.3)
    bad, good = publish(pool, 0, 0), publish(pool, 1, 1)
    pool.send(bad + good)
    got = await_(pool, lambda got: len(faults(got)) == 1 and len(rows(got, 1)) == N)
    (fault,) = faults(got)
    assert fault.fault is not None
    worker = fault.task.worker
    begin = (
        f"its host was lost in each of {BLAMED} attempts at one row; last cause: group 0 of job 0 for worker {worker}"
    )
    # How long it took is measured, so it differs with how busy the machine is.
    told = re.fullmatch(
        re.escape(begin) + r" took ([\d.]+) s, longer than its limit of 0\.3 s \(row_timeout\)", fault.fault.text
    )
    assert told, fault.fault.text
    assert 0.3 < float(told[1]) < LONG
    check_sum(pool, good)
    assert BLAMED <= strikes(tmp_path / "log") <= BLAMED + 2


def test_a_row_that_hangs_once_only_delays_and_its_worker_is_named(make: Make) -> None:
    pool = make("hang", {"times": 1, "sample": 7}, row_timeout=0.3)
    tasks, news = publish(pool, 0, 0), list[str]()
    pool.send(tasks)
    got: list[Delivery] = []
    end = pool.now() + LONG
    while rows(got, 0) != tasks and pool.now() < end:
        got += pool.poll(end)
        news += pool.news()
    check_sum(pool, tasks)
    assert any("host-1 is replaced: group 0 of job 0 for worker 1 took" in line for line in news), news


def test_a_row_whose_job_is_over_does_not_hold_its_host_for_ever(make: Make) -> None:
    pool = make("hang", row_timeout=0.3, hosts=1)
    bad = publish(pool, 0, 0)
    pool.send(bad)
    assert pool.poll(pool.now() + 0.2) == []
    pool.retire(0)
    good = publish(pool, 1, 1)
    pool.send(good)
    await_(pool, lambda got: rows(got, 1) == good)
    check_sum(pool, good)


@pytest.mark.slow
def test_a_host_that_a_row_has_stopped_is_silent_and_the_row_is_blamed(make: Make, tmp_path: Path) -> None:
    pool = make("stop", {"sample": 7}, silent_after=1.5)
    tasks = publish(pool, 0, 0)
    pool.send(tasks)
    got = await_(pool, lambda got: len(faults(got)) == 1)
    (fault,) = faults(got)
    assert fault.fault is not None
    assert "it was silent for" in fault.fault.text
    # The first death was of unknown cause.
    assert strikes(tmp_path / "log") == 1 + BLAMED


def test_poll_comes_back_within_a_second_so_that_a_stop_is_seen(make: Make) -> None:
    pool = make("none", {"seconds": 3.0})
    pool.send(publish(pool, 0, 0))
    for until in (None, pool.now() + 30):
        begun = pool.now()
        assert pool.poll(until) == []
        assert pool.now() - begun < 1.5
