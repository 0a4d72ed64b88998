"""Pipelining: any delays give exact sums, no worker waits while there is work, and none has two parts at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distseq.cluster.pool import Delivery, Fault
from distseq.cluster.trace import Trace
from distseq.coding.layout import layout
from distseq.coding.plan import MiniTask
from distseq.coding.schemes.scheme import missing
from distseq.engine.journal import MemoryJournal
from distseq.scheduling.pipeline import Pipeline
from distseq.scheduling.pipeline_scheduler import PATIENCE, PipelineScheduler
from distseq.scheduling.scheduler import Decision, Scheduler
from distseq.simulation.recorded import arrival_table
from distseq.simulation.simulate import Setting, simulate
from tests.coding.strategies import PROPERTY, generators
from tests.distseq.engine.closed_form import Played, check_exact, failing, play
from tests.distseq.scheduling.test_round_scheduler import (
    UNFINISHED,
    Changing,
    Through,
    Twice,
    Twin,
    Withdrawn,
    delays,
    deliveries,
)
from tests.examples import examples

Fails = Mapping[int, tuple[int, str]]


@dataclass(frozen=True)
class Case:
    """A run to play."""

    pipeline: Pipeline
    n: int
    times: np.ndarray
    steps: tuple[int, ...]
    slope: float
    unfinished: str
    costs: tuple[float, ...]

    @property
    def frees(self) -> bool:
        return self.unfinished != "serial"

    def play(self, wrap: Any = lambda s: s, fails: Fails | None = None) -> Played:
        inner = PipelineScheduler(self.pipeline, self.n, frees=self.frees)
        scheme = self.pipeline.scheme(self.n)
        options: dict[str, Any] = {"unfinished": self.unfinished, "costs": self.costs, "fails": fails}
        return play(scheme, self.times, self.steps, slope=self.slope, wrap=wrap, inner=inner, **options)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    draws, n = draw(generators()), draw(st.integers(1, 9))
    models = draw(st.integers(1, 5))
    lanes, places = draw(st.tuples(st.integers(1, min(n, 3)), st.just(0)) | st.tuples(st.just(1), st.integers(1, n)))
    parts, copies, burst = draw(st.integers(1, 6)), draw(st.integers(1, 4)), draw(st.sampled_from((1, 1, 2, 3)))
    pipeline = Pipeline(parts, copies, lanes, burst, places)
    steps = tuple(draws.integers(1, 5, models).tolist()) if draw(st.booleans()) else (3,) * models
    return Case(
        pipeline,
        n,
        delays(n, draws, lost=True),
        steps,
        draw(st.sampled_from((0.0, 1.0, 5.0))),
        draw(st.sampled_from(UNFINISHED)),
        tuple(draws.choice((1.0, 0.2, 4.0), models).tolist()),
    )


class Rules(Through):
    """Sees what is sent, and holds every decision to the rules."""

    def __init__(self, inner: Scheduler, case: Case) -> None:
        super().__init__(inner)
        self.case = case
        self.live: dict[int, list[MiniTask]] = {}  # worker -> what it owes
        self.draining: dict[int, tuple[set[MiniTask], int]] = {}
        self.gone: dict[int, set[MiniTask]] = {}  # worker -> cancelled beside what it owes
        self.heard = 0
        self.copies: dict[tuple[int, int], list[int]] = {}  # part -> its workers
        self.todo: list[tuple[int, int]] = []  # parts never sent, in the order of their jobs
        self.out: list[tuple[int, int]] = []  # parts that are under way, sent the longest ago first
        self.workers = set(range(case.n))
        self.fewest = case.n  # there have been at any time

    def members(self, workers: Mapping[int, str], now: float) -> None:
        super().members(workers, now)
        self.workers = set(workers)
        # Where one worker is alone and stuck, those that have left are taken for idle too.
        self.fewest = 0 if len(workers) < self.case.n else self.fewest

    def delivered(self, arrivals: Sequence[Delivery], now: float) -> None:
        super().delivered(arrivals, now)
        for one in arrivals:
            self.heard += 1
            worker = one.task.worker
            if one.task in self.draining.get(worker, (set(),))[0]:
                del self.draining[worker]
            self.gone.get(worker, set()).discard(one.task)
            if not one.stale and one.task[:2] in self.out:
                self.out.remove(one.task[:2])
            if one.task in self.live.get(worker, []) and (one.fault or one.task[:2] not in self.out):
                self.live[worker].remove(one.task)
                if not self.live[worker]:
                    del self.live[worker]
                    self.gone.pop(worker, None)

    def withdrawn(self, job: int, learner: int) -> None:
        super().withdrawn(job, learner)
        self.todo = [part for part in self.todo if part[0] != job]
        self.out = [part for part in self.out if part[0] != job]
        for task in [task for own in self.live.values() for task in own if task.job == job]:
            self.drop(task)

    def drop(self, task: MiniTask) -> None:
        self.live[task.worker].remove(task)
        self.gone.setdefault(task.worker, set()).add(task)
        if not self.live[task.worker]:
            del self.live[task.worker]
            gone = self.gone.pop(task.worker)
            if not self.case.frees:
                self.draining[task.worker] = (gone, self.heard)

    def idle(self, worker: int) -> bool:
        return worker not in self.live and worker not in self.draining

    def step(self, now: float) -> Decision:
        decision = super().step(now)
        for task in decision.cancel:
            assert task[:2] not in self.out, "only copies of a part that is in hand are cancelled"
            if task in self.live.get(task.worker, []):
                self.drop(task)
        for job, weights in decision.decode.items():
            scheme = self.case.pipeline.scheme(self.case.n)
            has = np.zeros((self.case.pipeline.parts, self.case.n), dtype=bool)
            for task in weights:
                has[task.group, task.worker] = True
            assert missing(scheme.codes, has) is None
            assert (layout(scheme.spec, scheme.n).combined(dict(weights), 17) == 1).all()
            assert list(weights) == sorted(weights)
            assert {task.job for task in weights} == {job}
        self.todo += [(job, g) for job in decision.start for g in range(self.case.pipeline.parts)]
        stuck = not self.live and not any(self.idle(worker) for worker in self.workers)
        fresh: set[int] = set()  # workers that get work now
        for task in decision.send:
            self.sent(task, stuck, fresh)
        assert {worker: len(own) for worker, own in self.live.items()} == self.missing()
        if not decision.decode and self.alone:
            more = [part for part in self.out if len(self.copies[part]) < self.case.pipeline.copies]
            free = [worker for worker in self.workers if self.idle(worker)]
            assert not free or not (self.todo or more), "a worker is idle beside work"
        return decision

    def sent(self, task: MiniTask, stuck: bool, fresh: set[int]) -> None:
        part, alone = task[:2], self.alone
        assert task.worker in self.workers
        if task.worker in fresh:
            assert part in self.todo, "only parts that were never sent share a message"
            assert len(self.live[task.worker]) < self.case.pipeline.burst
            assert not alone or not any(self.idle(worker) for worker in self.workers), "idle workers come first"
        elif not self.idle(task.worker):
            _, before = self.draining.pop(task.worker)
            assert stuck or self.heard - before >= PATIENCE * self.fewest, "it is busy"
        fresh.add(task.worker)
        self.check_place(task)
        if part in self.todo:
            assert not alone or part == self.todo[0], "oldest job first"
            self.todo.remove(part)
        else:
            free = [p for p in self.out if len(self.copies[p]) < self.case.pipeline.copies]
            assert not alone or (not self.todo and part == free[0]), "a copy of what was sent the longest ago"
            self.out.remove(part)
        self.out.append(part)
        self.copies.setdefault(part, []).append(task.worker)
        assert len(self.copies[part]) <= self.case.pipeline.copies
        assert len(set(self.copies[part])) == len(self.copies[part]), "two copies at one worker"
        self.live.setdefault(task.worker, []).append(task)

    @property
    def alone(self) -> bool:
        """Whether any worker may do any part."""
        return self.case.pipeline.lanes == 1 and not self.case.pipeline.places

    def check_place(self, task: MiniTask) -> None:
        own, here = self.case.pipeline, sorted(self.workers)
        if own.places:
            first = task.group * len(here) // own.parts
            assert task.worker in {here[(first + k) % len(here)] for k in range(own.places)}, "its data are not there"


@examples(150)
@given(case=cases())
def test_any_delays_give_every_learner_its_exact_sums_in_order_and_by_the_rules(case: Case) -> None:
    check_exact(case.play(lambda inner: Rules(inner, case)), "fr")


@pytest.mark.long
@settings(PROPERTY, max_examples=3000)
@given(case=cases(), draws=generators())
def test_any_delays_give_exact_sums_in_many_more_runs(case: Case, draws: np.random.Generator) -> None:
    check_exact(case.play(lambda inner: Changing(Rules(inner, case), case.n, draws)), "fr")


@examples(100)
@given(case=cases(), data=st.data())
def test_whoever_fails_whenever_the_others_get_their_exact_sums(case: Case, data: st.DataObject) -> None:
    fails = data.draw(failing(case.steps))
    check_exact(case.play(lambda inner: Withdrawn(Rules(inner, case)), fails), "fr", fails)


@examples(100)
@given(case=cases(), draws=generators())
def test_whatever_number_of_workers_there_is_every_sum_is_exact(case: Case, draws: np.random.Generator) -> None:
    check_exact(case.play(lambda inner: Changing(Rules(inner, case), case.n, draws)), "fr")


@examples(60)
@given(case=cases())
def test_a_second_step_with_nothing_new_decides_nothing_new(case: Case) -> None:
    assert case.play(Twice).records == case.play().records


@examples(60)
@given(case=cases(), at=st.integers(1, 40))
def test_a_copy_made_in_the_middle_of_a_run_decides_the_same(case: Case, at: int) -> None:
    assert case.play(lambda inner: Twin(inner, at)).records == case.play().records


def opened(scheduler: Scheduler, *jobs: int) -> None:
    for job in jobs:
        scheduler.opened(job, job, 1.0, 3, 0.0)


def tasks(*names: tuple[int, int, int]) -> tuple[MiniTask, ...]:
    return tuple(MiniTask(*name) for name in names)


def test_the_whole_story_of_two_jobs() -> None:
    # Two learners, two parts, at most two copies, five workers, and a cancelled copy keeps its worker.
    scheduler = PipelineScheduler(Pipeline(2, 2), 5)
    opened(scheduler, 7, 8)
    first = scheduler.step(0.0)
    assert list(first.start) == [7, 8]
    assert first.send == tasks((7, 0, 0), (7, 1, 1), (8, 0, 2), (8, 1, 3), (7, 0, 4))
    scheduler.delivered(deliveries(tasks((8, 0, 2)), 1.0), 1.0)
    assert scheduler.step(1.0).send == tasks((7, 1, 2)), "a second copy of what was sent the longest ago"
    scheduler.delivered(deliveries(tasks((7, 0, 4)), 2.0), 2.0)
    second = scheduler.step(2.0)
    assert (second.cancel, second.send) == (tasks((7, 0, 0)), tasks((8, 1, 4)))
    assert scheduler.missing() == {1: 1, 2: 1, 3: 1, 4: 1}
    scheduler.delivered(deliveries(tasks((7, 1, 1)), 3.0), 3.0)
    third = scheduler.step(3.0)
    assert third.decode == {7: dict.fromkeys(tasks((7, 0, 4), (7, 1, 1)), 1.0)}
    assert third.cancel == tasks((7, 1, 2))
    opened(scheduler, 9)
    assert scheduler.step(3.0).send == tasks((9, 0, 1)), "workers 0 and 2 are not known to be done"
    stale = [one._replace(stale=True) for one in deliveries(tasks((7, 0, 0)), 4.0)]
    scheduler.delivered(stale, 4.0)
    assert scheduler.step(4.0).send == tasks((9, 1, 0))


def test_a_worker_whose_copy_is_cancelled_is_idle_at_once_where_that_frees_it() -> None:
    scheduler = PipelineScheduler(Pipeline(1, 2), 2, frees=True)
    scheduler.members({0: "a", 1: "b"}, 0.0)
    opened(scheduler, 0)
    assert scheduler.step(0.0).send == tasks((0, 0, 0), (0, 0, 1))
    scheduler.delivered(deliveries(tasks((0, 0, 1)), 1.0), 1.0)
    assert scheduler.step(1.0).cancel == tasks((0, 0, 0))
    opened(scheduler, 1)
    assert scheduler.step(1.0).send == tasks((1, 0, 1), (1, 0, 0))


def test_a_worker_that_was_slow_comes_last() -> None:
    scheduler = PipelineScheduler(Pipeline(2), 3)
    scheduler.members({0: "a", 1: "b", 2: "c"}, 0.0)
    opened(scheduler, 0)
    slow, quick = deliveries(scheduler.step(0.0).send, 2.0)
    scheduler.delivered([slow._replace(startup=2.0), quick._replace(startup=0.5)], 2.0)
    scheduler.step(2.0)
    opened(scheduler, 1)
    assert scheduler.step(2.0).send == tasks((1, 0, 2), (1, 1, 1)), "who was never heard of is tried first"


def test_more_parts_than_idle_workers_travel_together() -> None:
    scheduler = PipelineScheduler(Pipeline(2, burst=2), 2)
    opened(scheduler, 0, 1, 2)
    assert scheduler.step(0.0).send == tasks((0, 0, 0), (0, 1, 1), (1, 0, 0), (1, 1, 1))
    scheduler.delivered(deliveries(tasks((0, 0, 0), (1, 0, 0)), 1.0), 1.0)
    assert scheduler.step(1.0).send == tasks((2, 0, 0), (2, 1, 0))


def test_a_part_whose_data_cannot_move_waits_for_a_worker_that_has_them() -> None:
    scheduler = PipelineScheduler(Pipeline(2, 3, places=2), 4)
    opened(scheduler, 0)
    assert scheduler.step(0.0).send == tasks((0, 0, 0), (0, 0, 1), (0, 1, 2), (0, 1, 3))
    opened(scheduler, 1)
    scheduler.delivered(deliveries(tasks((0, 0, 0)), 1.0), 1.0)
    assert scheduler.step(1.0).send == tasks((1, 0, 0))


def test_a_worker_that_never_says_that_it_is_done_is_taken_for_idle_in_the_end() -> None:
    scheduler = PipelineScheduler(Pipeline(1, 2), 2)
    opened(scheduler, 0)
    scheduler.step(0.0)
    scheduler.delivered(deliveries(tasks((0, 0, 1)), 1.0), 1.0)
    scheduler.step(1.0)
    used = []
    for job in range(1, PATIENCE * 2 + 3):
        opened(scheduler, job)
        send = scheduler.step(float(job)).send
        used.append({task.worker for task in send})
        scheduler.delivered(deliveries(send[:1], job + 0.5), job + 0.5)
        scheduler.step(job + 0.5)
    assert used[: PATIENCE * 2] == [{1}] * (PATIENCE * 2)
    assert used[PATIENCE * 2] == {0, 1}


def test_a_worker_is_taken_for_idle_when_nothing_else_would_go_on() -> None:
    scheduler = PipelineScheduler(Pipeline(1), 1)
    opened(scheduler, 0, 1)
    assert scheduler.step(0.0).send == tasks((0, 0, 0))
    scheduler.withdrawn(0, 0)
    assert scheduler.step(0.0).send == tasks((1, 0, 0)), "the pool has nothing to say of what is retired"


def test_word_of_a_stale_invocation_is_no_row() -> None:
    scheduler = PipelineScheduler(Pipeline(1), 1)
    opened(scheduler, 0)
    sent = scheduler.step(0.0).send
    scheduler.delivered([one._replace(stale=True) for one in deliveries(sent, 1.0)], 1.0)
    assert scheduler.step(1.0) == Decision()
    assert scheduler.missing() == {0: 1}


def test_a_row_that_fails_leaves_its_worker_to_the_others() -> None:
    scheduler = PipelineScheduler(Pipeline(1), 1)
    opened(scheduler, 0, 1)
    (task,) = scheduler.step(0.0).send
    (failed,) = deliveries([task], 1.0)
    scheduler.delivered([failed._replace(stale=True, fault=Fault("no"))], 1.0)
    scheduler.withdrawn(0, 0)
    assert scheduler.step(1.0).send == tasks((1, 0, 0))


def test_workers_that_come_or_go_count_for_the_next_part() -> None:
    scheduler = PipelineScheduler(Pipeline(6), 4)
    scheduler.members({0: "a", 1: "a"}, 0.0)
    opened(scheduler, 0)
    assert scheduler.step(0.0).send == tasks((0, 0, 0), (0, 1, 1))
    scheduler.members({0: "a", 1: "a", 2: "b", 3: "b"}, 1.0)
    assert scheduler.step(1.0).send == tasks((0, 2, 2), (0, 3, 3)), "at once, in a job that is open"
    scheduler.members({0: "a"}, 2.0)
    scheduler.delivered(deliveries(tasks((0, 1, 1), (0, 2, 2), (0, 3, 3)), 2.0), 2.0)
    assert scheduler.step(2.0) == Decision()
    scheduler.delivered(deliveries(tasks((0, 0, 0)), 3.0), 3.0)
    assert scheduler.step(3.0).send == tasks((0, 4, 0))


def test_a_job_stays_in_the_lane_that_had_the_fewest() -> None:
    scheduler = PipelineScheduler(Pipeline(4, 2, lanes=2), 8)
    opened(scheduler, 0, 1)
    send = scheduler.step(0.0).send
    assert {(task.job, task.worker) for task in send} == {(i // 4, i) for i in range(8)}
    scheduler.delivered(deliveries([task for task in send if task.job == 1], 1.0), 1.0)
    assert list(scheduler.step(1.0).decode) == [1]
    opened(scheduler, 2)
    assert {task.worker for task in scheduler.step(1.0).send} == {4, 5, 6, 7}


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((0, 1, 1), "pipeline needs parts >= 1: got parts=0"),
        ((1, 0, 1), "pipeline needs copies >= 1: got copies=0"),
        ((1, 1, -1), "pipeline needs lanes >= 1: got lanes=-1"),
        ((1, 1, 9), "pipeline needs lanes <= workers: got lanes=9, workers=8"),
        ((1, 1, 1, 0), "pipeline needs burst >= 1: got burst=0"),
        ((1, 1, 1, 1, 9), "pipeline needs places <= workers: got places=9, workers=8"),
        ((1, 1, 1, 1, -1), "pipeline needs places >= 0, 0 = every worker: got places=-1"),
        ((1, 1, 2, 1, 2), "pipeline takes places or lanes, not both: got places=2, lanes=2"),
    ],
)
def test_numbers_that_make_no_pipeline_are_refused(numbers: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PipelineScheduler(Pipeline(*numbers), 8)


@examples(40)
@given(n=st.integers(2, 7), parts=st.integers(1, 5), draws=generators())
def test_the_arrivals_of_a_run_without_copies_replay_in_the_same_seconds(
    n: int, parts: int, draws: np.random.Generator
) -> None:
    times = 0.5 + 0.3 * draws.random((40, n)) + (draws.random((40, n)) < 0.1) * draws.exponential(2.0, (40, n))
    journal, setting = MemoryJournal(), Setting(Trace(times, 0.0, 2.0), 4, 40, unfinished="serial")
    first = simulate(setting, Pipeline(parts), journal=journal)
    kinds = {record["kind"] for record in journal.records}
    assert kinds == {"job"}
    assert sum(len(record["arrivals"]) for record in journal.records) == 40 * parts
    trace = arrival_table(journal.records, n)
    again = simulate(replace(setting, trace=trace), Pipeline(parts))
    assert again["total_seconds"] == pytest.approx(first["total_seconds"], rel=1e-4)
    assert trace.slope == pytest.approx(2.0, rel=1e-3)
