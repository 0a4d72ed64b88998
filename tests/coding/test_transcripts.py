"""The worked examples of specs/coding.md, section 5, round by round.

Each line is a round: what every worker does, as `worker:row(job),row(job)` in its order; whose rows of the round never arrive;
for whom the round has to wait, though they straggle; and which jobs are decoded at its end. D: uncoded row, C: coded row.
"""

from collections.abc import Mapping

import numpy as np

from distseq.coding.ledger import Ledger
from distseq.coding.plan import MiniTask
from distseq.coding.schemes.gradient_coding import GC
from distseq.coding.schemes.m_sgc import MSGC
from distseq.coding.schemes.scheme import Scheme
from distseq.coding.schemes.sr_sgc import SRSGC
from distseq.coding.stragglers import conforms


def transcript(scheme: Scheme, jobs: int, stragglers: Mapping[int, tuple[int, ...]]) -> str:
    """The rounds of a ledger in words; a straggler's rows arrive only if the round cannot end safely without."""
    ledger, lines = Ledger(scheme), []
    for t in range(jobs + scheme.delay):
        tasks, late = ledger.begin(t if t < jobs else None), list(stragglers.get(t, ()))
        receive(ledger, [task for task in tasks if task.worker not in late])
        waited = []
        while not ledger.safe():
            waited.append(late.pop(0))
            receive(ledger, [task for task in tasks if task.worker == waited[-1]])
        done = [job for job in ledger.open if ledger.complete(job)]
        for job in done:
            ledger.retire(job)
        lines.append(
            f"r{t}: {work(scheme, tasks)} | lost {listed(late)} | waits for {listed(waited)} | out {listed(done)}"
        )
    return "\n".join(lines)


def receive(ledger: Ledger, tasks: list[MiniTask]) -> None:
    for task in tasks:
        ledger.receive(task)


def work(scheme: Scheme, tasks: list[MiniTask]) -> str:
    names = ["C" if s else "D" for s in scheme.tolerance]
    by_worker = [[f"{names[task.group]}({task.job})" for task in tasks if task.worker == i] for i in range(scheme.n)]
    return " ".join(f"{i}:{listed(rows)}" for i, rows in enumerate(by_worker))


def listed(items: list) -> str:
    return ",".join(map(str, items)) or "-"


def table(n: int, rounds: int, stragglers: Mapping[int, tuple[int, ...]]) -> np.ndarray:
    pattern = np.zeros((rounds, n), dtype=bool)
    for t, workers in stragglers.items():
        pattern[t, list(workers)] = True
    return pattern


def check(scheme: Scheme, jobs: int, stragglers: Mapping[int, tuple[int, ...]], expected: str) -> None:
    lines = [" ".join(line.split()) for line in expected.strip().splitlines()]
    assert transcript(scheme, jobs, stragglers).splitlines() == lines


def test_e2_repetition_of_two_sets_survives_two_stragglers_of_different_sets() -> None:
    check(GC(4, 1), 1, {0: (0, 2)}, "r0: 0:C(0) 1:C(0) 2:C(0) 3:C(0) | lost 0,2 | waits for - | out 0")


def test_e2_repetition_waits_for_one_of_two_stragglers_of_the_same_set() -> None:
    check(GC(4, 1), 1, {0: (2, 3)}, "r0: 0:C(0) 1:C(0) 2:C(0) 3:C(0) | lost 3 | waits for 2 | out 0")


E3 = MSGC(4, 1, 2, 1, code="cyclic")


