"""A replay has the very times of the real scheduler, pool and master, whatever the scheme, the delays and the pool's ways."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from distseq.cluster.simulated import SimulatedPool
from distseq.cluster.trace import Trace, load_trace
from distseq.coding.schemes.registry import parse
from distseq.coding.schemes.scheme import Scheme
from distseq.engine.interfaces import JobInput, Observer
from distseq.engine.master import Master
from distseq.scheduling.backup import round_scheduler
from distseq.scheduling.closing import Safe
from distseq.scheduling.pipeline import Pipeline
from distseq.scheduling.pipeline_scheduler import PipelineScheduler
from distseq.scheduling.replay import replay
from distseq.simulation.simulate import NOTHING, NullLearner
from tests.coding.strategies import PROPERTY, generators, schemes
from tests.examples import examples

EXACT = 1e-9  # seconds
UNFINISHED = st.sampled_from(("lost", "overlap", "serial"))
COSTS = st.sampled_from((1.0, 1.0, 2.5))


class EnoughError(Exception):
    """So many jobs are decoded as were asked for."""


@dataclass
class Times(Observer):
    """When each of the first jobs was decoded, and what the workers had cost by the last."""

    pool: SimulatedPool
    jobs: int
    seconds: list[float] = field(default_factory=list)
    busy: float = 0.0

    def job_applied(self, learner: str, step: int, metrics: Any, now: float) -> None:
        self.seconds.append(now)
        self.busy = self.pool.worker_seconds()
        if len(self.seconds) == self.jobs:
            raise EnoughError


@dataclass(frozen=True)
class Costly(NullLearner):
    """Its jobs cost so much each."""

    cost: float

    def open(self, step: int) -> JobInput:
        return replace(NOTHING, cost=self.cost)


def real(
    trace: Trace,
    candidate: Scheme | Pipeline,
    *,
    models: int,
    jobs: int,
    unfinished: str,
    whole: bool,
    cutoff: float,
    cost: float = 1.0,
) -> Times:
    """What the master does, with learners that never end."""
    pool = SimulatedPool(trace, unfinished=unfinished, arrival="message" if whole else "row")
    times = Times(pool, jobs)
    if isinstance(candidate, Pipeline):
        scheduler: Any = PipelineScheduler(candidate, trace.workers, frees=unfinished != "serial")
    else:
        scheduler = round_scheduler(candidate, Safe(cutoff), late=unfinished != "lost")
    with pytest.raises(EnoughError):
        Master([Costly(f"m{m}", 10**6, cost) for m in range(models)], scheduler, pool, observers=[times]).run()
    return times


@st.composite
def traces(draw: st.DrawFn, n: int) -> Trace:
    """Start-ups that are spread, that tie, or that are rarely long; with and without compute and a busy master."""
    draws = draw(generators())
    kind = draw(st.integers(0, 2))
    if kind == 0:
        times = draws.exponential(1.0, (7, n))
    elif kind == 1:
        times = draws.integers(0, 3, (7, n)).astype(float)
    else:
        times = np.where(draws.random((7, n)) < 0.1, 30.0, draws.random((7, n)))
    return Trace(times, 0.0, draw(st.sampled_from((0.0, 1.0, 5.0))), draw(st.sampled_from((0.0, 0.1, 1.0))))


def check(trace: Trace, candidate: Scheme | Pipeline, **how: Any) -> None:
    wanted, found = real(trace, candidate, **how), replay(trace, candidate, **how)
    np.testing.assert_allclose(found.decoded, wanted.seconds, rtol=0, atol=EXACT)
    assert found.worker_seconds == pytest.approx(wanted.busy, abs=1e3 * EXACT)


@examples(300)
@given(data=st.data(), scheme=schemes(), unfinished=UNFINISHED, whole=st.booleans())
def test_a_replay_of_rounds_has_the_times_of_the_master(
    data: st.DataObject, scheme: Scheme, unfinished: str, whole: bool
) -> None:
    assume(scheme.exact)
    trace = data.draw(traces(scheme.n))
    models = scheme.delay + data.draw(st.integers(1, 3))
    cutoff, cost = data.draw(st.sampled_from((0.0, 0.0, 0.5, 2.0))), data.draw(COSTS)
    check(trace, scheme, models=models, jobs=15, unfinished=unfinished, whole=whole, cutoff=cutoff, cost=cost)


@examples(300)
@given(data=st.data(), n=st.integers(1, 8), models=st.integers(1, 4), unfinished=UNFINISHED)
def test_a_replay_of_a_pipeline_has_the_times_of_the_master(
    data: st.DataObject, n: int, models: int, unfinished: str
) -> None:
    parts, copies, burst = (data.draw(st.integers(1, most)) for most in (6, 4, 3))
    lanes, places = data.draw(st.sampled_from([(1, 0), (min(n, 2), 0), (min(n, 3), 0), (1, 1), (1, max(1, n - 1))]))
    pipeline = Pipeline(parts, copies, lanes, burst, places)
    how = {"models": models, "jobs": 15, "unfinished": unfinished, "whole": False, "cutoff": 0.0}
    check(data.draw(traces(n)), pipeline, cost=data.draw(COSTS), **how)


@pytest.mark.parametrize("unfinished", ["lost", "overlap", "serial"])
@pytest.mark.parametrize(
    "candidate",
    [
        *("uncoded", "gc:7", "gc:8,q=9", "srsgc:2,3,23", "msgc:1,2,27", "msgc:2,3,256"),
        *("redispatch:2,copies=4", "backup:75"),
        *(Pipeline(18, 3), Pipeline(16, 2, lanes=4), Pipeline(64, 1, burst=2), Pipeline(8, 4, places=32)),
    ],
    ids=str,
)
def test_a_replay_of_the_recorded_trace_has_the_times_of_the_master(
    shared: Path, candidate: str | Pipeline, unfinished: str
) -> None:
    trace = load_trace(shared / "traces" / "canada_l000.npz")
    one = parse(candidate, trace.workers) if isinstance(candidate, str) else candidate
    check(trace, one, models=4, jobs=25, unfinished=unfinished, whole=False, cutoff=0.0)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"candidate": parse("msgc:1,2,1", 4)}, r"msgc:1,2,1 has delay T=1 and needs at least T \+ 1 learners: got 1"),
        ({"candidate": parse("uncoded", 5)}, "uncoded is for 5 workers: the trace has 4"),
        ({"jobs": 0}, "a replay needs jobs >= 1: got 0"),
        ({"unfinished": "late"}, "unfinished must be one of lost, overlap, serial: got 'late'"),
    ],
)
def test_what_cannot_be_replayed_is_refused(how: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        replay(Trace(np.ones((3, 4)), 0.0, 1.0), **{"candidate": parse("uncoded", 4), "models": 1, "jobs": 3} | how)


@PROPERTY
@given(draws=generators(), n=st.integers(1, 5))
def test_a_lost_invocation_takes_as_long_as_it_takes_to_notice_and_the_next(draws: np.random.Generator, n: int) -> None:
    times = draws.exponential(1.0, (7, n))
    times[:6:2][draws.random((3, n)) < 0.5] = np.inf
    check(Trace(times, 0.0, 1.0), parse("uncoded", n), models=1, jobs=15, unfinished="serial", whole=False, cutoff=0.0)


def test_replays_are_compiled_where_nothing_can_be_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a read-only home and a read-only installation."""
    from numba.core.caching import CacheImpl

    from distseq.scheduling.replay.pool import _cacheable

    assert _cacheable()
    monkeypatch.setattr(CacheImpl, "_locator_classes", [])
    assert not _cacheable()
