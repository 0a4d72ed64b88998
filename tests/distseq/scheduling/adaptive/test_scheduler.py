"""Adaptive scheduling: exact whatever it chooses and whenever it changes, never lost, and about as quick as the best choice."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distseq.cluster.profiles import PROFILES, profile
from distseq.cluster.trace import Trace, load_trace
from distseq.scheduling.adaptive.candidates import candidates
from distseq.scheduling.adaptive.cost import OBJECTIVES, Prices, Question, estimate, least_seconds, prices
from distseq.scheduling.adaptive.scheduler import AdaptiveScheduler, first_pipeline, fits
from distseq.scheduling.adaptive.search import select
from distseq.scheduling.pipeline import Pipeline
from distseq.scheduling.replay import replay
from distseq.scheduling.scheduler import Decision
from distseq.simulation.simulate import Setting, simulate
from tests.coding.strategies import generators
from tests.distseq.engine.closed_form import Played, check_exact, failing, play
from tests.distseq.scheduling.test_round_scheduler import UNFINISHED, Changing, Through, Twice, Twin, Withdrawn, delays
from tests.examples import examples


@dataclass(frozen=True)
class Case:
    """A run to play."""

    n: int
    times: np.ndarray
    steps: tuple[int, ...]
    slope: float
    unfinished: str
    places: int
    costs: tuple[float, ...]

    def scheduler(self) -> AdaptiveScheduler:
        question = Question(len(self.steps), self.unfinished)
        return AdaptiveScheduler(self.n, question, batch=8, places=self.places)

    def play(self, wrap: Any = lambda s: s, fails: Any = None) -> Played:
        first = first_pipeline(self.n, len(self.steps), 8, self.places).scheme(self.n)
        options: dict[str, Any] = {"unfinished": self.unfinished, "costs": self.costs, "fails": fails}
        return play(first, self.times, self.steps, slope=self.slope, wrap=wrap, inner=self.scheduler(), **options)


@st.composite
def cases(draw: st.DrawFn, places: bool = True) -> Case:
    draws, n, models = draw(generators()), draw(st.integers(1, 8)), draw(st.integers(1, 5))
    return Case(
        n,
        delays(n, draws, lost=True),
        tuple(draws.integers(1, 9, models).tolist()),
        draw(st.sampled_from((0.0, 1.0, 5.0))),
        draw(st.sampled_from(UNFINISHED)),
        draw(st.sampled_from((0, 0, 1, n))) if places else 0,
        tuple(draws.choice((1.0, 0.2, 4.0), models).tolist()),
    )


class Restless(Through):
    """Changes to whatever fits, now and then, whether it is better or not."""

    def __init__(self, inner: AdaptiveScheduler, case: Case, draws: np.random.Generator) -> None:
        super().__init__(inner)
        self.adaptive, self.case, self.draws = inner, case, draws
        self.changes: list[str] = []

    def step(self, now: float) -> Decision:
        if not self.case.places and self.draws.random() < 0.3:
            n, models = len(self.adaptive._workers) or self.case.n, len(self.case.steps)
            grid = [one for one in candidates(n, models, 8) if fits(one, n, models)]
            chosen = grid[self.draws.integers(len(grid))]
            self.adaptive._change(chosen, now)
            self.changes.append(self.adaptive.name)
        return super().step(now)


@examples(80)
@given(case=cases())
def test_whatever_it_chooses_every_learner_has_its_exact_sums_in_order(case: Case) -> None:
    check_exact(case.play(), "fr")


@examples(150)
@given(case=cases(places=False), draws=generators())
def test_whenever_it_changes_no_job_is_lost_and_every_sum_is_exact(case: Case, draws: np.random.Generator) -> None:
    check_exact(case.play(lambda inner: Restless(inner, case, draws)), "fr")


@examples(80)
@given(case=cases(places=False), draws=generators())
def test_changes_beside_workers_that_come_and_go_are_exact_too(case: Case, draws: np.random.Generator) -> None:
    check_exact(case.play(lambda inner: Changing(Restless(inner, case, draws), case.n, draws)), "fr")


@examples(60)
@given(case=cases(places=False), draws=generators(), data=st.data())
def test_whoever_fails_whenever_the_others_get_their_exact_sums(
    case: Case, draws: np.random.Generator, data: st.DataObject
) -> None:
    fails = data.draw(failing(case.steps))
    check_exact(case.play(lambda inner: Withdrawn(Restless(inner, case, draws)), fails), "fr", fails)


@examples(30)
@given(case=cases())
def test_a_second_step_with_nothing_new_decides_nothing_new(case: Case) -> None:
    assert case.play(Twice).records == case.play().records


@examples(30)
@given(case=cases(), at=st.integers(1, 40))
def test_a_copy_made_in_the_middle_of_a_run_decides_the_same(case: Case, at: int) -> None:
    assert case.play(lambda inner: Twin(inner, at)).records == case.play().records


def test_it_begins_with_a_part_for_every_worker() -> None:
    assert first_pipeline(256, 4, None, 0) == Pipeline(64, 2)
    assert first_pipeline(256, 4, 16, 0) == Pipeline(16, 2), "no more parts than samples"
    assert first_pipeline(4, 16, None, 0) == Pipeline(1, 2)
    assert first_pipeline(1, 1, None, 3) == Pipeline(1, 1, places=1)


def whole(trace: Trace, models: int, jobs: int, unfinished: str, places: int = 0) -> dict[str, Any]:
    return simulate(Setting(trace, models, jobs, unfinished=unfinished, places=places), "auto")


@pytest.mark.parametrize("unfinished", ["lost", "serial"])
@pytest.mark.parametrize("name", list(PROFILES))
def test_it_is_as_quick_as_the_better_of_uncoded_and_not_splitting(name: str, unfinished: str) -> None:
    trace = profile(name, 16, 0)
    setting = Setting(trace, 4, 160, unfinished=unfinished, arrival="row")
    uncoded = simulate(setting, "uncoded")["total_seconds"]
    one_worker_each = simulate(setting, Pipeline())["total_seconds"]
    found = whole(trace, 4, 160, unfinished)["total_seconds"]
    assert found <= 1.02 * min(uncoded, one_worker_each)  # type: ignore[operator, type-var]


@pytest.mark.parametrize(
    ("name", "unfinished"),
    [
        ("canada_l000", "serial"),
        ("canada_500", "lost"),
        ("canada_b2048_l000", "serial"),
        # Each trace and each way of ending is above; the other pairs are left to `make test-long`.
        pytest.param("canada_l000", "lost", marks=pytest.mark.long),
        pytest.param("canada_500", "serial", marks=pytest.mark.long),
        pytest.param("canada_b2048_l000", "lost", marks=pytest.mark.long),
    ],
)
def test_a_whole_run_is_as_quick_as_the_best_fixed_choice_in_hindsight(
    shared: Path, name: str, unfinished: str
) -> None:
    trace = load_trace(shared / "traces" / f"{name}.npz")
    found = whole(trace, 4, 400, unfinished)["seconds_per_job"]
    pipelines = [Pipeline(p, c, lanes) for p in (13, 16, 18, 19, 22, 27) for c in (2, 3, 4) for lanes in (1, 4)]
    known = min(replay(trace, one, models=4, jobs=400, unfinished=unfinished).decoded[-1] / 400 for one in pipelines)
    assert found <= 1.1 * known  # type: ignore[operator]


def test_a_regime_that_changes_is_followed() -> None:
    calm = profile("bursts", 64, 1)
    quick = np.resize(calm.times / 4, (60, 64))
    trace = Trace(np.vstack([quick, calm.times, calm.times]), 0.0, 10 * calm.slope)
    result = whole(trace, 4, 800, "serial")
    assert len(result["choices"]) >= 2  # type: ignore[arg-type]
    fixed = [Pipeline(p, c) for p in (8, 16, 20, 24, 32) for c in (1, 2)]
    setting = Setting(trace, 4, 800, unfinished="serial")
    known = min(simulate(setting, one)["total_seconds"] for one in fixed)
    assert result["total_seconds"] <= 1.1 * known  # type: ignore[operator]


def test_iterations_are_even_under_a_heavy_tail() -> None:
    from distseq.engine.journal import MemoryJournal

    journal = MemoryJournal()
    simulate(Setting(profile("heavy-tail", 256, 0), 4, 400, unfinished="serial"), "auto", journal=journal)
    last: dict[str, float] = {}
    seconds = []
    for record in journal.records:
        if record["kind"] == "job":
            seconds.append(record["decoded"] - last.get(record["learner"], 0.0))
            last[record["learner"]] = record["decoded"]
    assert np.quantile(seconds, 0.99) <= 2 * np.median(seconds)


def test_data_that_cannot_move_leave_a_part_its_places() -> None:
    result = whole(profile("bursts", 16, 0), 4, 200, "serial", places=4)
    assert all("places=4" in choice["chosen"] for choice in result["choices"])  # type: ignore[attr-defined]
    assert "places=4" in result["chosen"]  # type: ignore[operator]


def test_a_choice_says_what_it_rests_on() -> None:
    result = whole(profile("bursts", 64, 0), 4, 100, "lost")
    choice = result["choices"][0]  # type: ignore[index]
    assert choice["candidates"][0]["name"] == choice["chosen"] != choice["before"] == "pipeline:16,2"
    seconds = [one["seconds"] for one in choice["candidates"]]
    assert seconds == sorted(seconds)
    assert seconds[0] < choice["predicted_before"]
    assert choice["evidence"]["invocations"] >= 64
    assert choice["evidence"]["fast"] < choice["evidence"]["median"] < choice["evidence"]["slowest_hundredth"]


@pytest.mark.parametrize("unfinished", ["lost", "serial"])
def test_passing_over_what_cannot_be_best_changes_nothing(unfinished: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trace, question = profile("bursts", 32, 0), Question(4, unfinished)
    grid = candidates(32, 4)
    quick = select(trace, grid, question, 32)
    monkeypatch.setattr("distseq.scheduling.adaptive.search.least_seconds", lambda *_: 0.0)
    assert select(trace, grid, question, 32)[0] == quick[0]


@pytest.mark.parametrize("unfinished", ["lost", "overlap", "serial"])
@pytest.mark.parametrize("name", ["bursts", "none", "spikes"])
def test_no_replay_is_quicker_than_the_least_seconds(name: str, unfinished: str) -> None:
    trace, question = profile(name, 16, 0), Question(4, unfinished)
    for one in candidates(16, 4):
        assert least_seconds(trace, one, question) <= estimate(trace, one, question, long=True).seconds * (1 + 1e-9)


def test_the_objective_is_what_is_made_small() -> None:
    trace = profile("bursts", 32, 0)
    by = {
        objective: select(trace, candidates(32, 4), Question(4, objective=objective, prices=Prices(message=1.0)), 32)[0]
        for objective in OBJECTIVES
    }
    assert by["worker-seconds"].worker_seconds < by["seconds"].worker_seconds
    assert by["seconds"].seconds < by["worker-seconds"].seconds
    assert by["price"].family == "not splitting", "one message for each job"
    assert by["price"].dollars == pytest.approx(1.0, abs=0.2)


def test_what_a_job_costs_is_its_seconds_messages_and_bytes() -> None:
    paid = Prices(worker_second=2.0, held_second=3.0, message=5.0, gigabyte=7.0)
    question = Question(1, numbers=10**8, objective="price", prices=paid)
    one = estimate(Trace(np.ones((4, 2)), 0.0, 2.0), "uncoded", question, long=True)
    # Two workers start up for a second and compute for one: a message and a row of 0.4 GB for each.
    assert (one.seconds, one.worker_seconds, one.bytes) == pytest.approx((2.0, 4.0, 1.6e9))
    assert one.dollars == pytest.approx(2 * 4 + 3 * 2 * 2 + 5 * 2 + 7 * 1.6)
    assert one.value == one.dollars


def test_workers_that_share_hosts_cannot_compute_more_than_the_hosts() -> None:
    trace = Trace(np.full((4, 8), 0.01), 0.0, 1.0)
    alone = estimate(trace, "uncoded", Question(1), long=True)
    shared = estimate(trace, "uncoded", Question(1, hosts=2), long=True)
    assert alone.seconds == pytest.approx(0.01 + 1 / 8)
    assert shared.seconds == pytest.approx(1 / 2)
    copied = estimate(trace, "gc:3", Question(1, hosts=2), long=True)
    assert copied.seconds == pytest.approx(4 / 2)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("second=1", "got 'second=1'"),
        ("message=x", "got 'message=x'"),
        ("message=-1", "got 'message=-1'"),
        ("message=inf", "got 'message=inf'"),
        ("", "got ''"),
    ],
)
def test_what_is_no_price_is_refused(spec: str, message: str) -> None:
    rule = "a price must be KEY=DOLLARS with DOLLARS >= 0, KEY one of worker_second, held_second, message, gigabyte: "
    with pytest.raises(ValueError, match=rule + message):
        prices(spec)


def test_a_price_that_is_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="a price must be given once: got message twice in 'message=1,message=2'"):
        prices("message=1,message=2")


def test_an_objective_must_be_known_and_a_price_have_prices() -> None:
    with pytest.raises(ValueError, match="the objective must be one of seconds, worker-seconds, price: got 'speed'"):
        Question(1, objective="speed")
    with pytest.raises(ValueError, match="objective = price needs prices"):
        Question(1, objective="price")
