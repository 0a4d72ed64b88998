"""What was seen of the workers becomes a table that is like them, though the slowest are only ever seen to be slow."""

from collections.abc import Sequence

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from distseq.cluster.pool import Delivery
from distseq.coding.plan import MiniTask
from distseq.scheduling.adaptive.evidence import DEPTH, GOLDEN, ROWS, Evidence, _imputed
from distseq.scheduling.adaptive.rare_events import RATE, SECONDS
from tests.coding.strategies import PROPERTY, generators


class Told:
    """Evidence, and a worker's invocations one after the other."""

    def __init__(self, *, silent: bool) -> None:
        self.evidence, self.now, self.count = Evidence(silent=silent), 0.0, 0

    def invocation(self, worker: int, startup: float, *, load: float = 0.0, slope: float = 1.0) -> None:
        task = MiniTask(self.count, 0, worker)
        self.evidence.record_sent([task], self.now, lambda _: load)
        self.now += startup + slope * load
        self.count += 1
        row = Delivery(task, self.now, startup, slope * load, f"host-{worker}", 1, self.count)
        self.evidence.record_delivery(row, load)
        self.evidence.record_finished([task.job], self.now)

    def given_up(self, worker: int, after: float) -> None:
        task = MiniTask(self.count, 0, worker)
        self.evidence.record_sent([task], self.now, lambda _: 0.0)
        self.now += after
        self.count += 1
        self.evidence.record_cancelled([task], self.now)

    def table(self, n: int) -> np.ndarray:
        trace = self.evidence.trace(n, self.now)
        assert trace is not None
        return trace.startups()


def test_nothing_heard_is_no_trace() -> None:
    assert Evidence(silent=False).trace(3, 1.0) is None


def test_a_workers_latest_start_ups_head_its_column_in_their_order() -> None:
    told = Told(silent=False)
    for k in range(DEPTH + 5):
        for worker in range(2):
            told.invocation(worker, 1 + worker + k / 100)
    table = told.table(2)
    assert table.shape == (ROWS, 2)
    for worker in range(2):
        wanted = [1 + worker + k / 100 for k in range(5, DEPTH + 5)]
        same = np.isclose(table[:DEPTH, worker], wanted)
        assert same.sum() >= DEPTH - 1, "but for the rare events that are expected"


def test_compute_is_told_from_start_up_and_what_is_slower_than_usual_is_kept() -> None:
    told = Told(silent=False)
    for _ in range(8):
        told.invocation(0, 0.5, load=0.1, slope=4.0)
    told.invocation(0, 0.5, load=0.1, slope=24.0)
    trace = told.evidence.trace(1, told.now)
    assert trace is not None
    assert trace.slope == pytest.approx(4.0)
    assert trace.startups()[8, 0] == pytest.approx(2.5)


def test_rows_of_one_message_are_one_invocation() -> None:
    told = Told(silent=False)
    tasks = [MiniTask(0, g, 0) for g in range(3)]
    told.evidence.record_sent(tasks, 0.0, lambda _: 0.0)
    for k, task in enumerate(tasks):
        told.evidence.record_delivery(Delivery(task, 4.0 + k, 4.0, 0.0, "a", 1, 0), 0.0)
    assert told.evidence.invocations == told.evidence.rare_events.invocations == 1


def test_work_that_is_given_up_took_longer_than_it_was_waited_for() -> None:
    told = Told(silent=True)
    for _ in range(10):
        told.invocation(0, 1.0)
        told.invocation(0, 3.0)
    told.given_up(0, 2.0)
    told.given_up(0, 1.5)
    own = np.array([one.complete for one in told.evidence._seen[0]])
    assert own.sum() == len(own) - 2
    table = told.table(1)
    assert (table[len(own) - 2 : len(own), 0] >= 3.0 - 1e-9).all(), "nothing between was ever seen"


def test_where_the_pool_tells_of_it_later_work_that_is_given_up_says_nothing_yet() -> None:
    told = Told(silent=False)
    told.invocation(0, 1.0)
    told.given_up(0, 30.0)
    assert told.evidence.invocations == 1


