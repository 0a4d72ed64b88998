"""What pools of processes go through: hosts that die, hang, come too late or cannot be placed."""

import os
import signal
from collections.abc import Callable

import numpy as np
import pytest

from distseq.cluster.hosts.host_pool import HostPool
from distseq.cluster.local.pool import local_pool
from distseq.cluster.pool import Payload, PoolError
from distseq.cluster.probe import feature
from distseq.cluster.ray.pool import ray_pool
from distseq.cluster.trace import Trace
from distseq.cluster.work import WorkSpec
from distseq.coding.plan import MiniTask

PROBE = WorkSpec("distseq.cluster.probe:Probe", '{"size": 4}')
IDS = np.arange(20)
TASKS = [MiniTask(0, 0, worker) for worker in range(4)]


Make = Callable[..., HostPool]


def sent(make: Make, startup: float = 0.01, silent_after: float = 30.0) -> HostPool:
    """A pool of four workers on two hosts that owe a row each, after this start-up."""
    pool = make(4, PROBE, hosts=2, delays=Trace(np.full((1, 4), startup), 0.0, 0.0), silent_after=silent_after)
    pool.publish(0, Payload(0, 0, 0, np.zeros(0), IDS, 0, "uncoded", 4))
    pool.send(TASKS)
    return pool


def total(pool: HostPool) -> tuple[np.ndarray, dict[int, int]]:
    """The decoded sum of the job, and the attempt that each worker's row came from."""
    attempts: dict[int, int] = {}
    end = pool.now() + 60
    while len(attempts) < 4 and pool.now() < end:
        attempts |= {delivery.task.worker: delivery.attempt for delivery in pool.poll(end) if not delivery.stale}
    return pool.collect(0, dict.fromkeys(TASKS, 1.0)), attempts


@pytest.mark.parametrize(("blow", "silent_after"), [(signal.SIGKILL, 30.0), (signal.SIGSTOP, 3.0)])
def test_a_host_that_dies_or_hangs_is_replaced_and_its_mini_tasks_sent_again(
    any_pool: Make, blow: int, silent_after: float
) -> None:
    pool = sent(any_pool, startup=1.0, silent_after=silent_after)
    victim = pool.pids()[0]
    os.kill(victim, blow)
    decoded, attempts = total(pool)
    np.testing.assert_array_equal(decoded, feature(IDS, 4).sum(axis=0))
    assert attempts == {0: 2, 1: 1, 2: 2, 3: 1}
    assert victim not in pool.pids()
    pool.close()


def test_rows_in_hand_survive_the_host_that_sent_them(any_pool: Make) -> None:
    pool = sent(any_pool)
    decoded, _ = total(pool)
    os.kill(pool.pids()[1], signal.SIGKILL)
    assert [delivery for delivery in pool.poll(pool.now() + 1.0) if not delivery.stale] == []
    np.testing.assert_array_equal(pool.collect(0, dict.fromkeys(TASKS, 1.0)), decoded)
    pool.close()


def test_a_row_that_comes_after_its_job_is_word_of_a_straggler(any_pool: Make) -> None:
    pool = any_pool(2, WorkSpec("distseq.cluster.probe:Probe", '{"size": 4, "seconds": 0.5}'), hosts=2)
    pool.publish(0, Payload(0, 0, 0, np.zeros(0), IDS, 0, "gc:1", 2))
    pool.send([MiniTask(0, 0, 0)])
    assert pool.poll(pool.now() + 0.2) == []
    pool.retire(0)
    late = pool.poll(pool.now() + 10)
    assert [(delivery.task, delivery.stale) for delivery in late] == [(MiniTask(0, 0, 0), True)]
    assert late[0].compute >= 0.5
    pool.close()


def test_what_was_sent_while_no_host_lived_is_done_by_the_first_that_does() -> None:
    pool = local_pool(4, PROBE, hosts=2)
    pool.publish(0, Payload(0, 0, 0, np.zeros(0), IDS, 0, "uncoded", 4))
    first = pool.pids()
    for pid in first:
        os.kill(pid, signal.SIGKILL)
    while set(pool.pids()) & set(first):
        pool.poll(pool.now() + 0.01)
    os.kill(pool.pids()[1], signal.SIGSTOP)  # before it can have loaded its Work
    pool.send(TASKS)
    decoded, _ = total(pool)
    np.testing.assert_array_equal(decoded, feature(IDS, 4).sum(axis=0))
    pool.close()


def test_a_host_that_was_stopped_has_waited_as_long_by_the_master_s_clock(any_pool: Make) -> None:
    pool = sent(any_pool)
    total(pool)
    pool.publish(1, Payload(1, 0, 0, np.zeros(0), IDS, 0, "uncoded", 4))
    victim = pool.pids()[0]
    os.kill(victim, signal.SIGSTOP)
    pool.send([task._replace(job=1) for task in TASKS])
    answers, end = {}, pool.now() + 2.0
    while pool.now() < end:
        answers |= {delivery.task.worker: delivery for delivery in pool.poll(end)}
    os.kill(victim, signal.SIGCONT)
    while len(answers) < 4:
        answers |= {delivery.task.worker: delivery for delivery in pool.poll(pool.now() + 60)}
    assert min(answers[worker].startup for worker in (0, 2)) > 1.9
    assert max(answers[worker].startup for worker in (1, 3)) < 1.9
    pool.close()


@pytest.mark.ray
def test_hosts_that_do_not_fit_are_refused_at_once(ray_session: None) -> None:
    with pytest.raises(ValueError, match="99 hosts of 1 CPU do not fit: the cluster has room for 4"):
        ray_pool(128, PROBE, hosts=99)


@pytest.mark.parametrize("hosts", [0, 5])
def test_more_hosts_than_workers_or_none_are_refused(any_pool: Make, hosts: int) -> None:
    with pytest.raises(ValueError, match=f"1 <= hosts <= workers: got workers=4, hosts={hosts}"):
        any_pool(4, PROBE, hosts=hosts)


def test_a_work_that_ends_its_process_is_given_up_with_its_name(any_pool: Make) -> None:
    pool = any_pool(1, WorkSpec("sys:exit"), hosts=1)
    pool.publish(0, Payload(0, 0, 0, np.zeros(0), IDS, 0, "uncoded", 1))
    pool.send([MiniTask(0, 0, 0)])
    with pytest.raises(PoolError, match="SystemExit"):
        pool.poll(pool.now() + 30)
    pool.close()
