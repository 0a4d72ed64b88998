"""What each worker did when: by hand on a few workers, and in sum what the pool counts on any trace."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from distseq.cluster.profiles import profile
from distseq.cluster.trace import Trace
from distseq.engine.journal import ARRIVAL, MemoryJournal
from distseq.scheduling.adaptive.candidates import Candidate, candidates
from distseq.scheduling.pipeline import Pipeline
from distseq.simulation.simulate import Setting, simulate
from distseq.simulation.timeline import Span, Timeline
from tests.coding.strategies import PROPERTY, generators
from tests.distseq.simulation.test_simulate import any_trace


def watch(trace: Trace, candidate: Candidate, **changes: Any) -> tuple[list[Span], dict[str, Any]]:
    setting = Setting(trace, **({"models": 1, "jobs": 1} | changes))
    timeline = Timeline(setting.unfinished)
    result = simulate(setting, candidate, timeline=timeline)
    assert result == simulate(setting, candidate), "watching changes nothing"
    return timeline.spans(), result


def test_who_is_missing_when_a_round_ends_is_a_straggler_and_who_is_early_waits() -> None:
    # Replica sets {0, 1} and {2, 3}: the round ends at 1.5.
    spans, _ = watch(Trace(np.array([[1.0, 1.2, 1.5, 5.0]]), 0.0, 0.0), "gc:1", jobs=2)
    first = [(0, 0.0, 1.0, "work"), (1, 0.0, 1.2, "work"), (2, 0.0, 1.5, "work"), (3, 0.0, 1.5, "straggler")]
    assert spans == first + [(i, begun + 1.5, ended + 1.5, kind) for i, begun, ended, kind in first]


@pytest.mark.parametrize("unfinished", ["lost", "overlap", "serial"])
def test_a_copy_is_told_from_the_straggler_that_it_stands_in_for(unfinished: str) -> None:
    # Two parts on three workers: 2 copies part 0, in vain, for 0 is there at 1; then 0 copies part 1, which is there at 3.
    trace = Trace(np.array([[1.0, 9.0, 2.0], [2.0, 9.0, 9.0]]), 0.0, 0.0)
    spans, _ = watch(trace, Pipeline(2, 3), unfinished=unfinished)
    assert set(spans) >= {(0, 0.0, 1.0, "work"), (0, 1.0, 3.0, "copy"), (1, 0.0, 3.0, "straggler")}
    assert next(span for span in spans if span.worker == 2).kind == "copy in vain"


def test_a_row_that_is_sent_again_in_a_later_round_is_a_copy() -> None:
    # Round 0 ends with its first row. In round 1, 0 and 1 do the missing parts of job 0 before their own; in round 2 the
    # fastest does the one that is missing of job 1.
    trace = Trace(np.array([[1.0, 1.1, 9.0], [1.0, 1.1, 1.2]]), 0.0, 0.0)
    spans, _ = watch(trace, "redispatch:1,copies=1", models=2, jobs=2)
    assert spans == [
        *[(0, 0.0, 1.0, "work"), (1, 0.0, 1.0, "straggler"), (2, 0.0, 1.0, "straggler")],
        *[(0, 1.0, 2.0, "copy"), (1, 1.0, 2.1, "copy"), (2, 1.0, 2.1, "straggler")],
        (0, 2.1, 3.1, "copy"),
    ]


@settings(PROPERTY, max_examples=10)
@example(n=3, models=3, draws=np.random.default_rng(0), unfinished="lost")
@given(
    n=st.integers(1, 6),
    models=st.integers(1, 4),
    draws=generators(),
    unfinished=st.sampled_from(("lost", "overlap", "serial")),
)
def test_spans_add_up_to_what_the_pool_counts(n: int, models: int, draws: np.random.Generator, unfinished: str) -> None:
    trace = any_trace(n, draws)
    for candidate in candidates(n, models):
        spans, result = watch(trace, candidate, models=models, jobs=3 * models, unfinished=unfinished)
        busy = sum(span.ended - span.begun for span in spans)
        counted = result["worker_seconds_per_job"] * 3 * models
        assert unfinished != "lost" or busy == pytest.approx(counted)
        # What goes on when nobody waits for it may not be heard of before the end.
        assert unfinished != "serial" or busy <= counted + 1e-9
        assert all(0 <= span.begun < span.ended <= result["total_seconds"] + 1e-9 for span in spans)
        if unfinished != "overlap":
            for i in range(n):
                own = [span for span in spans if span.worker == i]
                assert all(a.ended <= b.begun + 1e-9 for a, b in pairwise(own))


def test_a_copy_whose_row_is_decoded_is_not_in_vain() -> None:
    """A message of two parts: one row of it is used, the other comes too late."""
    trace = profile("bursts", 16, seed=0)
    setting = Setting(trace, models=4, jobs=80)
    pipeline, used = Pipeline(4, 2), set[tuple[int, float]]()
    timeline, journal = Timeline(setting.unfinished), MemoryJournal()
    simulate(setting, pipeline, timeline=timeline, journal=journal)
    for record in journal.records:
        if record["kind"] == "job":
            rows = {tuple(row) for row in record["rows"]}
            arrived = (dict(zip(ARRIVAL, one, strict=True)) for one in record["arrivals"])
            used |= {
                (one["worker"], one["at"])
                for one in arrived
                if one["job"] == record["job"] and (one["group"], one["worker"]) in rows
            }
    ended = {(span.worker, round(span.ended, 6)): span.kind for span in timeline.spans()}
    kinds = [ended[one] for one in used if one in ended]
    assert len(kinds) > 100
    assert "copy" in kinds
    assert "copy in vain" not in kinds


def test_recording_costs_as_much_per_job_in_a_long_run_as_in_a_short_one() -> None:
    """Counted, not timed: what a decision looks at is about the jobs that it is about."""
    looked = []
    for jobs in (200, 2000):
        timeline = Timeline("serial")
        simulate(Setting(profile("bursts", 8, seed=0), 4, jobs, unfinished="serial"), Pipeline(4, 2), timeline=timeline)
        looked.append(len(timeline._waiting) + len(timeline._rows))
    assert looked[1] <= looked[0] + 16
