"""Virtual time is honest: no worker does two things at once, none starts before it was asked to."""

import warnings
from pathlib import Path

import numpy as np
import pytest

from distseq.cluster.pool import Payload
from distseq.cluster.simulated import SimulatedPool
from distseq.cluster.trace import Trace, TraceWarning, load_trace
from distseq.coding.bounds import least_seconds
from distseq.coding.plan import MiniTask
from distseq.scheduling.pipeline import Pipeline
from distseq.simulation.compare import bounds_of
from distseq.simulation.plan import plan
from distseq.simulation.simulate import Setting, simulate


def constant(seconds: float, workers: int = 1) -> Trace:
    return Trace(np.full((1, workers), seconds), 0.0, 0.0)


@pytest.mark.parametrize("unfinished", ["lost", "serial"])
def test_a_second_message_waits_for_the_first_where_that_is_wanted(unfinished: str) -> None:
    """As when two schedulers share the workers during a changeover."""
    pool = SimulatedPool(constant(5.0), unfinished=unfinished)
    for job in range(2):
        pool.publish(job, Payload(job, job, 0, np.zeros(0), np.arange(1), 0, "uncoded", 1))
        pool.send([MiniTask(job, 0, 0)])
    assert [pool.poll(None)[0].at for _ in range(2)] == [5.0, 10.0]


def test_under_lost_a_cancelled_message_makes_room_at_once() -> None:
    pool = SimulatedPool(constant(5.0), unfinished="lost")
    for job in range(3):
        pool.publish(job, Payload(job, job, 0, np.zeros(0), np.arange(1), 0, "uncoded", 1))
        pool.send([MiniTask(job, 0, 0)])
    pool.poll(2.0)
    # The last one first: it waits, and must not start when it is dropped.
    pool.cancel([MiniTask(2, 0, 0)])
    pool.cancel([MiniTask(0, 0, 0)])
    (delivery,) = pool.poll(None)
    assert (delivery.task.job, delivery.at) == (1, 7.0)
    assert pool.worker_seconds() == 7.0


def test_a_changeover_cannot_beat_the_worker() -> None:
    for candidate in ("auto", Pipeline(1, 1)):
        result = simulate(Setting(constant(5.0), models=4, jobs=25), candidate)
        assert result["total_seconds"] >= 25 * 5.0


@pytest.fixture
def early(tmp_path: Path) -> Path:
    """A measured trace: some times are shorter than its slope says that computing takes."""
    times = np.random.default_rng(0).uniform(0.5, 1.5, (50, 8))
    path = tmp_path / "early.npz"
    np.savez(path, times=times, load=1.0, slope=1.0)
    return path


def test_times_below_their_compute_start_at_once_and_are_named(early: Path) -> None:
    with pytest.warns(TraceWarning, match=r"early.npz: \d+ of 400 times are shorter than slope x load"):
        trace = load_trace(early)
    assert trace.startups().min() == 0.0
    assert min(trace.startup(t, i) for t in range(50) for i in range(8)) == 0.0


def test_bounds_hold_and_plan_and_auto_take_such_a_trace(early: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TraceWarning)
        setting = Setting(load_trace(early), models=4, jobs=60)
        assert plan(trace=early, models=4)["chosen"]
    least = {one["scheme"]: one["total_seconds"] for one in bounds_of(setting)}
    for candidate in ("auto", "gc:1", Pipeline(2, 2)):
        seconds = simulate(setting, candidate)["total_seconds"]
        assert seconds >= least["genieAny"] - 1e-9
    trace = setting.trace
    assert least["genieAny"] == least_seconds(trace.startups(), trace.slope, 4, 60, trace.master)


def test_a_trace_without_such_times_says_nothing(tmp_path: Path) -> None:
    constant(1.0).save(tmp_path / "plain.npz")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_trace(tmp_path / "plain.npz")