def test_e3_m_sgc_redoes_an_uncoded_row_instead_of_the_coded_one() -> None:
    stragglers = {0: (2,), 2: (0,)}
    assert conforms(table(4, 4, stragglers), E3.models[0])
    check(
        E3,
        3,
        stragglers,
        """
        r0: 0:D(0)      1:D(0)      2:D(0)      3:D(0)      | lost 2 | waits for - | out -
        r1: 0:C(0),D(1) 1:C(0),D(1) 2:D(0),D(1) 3:C(0),D(1) | lost - | waits for - | out 0
        r2: 0:C(1),D(2) 1:C(1),D(2) 2:C(1),D(2) 3:C(1),D(2) | lost 0 | waits for - | out 1
        r3: 0:D(2)      1:C(2)      2:C(2)      3:C(2)      | lost - | waits for - | out 2
        """,
    )


def test_e3_m_sgc_waits_for_a_worker_that_straggles_twice() -> None:
    stragglers = {0: (2,), 1: (2,), 2: (0,)}
    assert not conforms(table(4, 4, stragglers), E3.models[0])
    check(
        E3,
        3,
        stragglers,
        """
        r0: 0:D(0)      1:D(0)      2:D(0)      3:D(0)      | lost 2 | waits for - | out -
        r1: 0:C(0),D(1) 1:C(0),D(1) 2:D(0),D(1) 3:C(0),D(1) | lost - | waits for 2 | out 0
        r2: 0:C(1),D(2) 1:C(1),D(2) 2:C(1),D(2) 3:C(1),D(2) | lost 0 | waits for - | out 1
        r3: 0:D(2)      1:C(2)      2:C(2)      3:C(2)      | lost - | waits for - | out 2
        """,
    )


def test_e3_m_sgc_with_lam_2_has_the_same_schedule_and_spares_one_coded_row_more() -> None:
    check(
        MSGC(4, 1, 2, 2, code="cyclic"),
        3,
        {0: (2,), 2: (0, 3)},
        """
        r0: 0:D(0)      1:D(0)      2:D(0)      3:D(0)      | lost 2   | waits for - | out -
        r1: 0:C(0),D(1) 1:C(0),D(1) 2:D(0),D(1) 3:C(0),D(1) | lost -   | waits for - | out 0
        r2: 0:C(1),D(2) 1:C(1),D(2) 2:C(1),D(2) 3:C(1),D(2) | lost 0,3 | waits for - | out 1
        r3: 0:D(2)      1:C(2)      2:C(2)      3:D(2)      | lost -   | waits for - | out 2
        """,
    )


def test_e4_sr_sgc_repeats_one_row_of_the_job_that_missed_two() -> None:
    check(
        SRSGC(4, 1, 2, 2, code="cyclic"),
        3,
        {0: (1, 2), 2: (0, 3)},
        """
        r0: 0:C(0) 1:C(0) 2:C(0) 3:C(0) | lost 1,2 | waits for - | out -
        r1: 0:C(1) 1:C(0) 2:C(1) 3:C(1) | lost -   | waits for - | out 0,1
        r2: 0:C(2) 1:C(2) 2:C(2) 3:C(2) | lost 0,3 | waits for - | out -
        r3: 0:C(2) 1:-    2:-    3:-    | lost -   | waits for - | out 2
        """,
    )


def test_sr_sgc_with_repetition_lets_one_member_of_a_silent_set_repeat_and_the_other_go_on() -> None:
    scheme, stragglers = SRSGC(4, 1, 2, 2, code="fr"), {1: (2, 3), 3: (2, 3)}
    assert scheme.s == 1
    assert conforms(table(4, 4, stragglers), scheme.models[0])
    check(
        scheme,
        4,
        stragglers,
        """
        r0: 0:C(0) 1:C(0) 2:C(0) 3:C(0) | lost -   | waits for - | out 0
        r1: 0:C(1) 1:C(1) 2:C(1) 3:C(1) | lost 2,3 | waits for - | out -
        r2: 0:C(2) 1:C(2) 2:C(1) 3:C(2) | lost -   | waits for - | out 1,2
        r3: 0:C(3) 1:C(3) 2:C(3) 3:C(3) | lost 2,3 | waits for - | out -
        r4: 0:-    1:-    2:C(3) 3:-    | lost -   | waits for - | out 3
        """,
    )
