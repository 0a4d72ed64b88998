"""ksync: the first K rows stand for all, scaled; with K = n it is uncoded."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distseq.coding.layout import Layout
from distseq.coding.ledger import Ledger
from distseq.coding.schemes.gradient_coding import GC
from distseq.coding.schemes.ksync import KSync
from distseq.coding.schemes.registry import SCHEMES, parse
from tests.coding.strategies import PROPERTY, generators


def weights_of(scheme: KSync | GC, order: np.ndarray) -> dict[int, float]:
    """Worker -> weight of a job that is over as soon as it is complete, its rows arriving in this order."""
    ledger = Ledger(scheme)
    tasks = {task.worker: task for task in ledger.begin(0)}
    for worker in order.tolist():
        if not ledger.complete(0):
            assert ledger.receive(tasks[worker])
    return {task.worker: weight for task, weight in ledger.weights(0).items()}


def test_only_ksync_is_not_exact() -> None:
    assert {name for name, entry in SCHEMES.items() if not parse(entry.example, 256).exact} == {"ksync"}


@PROPERTY
@given(n=st.integers(1, 12), data=st.data(), samples=st.integers(0, 50), draws=generators())
def test_a_job_is_n_over_k_times_the_sum_of_the_first_k_rows(
    n: int, data: st.DataObject, samples: int, draws: np.random.Generator
) -> None:
    scheme, order = KSync(n, data.draw(st.integers(1, n))), draws.permutation(n)
    weights = weights_of(scheme, order)
    assert weights == dict.fromkeys(sorted(order[: scheme.K].tolist()), n / scheme.K)
    cuts = Layout(GC(n, 0)).cuts(samples)
    expected = np.concatenate([np.full(cuts[i + 1] - cuts[i], weights.get(i, 0.0)) for i in range(n)])
    ledger = Ledger(scheme)
    tasks = {task.worker: task for task in ledger.begin(0)}
    combined = Layout(scheme).combined({tasks[i]: weight for i, weight in weights.items()}, samples)
    assert np.array_equal(combined, expected)


@PROPERTY
@given(n=st.integers(1, 12), draws=generators())
def test_with_k_equal_to_n_the_weights_are_those_of_uncoded_training(n: int, draws: np.random.Generator) -> None:
    order = draws.permutation(n)
    assert weights_of(KSync(n, n), order) == weights_of(GC(n, 0), order)


def test_too_few_rows_stand_for_nothing() -> None:
    (code,) = KSync(4, 3).codes
    with pytest.raises(ValueError, match="ksync needs 3 rows of 4: got 2"):
        code.decode(np.array([True, False, True, False]))
    assert code.decode(np.ones(4, dtype=bool)).tolist() == [1.0] * 4, "more than K rows are all used"
