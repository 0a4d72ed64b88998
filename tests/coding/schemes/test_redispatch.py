"""Parts that any worker may do: what is missing is sent again, a few times, in the order of the plan's workers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distseq.coding.ledger import Ledger
from distseq.coding.plan import MiniTask
from distseq.coding.schemes.backup_tasks import Backup
from distseq.coding.schemes.gradient_coding import GC
from distseq.coding.schemes.redispatch import Redispatch
from distseq.coding.schemes.registry import parse
from distseq.coding.schemes.scheme import Scheme, interchangeable
from tests.coding.play import decoded_on_time, random_play
from tests.coding.strategies import PROPERTY, generators

schemes = st.builds(Redispatch, st.integers(1, 7), st.integers(1, 3), st.integers(1, 9))


@PROPERTY
@given(scheme=schemes, draws=generators())
def test_each_missing_part_goes_to_as_many_workers_as_there_are_copies_and_the_new_job_to_all(
    scheme: Redispatch, draws: np.random.Generator
) -> None:
    for play in random_play(scheme, 5, draws):
        t, table = play.ledger.round, play.unfinished()
        tasks = scheme.assign(t, table).tasks()
        assert len(set(tasks)) == len(tasks)
        for start, rows in table.items():
            own = [task for task in tasks if task.job == start]
            if start == t:
                assert own == [MiniTask(t, i, i) for i in range(scheme.n)]
            else:
                missing = np.flatnonzero(~rows.any(axis=1)).tolist()
                assert sorted(task.group for task in own) == sorted(missing * min(scheme.copies, scheme.n))
        of_worker = {i: [task.job for task in tasks if task.worker == i] for i in range(scheme.n)}
        assert all(jobs == sorted(jobs) for jobs in of_worker.values()), "the oldest job first"


def test_the_first_workers_of_the_order_get_what_is_missing() -> None:
    ledger = Ledger(Redispatch(4, 1, copies=2))
    for task in ledger.begin(0):
        if task.group != 2:
            ledger.receive(task)
    order = np.array([3, 1, 0, 2])
    tasks = ledger.begin(1, order)
    assert [task for task in tasks if task.job == 0] == [(0, 2, 1), (0, 2, 3)]
    assert sorted(task for task in tasks if task.job == 1) == [(1, 0, 3), (1, 1, 1), (1, 2, 0), (1, 3, 2)]


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        (Redispatch(4, 1), True),
        (Backup(4, 75), True),
        (GC(4, 3, q=2), True),
        (GC(4, 1), False),
        (GC(4, 3, code="cyclic"), False),
        (parse("msgc:1,2,3", 4), False),
    ],
)
def test_workers_are_interchangeable_where_each_row_is_its_whole_group(scheme: Scheme, expected: bool) -> None:
    assert interchangeable(scheme) == expected


def test_with_fewer_learners_there_are_fewer_rounds_to_send_parts_again_and_then_replicas() -> None:
    scheme = Redispatch(8, 3, copies=3)
    assert [scheme.within(delay).spec for delay in range(4)] == [
        "gc:2",
        "redispatch:1,copies=3",
        "redispatch:2,copies=3",
        "redispatch:3,copies=3",
    ]


def test_backup_waits_for_its_percentage_rounded_up() -> None:
    assert [Backup(n, percent).enough for n, percent in ((4, 75), (10, 75), (256, 90), (3, 1), (3, 99))] == [
        3,
        8,
        231,
        1,
        3,
    ]


def test_a_straggler_less_can_make_a_job_late() -> None:
    """Without the row that worker 1 loses in round 0, the one copy of job 1's missing part meets worker 0, which is silent."""
    lost = np.array([[0, 1], [1, 0], [1, 0], [1, 0], [1, 0]], dtype=bool)
    fewer = np.array([[0, 0], [1, 0], [1, 0], [1, 0], [1, 0]], dtype=bool)
    scheme = Redispatch(2, 3, copies=1)
    assert decoded_on_time(scheme, lost) == {1}
    assert decoded_on_time(scheme, fewer) == {0}