def test_who_owes_a_row_has_taken_as_long_as_it_has_been_waited_for() -> None:
    told = Told(silent=False)
    for worker in range(3):
        told.invocation(worker, 1.0)
    task = MiniTask(9, 0, 2)
    told.evidence.record_sent([task], told.now, lambda _: 0.0)
    told.now += 50.0
    assert told.table(3)[1, 2] >= 50.0


@PROPERTY
@given(draws=generators(), slow=st.integers(1, 6))
def test_what_lost_copies_hide_is_put_back(draws: np.random.Generator, slow: int) -> None:
    """Two workers race for each part and the loser is lost: the table has the medians of all, not of the winners."""
    told, scale = Told(silent=True), np.r_[np.ones(8), np.full(8, float(slow))]
    seconds: list[list[float]] = [[] for _ in range(16)]
    for _ in range(60):
        for a, b in draws.permutation(16).reshape(8, 2):
            times = {w: float(scale[w] * np.exp(0.3 * draws.standard_normal())) for w in (a, b)}
            first, second = sorted((a, b), key=times.__getitem__)
            for w in (a, b):
                seconds[w].append(times[w])
            told.invocation(int(first), times[first])
            told.given_up(int(second), times[first])
    medians = np.median(told.table(16), axis=0)
    true = np.array([np.median(own) for own in seconds])
    assert np.median(medians[:8]) == pytest.approx(np.median(true[:8]), rel=0.25)
    assert np.median(medians[8:]) == pytest.approx(np.median(true[8:]), rel=0.4)


def quiet(told: Told, workers: Sequence[int], startup: float, times: int) -> None:
    for _ in range(times):
        for worker in workers:
            told.invocation(worker, startup)


def test_after_a_change_only_what_is_new_counts() -> None:
    told = Told(silent=False)
    quiet(told, range(8), 1.0, 20)
    quiet(told, range(8), 3.0, 6)
    assert np.median(told.table(8)) == pytest.approx(3.0)


def test_workers_that_stay_as_they_are_keep_all_that_was_seen() -> None:
    told = Told(silent=False)
    for k in range(20):
        quiet(told, range(8), 1.0 + 0.01 * (k % 3), 1)
    table = told.table(8)
    assert {round(float(s), 2) for s in table.ravel()} >= {1.0, 1.01, 1.02}


def test_rare_events_are_expected_though_none_was_seen() -> None:
    told = Told(silent=False)
    quiet(told, range(16), 1.0, 20)
    table = told.table(16)
    assert table.sum() - table.size == pytest.approx(RATE * table.size * SECONDS)


def test_a_worker_on_another_host_begins_anew() -> None:
    told = Told(silent=False)
    told.evidence.members({0: "a", 1: "b"})
    quiet(told, range(2), 1.0, 3)
    told.evidence.members({0: "a", 1: "c"})
    assert list(told.evidence._seen) == [0]


def test_few_invocations_of_a_worker_are_eked_out_by_those_of_others() -> None:
    told = Told(silent=False)
    draws = np.random.default_rng(0)
    for worker in range(50):
        told.invocation(worker, float(np.exp(0.5 * draws.standard_normal())))
    table = told.table(50)
    assert all(len(np.unique(table[:, worker])) > 5 for worker in range(50))


@PROPERTY
@given(size=st.integers(2, 60), draws=generators())
def test_unfinished_start_ups_are_quantiles_of_the_kaplan_meier_estimate(size: int, draws: np.random.Generator) -> None:
    seconds, complete = draws.exponential(1.0, size), draws.random(size) < 0.7
    complete[0] = True
    censored = scipy.stats.CensoredData(uncensored=seconds[complete], right=seconds[~complete])
    survival = scipy.stats.ecdf(censored).sf.evaluate
    found, steps = _imputed(seconds, complete), np.sort(seconds[complete])
    np.testing.assert_array_equal(found[complete], seconds[complete])
    for j, k in enumerate(np.flatnonzero(~complete)):
        wanted = survival(seconds[k]) * (1 - GOLDEN * (j + 1) % 1)
        later = steps[(steps > seconds[k]) & (survival(steps) <= wanted)]
        assert found[k] == (later[0] if len(later) else max(2 * seconds[k], steps[-1]))
