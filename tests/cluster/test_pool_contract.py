"""What every pool promises, tested alike. A new pool is one more entry of POOLS."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distseq.cluster.local.pool import local_pool
from distseq.cluster.pool import Delivery, Payload, Pool, PoolError
from distseq.cluster.probe import Probe, feature
from distseq.cluster.simulated import SimulatedPool
from distseq.cluster.trace import Trace
from distseq.cluster.work import WorkSpec
from distseq.coding.layout import layout
from distseq.coding.plan import MiniTask
from tests.cluster.hosts.deadly import SIZE as DEADLY_SIZE
from tests.cluster.hosts.deadly import deadly

N, SIZE, IDS = 4, 5, np.arange(30, 47)
SCHEME = "gc:1,q=3"
MakePool = Callable[..., Pool]


def simulated(unfinished: str) -> MakePool:
    def make(trace: Trace, **probe: Any) -> Pool:
        return SimulatedPool(trace, Probe(SIZE, **probe), unfinished=unfinished, compute="rows")

    return make


def probe_spec(**probe: Any) -> WorkSpec:
    return WorkSpec("distseq.cluster.probe:Probe", json.dumps({"size": SIZE, **probe}))


def on_ray(inline: int) -> MakePool:
    def make(trace: Trace, **probe: Any) -> Pool:
        from distseq.cluster.ray.pool import ray_pool
        from distseq.cluster.ray.transport import Hosting

        return ray_pool(N, probe_spec(**probe), hosts=2, delays=trace, hosting=Hosting(inline=inline))

    return make


def local(trace: Trace, **probe: Any) -> Pool:
    return local_pool(N, probe_spec(**probe), hosts=2, delays=trace)


POOLS = {name: simulated(name) for name in ("lost", "overlap", "serial")} | {"local": local}
# Rows that come with their answers, and rows that stay with their hosts.
POOLS |= {"ray": on_ray(1 << 20), "ray-kept": on_ray(0)}


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.ray if "ray" in name else ()) for name in POOLS])
def make_pool(request: pytest.FixtureRequest) -> Iterator[MakePool]:
    if "ray" in request.param:
        request.getfixturevalue("ray_session")
    made: list[Pool] = []

    def make(times: Any = None, **probe: Any) -> Pool:
        table = np.full((3, N), 0.01) if times is None else np.asarray(times, dtype=float)
        made.append(POOLS[request.param](Trace(table, 0.0, 0.0), **probe))
        return made[-1]

    yield make
    for pool in made:
        pool.close()


def publish(pool: Pool, job: int, ids: np.ndarray = IDS) -> None:
    pool.publish(job, Payload(job, 0, 0, np.zeros(0), ids, 0, SCHEME, N))


def tasks(job: int, workers: Any = range(N), groups: Any = range(3)) -> list[MiniTask]:
    return [MiniTask(job, group, worker) for worker in workers for group in groups]


def rows(pool: Pool, count: int) -> list[Delivery]:
    """So many deliveries; a pool that owes them and stays silent for 60 s has broken its promise."""
    got: list[Delivery] = []
    end = pool.now() + 60
    while len(got) < count and pool.now() < end:
        got += [delivery for delivery in pool.poll(end) if not delivery.stale]
    return got


def expected(task: MiniTask, ids: np.ndarray = IDS) -> np.ndarray:
    chosen, weights = layout(SCHEME, N).row(task, ids)
    return weights @ feature(chosen, SIZE)


def test_every_mini_task_is_delivered_once_and_its_row_is_right(make_pool: MakePool) -> None:
    pool = make_pool()
    publish(pool, 0)
    sent = tasks(0)
    pool.send(sent)
    assert sorted(delivery.task for delivery in rows(pool, len(sent))) == sorted(sent)
    assert pool.poll(pool.now() + 0.05) == []
    for task in sent:
        np.testing.assert_array_equal(pool.collect(0, {task: 1.0}), expected(task))


def test_rows_of_one_worker_arrive_in_the_order_of_its_message(make_pool: MakePool) -> None:
    pool = make_pool()
    publish(pool, 0)
    sent = [MiniTask(0, group, worker) for worker in range(N) for group in (2, 0, 1)]
    pool.send(sent)
    got = [delivery.task for delivery in rows(pool, len(sent))]
    for worker in range(N):
        assert [task.group for task in got if task.worker == worker] == [2, 0, 1]


def test_collect_is_the_weighted_sum_in_float64(make_pool: MakePool) -> None:
    pool = make_pool()
    publish(pool, 0)
    pool.send(tasks(0))
    rows(pool, 3 * N)
    weights = {task: 0.25 * k - 1 for k, task in enumerate(tasks(0))}
    total = pool.collect(0, weights)
    assert total.dtype == np.float64
    np.testing.assert_allclose(total, sum(w * expected(task) for task, w in weights.items()), rtol=1e-12)


def test_a_decoded_batch_is_the_sum_over_its_samples(make_pool: MakePool) -> None:
    pool = make_pool()
    publish(pool, 0)
    pool.send(tasks(0, workers=(1, 2)))
    rows(pool, 6)
    weights = {MiniTask(0, group, worker): 1.0 for group in range(3) for worker in (1, 2)}
    np.testing.assert_array_equal(pool.collect(0, weights), feature(IDS, SIZE).sum(axis=0))


def test_collecting_a_row_that_is_not_in_hand_is_an_error(make_pool: MakePool) -> None:
    pool = make_pool()
    publish(pool, 0)
    pool.send(tasks(0, workers=[0], groups=[0]))
    rows(pool, 1)
    with pytest.raises(ValueError, match="not in hand"):
        pool.collect(0, {MiniTask(0, 1, 0): 1.0})


def test_poll_is_empty_only_once_its_deadline_has_passed(make_pool: MakePool) -> None:
    pool = make_pool()
    until = pool.now() + 0.2
    assert pool.poll(until) == []
    assert pool.now() >= until


def test_time_never_goes_back(make_pool: MakePool) -> None:
    pool = make_pool()
    publish(pool, 0)
    pool.send(tasks(0))
    times = [pool.now()]
    for _ in range(5):
        pool.poll(pool.now() + 0.02)
        times.append(pool.now())
    assert times == sorted(times)


def test_waiting_for_ever_for_nothing_is_refused(make_pool: MakePool) -> None:
    with pytest.raises(PoolError, match="nothing is outstanding"):
        make_pool().poll(None)


def test_a_retired_job_delivers_no_more_rows(make_pool: MakePool) -> None:
    pool = make_pool([[0.05] * N])
    publish(pool, 0)
    publish(pool, 1)
    pool.send(tasks(0, groups=[0]))
    pool.retire(0)
    pool.send(tasks(1, groups=[0]))
    assert {delivery.task.job for delivery in rows(pool, N)} == {1}
    assert not [delivery for delivery in pool.poll(pool.now() + 0.3) if not delivery.stale]


def test_a_cancelled_mini_task_is_owed_no_more_but_can_be_sent_again(make_pool: MakePool) -> None:
    pool = make_pool()
    publish(pool, 0)
    pool.send(tasks(0, workers=[0], groups=[0]))
    pool.cancel(tasks(0, workers=[0], groups=[0]))
    pool.send(tasks(0, workers=[0], groups=[1]))
    pool.send(tasks(0, workers=[0], groups=[0]))
    assert {delivery.task.group for delivery in rows(pool, 2)} == {0, 1}


def test_job_numbers_are_not_used_twice(make_pool: MakePool) -> None:
    pool = make_pool()
    publish(pool, 3)
    pool.retire(3)
    with pytest.raises(ValueError, match="must increase"):
        publish(pool, 3)


def test_sending_for_a_job_that_was_not_published_is_an_error(make_pool: MakePool) -> None:
    with pytest.raises(ValueError, match="not published"):
        make_pool().send(tasks(7))


def test_a_lost_invocation_is_sent_again(make_pool: MakePool) -> None:
    """Scripted: worker 2's first message is lost; on a real pool it takes the whole host along."""
    times = np.full((3, N), 0.01)
    times[0, 2] = np.inf
    pool = make_pool(times)
    publish(pool, 0)
    sent = tasks(0)
    pool.send(sent)
    got = rows(pool, len(sent))
    assert sorted(delivery.task for delivery in got) == sorted(sent)
    assert {delivery.attempt for delivery in got if delivery.task.worker == 2} == {2}
    for task in sent:
        np.testing.assert_array_equal(pool.collect(0, {task: 1.0}), expected(task))


