"""Backup tasks: the last missing parts are copied once, to idle workers; re-dispatch: the fast workers make up for the slow."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distseq.cluster.pool import Delivery
from distseq.cluster.trace import Trace
from distseq.coding.plan import MiniTask
from distseq.coding.schemes.backup_tasks import Backup
from distseq.coding.schemes.redispatch import Redispatch
from distseq.scheduling.backup import round_scheduler
from distseq.scheduling.closing import Safe
from distseq.scheduling.round_scheduler import RoundScheduler
from distseq.scheduling.scheduler import Decision, Scheduler
from distseq.simulation.simulate import Setting, simulate
from tests.coding.strategies import generators
from tests.distseq.engine.closed_form import checked, play
from tests.distseq.scheduling.test_round_scheduler import Case, Through, cases
from tests.examples import examples


class Watching(Through):
    """Sees that copies go to workers that have answered, of missing parts, once enough have come, and once each."""

    def __init__(self, inner: Scheduler) -> None:
        super().__init__(inner)
        self.sent: set[MiniTask] = set()
        self.rows: set[MiniTask] = set()

    def delivered(self, arrivals: Sequence[Delivery], now: float) -> None:
        self.rows |= {delivery.task for delivery in arrivals if not delivery.stale}
        super().delivered(arrivals, now)

    def step(self, now: float) -> Decision:
        decision = super().step(now)
        if decision.send and not decision.start:
            (job,) = {task.job for task in decision.send}
            groups = {task.group for task in self.rows if task.job == job}
            idle = {task.worker for task in self.rows if task.job == job}
            for task in decision.send:
                assert task.group not in groups
                assert task.worker in idle
                assert sum(other.group == task.group and other.job == job for other in self.sent) == 1
                self.sent.add(task)
            assert len({task.worker for task in decision.send}) == len(decision.send)
        self.sent |= set(decision.send)
        return decision


@examples(100)
@given(case=cases(("backup",)))
def test_missing_parts_are_copied_once_each_to_idle_workers(case: Case) -> None:
    checked(case.play(Safe(), Watching), case.scheme)


# Four workers; the third and the fourth take 9 seconds. At 2, half of the parts are there, and the two idle workers copy the
# others, in 1.5 and 3 seconds: all is there at 5.
@pytest.mark.parametrize("unfinished", ["lost", "overlap", "serial"])
def test_the_first_row_of_a_part_counts(unfinished: str) -> None:
    times = [[1.0, 2.0, 9.0, 9.0], [1.5, 3.0, 9.0, 9.0]]
    assert checked(play(Backup(4, 50), times, [1], unfinished=unfinished), Backup(4, 50)).seconds == 5.0
    assert play(Backup(4, 75), times, [1], unfinished=unfinished).seconds == 9.0, "75 % are there at 9"


def test_nothing_is_copied_before_enough_has_come_and_copies_are_waited_for() -> None:
    scheduler = round_scheduler(Backup(4, 75))
    scheduler.opened(0, 0, 1.0, 0, 0.0)
    sent = scheduler.step(0.0).send
    scheduler.delivered([Delivery(task, 1.0, 1.0, 0.0, "host", 1, 0) for task in sent[:2]], 1.0)
    assert scheduler.step(1.0) == Decision()
    scheduler.delivered([Delivery(sent[2], 2.0, 2.0, 0.0, "host", 1, 0)], 2.0)
    assert scheduler.step(2.0) == Decision(send=[MiniTask(0, 3, 0)])
    assert scheduler.missing() == {0: 1, 3: 1}
    assert scheduler.step(2.0) == Decision()
    scheduler.delivered([Delivery(MiniTask(0, 3, 0), 3.0, 1.0, 0.0, "host", 1, 1)], 3.0)
    assert list(scheduler.step(3.0).decode[0]) == [(0, 0, 0), (0, 1, 1), (0, 2, 2), (0, 3, 0)]
    assert scheduler.missing() == {}


@examples(40)
@given(
    n=st.integers(2, 9),
    draws=generators(),
    percent=st.integers(1, 99),
    unfinished=st.sampled_from(("lost", "overlap")),
)
def test_copies_on_workers_of_constant_speed_never_make_a_round_longer(
    n: int, draws: np.random.Generator, percent: int, unfinished: str
) -> None:
    setting = Setting(Trace(1.0 + draws.pareto(1.0, (1, n)), 0.0, 1.0), models=1, jobs=5, unfinished=unfinished)
    copied, plain = simulate(setting, f"backup:{percent}"), simulate(setting, "uncoded")
    assert copied["total_seconds"] <= plain["total_seconds"] * (1 + 1e-12)  # type: ignore[operator]


def test_what_is_sent_again_goes_to_the_workers_that_are_predicted_fast() -> None:
    scheduler = RoundScheduler(Redispatch(4, 1, copies=1))
    startups, now = [3.0, 2.0, 1.0, 9.0], 0.0
    for learner in range(2):
        scheduler.opened(learner, learner, 1.0, 9, 0.0)
    first = scheduler.step(now).send
    arrived = sorted((task for task in first if startups[task.worker] < 9), key=lambda task: startups[task.worker])
    for task in arrived:
        now = startups[task.worker]
        scheduler.delivered([Delivery(task, now, now, 0.0, f"host-{task.worker}", 1, 0)], now)
        second = scheduler.step(now)
        if second.send:
            break
    again = [task for task in second.send if task.job == 0]
    assert now == 1.0, "safe at the first arrival: all that is missing is sent again"
    assert [task.worker for task in again][:1] == [0]
    for t in range(1, 30):
        job = max(task.job for task in second.send)
        own = [task for task in second.send if task.job < job] + [
            task for task in second.send if task.job == job and task.worker != 3
        ]
        for task in own:
            at = now + startups[task.worker]
            scheduler.delivered([Delivery(task, at, startups[task.worker], 0.0, f"host-{task.worker}", 1, t)], at)
        now += 5
        decision = scheduler.step(now)
        for decoded in decision.decode:
            scheduler.opened(job + 1, decoded % 2, 1.0, 9, now)
        second = scheduler.step(now)
        if t > 2:
            assert [task.worker for task in second.send if task.job == job] == [2]