def test_a_worker_that_loses_everything_is_given_up_after_a_bound(make_pool: MakePool) -> None:
    times = np.full((1, N), 0.01)
    times[0, 1] = np.nan
    pool = make_pool(times)
    publish(pool, 0)
    pool.send(tasks(0, workers=[1]))
    with pytest.raises(PoolError, match=r"attempts|died"):
        rows(pool, 3)


def pool_of(kind: str, work: WorkSpec) -> Pool:
    """A pool of two hosts, in which a row may take half a second."""
    if kind == "local":
        return local_pool(N, work, hosts=2, row_timeout=0.5)
    from distseq.cluster.ray.pool import ray_pool
    from distseq.cluster.ray.transport import Hosting

    hosting = Hosting(inline=0 if kind == "ray-kept" else 1 << 20)
    return ray_pool(N, work, hosts=2, row_timeout=0.5, hosting=hosting)


# A simulated pool computes in the driver's own process: a row that ends that, or never ends, ends or holds the run itself.
@pytest.mark.parametrize(
    "kind",
    [
        "local",
        pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.slow]),
        pytest.param("ray-kept", marks=[pytest.mark.ray, pytest.mark.long]),
    ],
)
@pytest.mark.parametrize("how", ["exit", pytest.param("hang", marks=pytest.mark.long)])
def test_a_row_that_takes_its_hosts_along_is_a_fault_in_the_end_and_every_other_row_arrives(
    kind: str, how: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if kind != "local":
        request.getfixturevalue("ray_session")
    pool = pool_of(kind, deadly(how, tmp_path / "log", learner=0, sample=int(IDS[0])))
    publish(pool, 0)
    sent = tasks(0)
    pool.send(sent)
    got: dict[MiniTask, Delivery] = {}
    end = pool.now() + 120
    while len(got) < len(sent) and pool.now() < end:
        got |= {delivery.task: delivery for delivery in pool.poll(end) if delivery.fault or not delivery.stale}
    deadly_ones = [task for task in sent if touches(task, IDS[0])]
    assert sorted(task for task, delivery in got.items() if delivery.fault is not None) == sorted(deadly_ones)
    assert sorted(got) == sorted(sent)
    # Rows that were in hand and lost with their hosts are computed again.
    for task in [task for task in sent if task not in deadly_ones]:
        chosen, weights = layout(SCHEME, N).row(task, IDS)
        np.testing.assert_array_equal(pool.collect(0, {task: 1.0}), weights @ feature(chosen, DEADLY_SIZE))
    with pytest.raises(ValueError, match="not in hand"):
        pool.collect(0, {deadly_ones[0]: 1.0})
    pool.close()


def test_an_empty_part_gives_a_row_of_zeros(make_pool: MakePool) -> None:
    pool = make_pool()
    publish(pool, 0, IDS[:1])
    pool.send(tasks(0))
    rows(pool, 3 * N)
    weights = {MiniTask(0, group, worker): 1.0 for group in range(3) for worker in (0, 3)}
    np.testing.assert_array_equal(pool.collect(0, weights), feature(IDS[:1], SIZE).sum(axis=0))


def touches(task: MiniTask, sample: int) -> bool:
    return sample in layout(SCHEME, N).row(task, IDS)[0]


def test_an_error_in_the_work_is_a_fault_of_its_mini_task_and_other_work_goes_on(make_pool: MakePool) -> None:
    pool = make_pool(fail_on=int(IDS[3]))
    publish(pool, 0)
    publish(pool, 1, IDS[4:])
    pool.send(tasks(0))
    pool.send(tasks(1))
    bad = [task for task in tasks(0) if touches(task, IDS[3])]
    good = [task for task in tasks(0) if task not in bad]
    assert bad
    got: list[Delivery] = []
    end = pool.now() + 60
    while len(got) < 6 * N and pool.now() < end:
        got += pool.poll(end)
    faults = [delivery for delivery in got if delivery.fault is not None]
    assert sorted(delivery.task for delivery in faults) == bad
    for delivery in faults:
        assert delivery.stale
        assert delivery.host == pool.members()[delivery.task.worker]
        assert delivery.fault is not None
        assert delivery.fault.text == f"ValueError: sample {IDS[3]} cannot be read"
        assert delivery.fault.traceback.count("Traceback") == 1
        assert "in row" in delivery.fault.traceback
    assert sorted(delivery.task for delivery in got if not delivery.stale) == sorted(good + tasks(1))
    for task in good:
        np.testing.assert_array_equal(pool.collect(0, {task: 1.0}), expected(task))
    with pytest.raises(ValueError, match="not in hand"):
        pool.collect(0, {bad[0]: 1.0})
    with pytest.raises(PoolError, match="nothing is outstanding"):  # a fault is owed no more
        pool.poll(None)


def test_a_mini_task_that_has_failed_fails_again_when_it_is_sent_again(make_pool: MakePool) -> None:
    pool = make_pool(fail_on=int(IDS[0]))
    publish(pool, 0)
    for _ in range(2):
        pool.send(tasks(0, workers=[0], groups=[0]))
        (delivery,) = pool.poll(pool.now() + 60)
        assert (delivery.task, delivery.stale) == (MiniTask(0, 0, 0), True)
        assert delivery.fault is not None


def test_a_fault_of_a_job_that_is_over_is_no_news(make_pool: MakePool) -> None:
    pool = make_pool([[0.2] * N], fail_on=int(IDS[0]), seconds=0.2)
    publish(pool, 0)
    pool.send(tasks(0, workers=[0], groups=[0]))
    assert pool.poll(pool.now() + 0.1) == []
    pool.retire(0)
    assert [delivery for delivery in pool.poll(pool.now() + 1.0) if delivery.fault is not None] == []


def test_a_mini_task_that_queues_behind_itself_is_done_once() -> None:
    pool = SimulatedPool(Trace(np.array([[1.0], [5.0], [100.0]]), 0.0, 0.0), unfinished="serial")
    for job in (0, 1):
        pool.publish(job, Payload(job, 0, 0, np.zeros(0), IDS, 0, "uncoded", 1))
    for job in (0, 0, 1):
        pool.send([MiniTask(job, 0, 0)])
    assert [(delivery.task.job, delivery.at) for delivery in rows(pool, 2)] == [(0, 1.0), (1, 6.0)]


def test_closing_twice_is_harmless(make_pool: MakePool) -> None:
    pool = make_pool()
    pool.close()
    pool.close()


@pytest.mark.alone
def test_start_up_is_reported_without_computing(make_pool: MakePool) -> None:
    times = np.full((1, N), 0.01)
    times[0, 3] = 0.4
    pool = make_pool(times, seconds=0.02)
    publish(pool, 0)
    pool.send(tasks(0, groups=[0]))
    startup = {delivery.task.worker: delivery.startup for delivery in rows(pool, N)}
    assert startup[3] == pytest.approx(0.4, abs=0.05)
    assert all(startup[worker] < 0.2 for worker in (0, 1, 2))
