"""Dense codes: how much a decode amplifies rounding is measured over all pairs, and bounds each decode that is used."""

from itertools import combinations

import numpy as np
import pytest

from distseq.coding.codes.cyclic import Cyclic, DenseCode
from distseq.coding.codes.gradient_code import OF_ONE_DECODE, AmplifyingCode
from distseq.coding.codes.registry import CODES, check_precision, make_code
from distseq.coding.ledger import Ledger
from distseq.coding.plan import MiniTask
from distseq.coding.schemes.registry import parse

MOST = OF_ONE_DECODE / float(np.finfo("float32").eps)


def without(n: int, *lost: int) -> np.ndarray:
    has = np.ones(n, dtype=bool)
    has[list(lost)] = False
    return has


@pytest.mark.parametrize("n", [5, 16, 64])
def test_the_guard_measures_all_pairs_of_stragglers(n: int) -> None:
    """At n = 64 some pairs amplify far more than any two neighbours, or any of 64 random pairs."""
    code = Cyclic(n, 2)
    every = max(code.amplified(without(n, *pair)) for pair in combinations(range(n), 2))
    assert code.amplification == pytest.approx(every, rel=1e-6)


def test_a_code_whose_worst_pair_is_imprecise_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"a dense code with n=64, s=2 amplifies float32 rounding errors .* use code=fr"
    ):
        check_precision(make_code("cyclic", 64, 2), np.dtype("float32"))
    check_precision(make_code("cyclic", 64, 2), np.dtype("float64"))


def test_rows_that_do_not_decode_amplify_without_bound() -> None:
    assert Cyclic(8, 2).amplified(without(8, 0, 1, 2)) == np.inf


@pytest.mark.parametrize("spec", ["gc:2,code=cyclic", "msgc:1,2,2,code=cyclic", "srsgc:1,2,4,code=cyclic"])
def test_a_job_waits_for_more_rows_where_its_decode_would_amplify(spec: str) -> None:
    """Of all pairs of stragglers: a job is complete exactly where its decode is within the bound."""
    n = 40
    scheme = parse(spec, n)
    group = next(g for g, code in enumerate(scheme.codes) if isinstance(code, DenseCode))
    code = scheme.codes[group]
    assert isinstance(code, AmplifyingCode)
    for one, other in list(combinations(range(n), 2))[::3]:
        ledger = Ledger(scheme, most=MOST)
        ledger.begin(0)
        for g in range(len(scheme.codes)):
            for worker in range(n):
                if g != group or worker not in (one, other):
                    ledger.receive(MiniTask(0, g, worker))
        within = code.amplified(without(n, one, other)) <= MOST
        assert ledger.complete(0) == within
        if scheme.delay == 0:
            assert ledger.safe() == ledger.due_complete() == within
        ledger.receive(MiniTask(0, group, one))
        ledger.receive(MiniTask(0, group, other))
        assert ledger.complete(0)
        assert ledger.safe()


def test_without_a_bound_rows_are_counted() -> None:
    """As in the papers, which simulations of their schemes follow: they have no rows to round."""
    ledger = Ledger(parse("gc:2,code=cyclic", 64))
    ledger.begin(0)
    for worker in range(64):
        if worker not in (4, 17):
            ledger.receive(MiniTask(0, 0, worker))
    assert ledger.complete(0)


@pytest.mark.parametrize("kind", CODES)
def test_what_is_decoded_within_the_bound_is_within_its_error(kind: str) -> None:
    """Rows of float32, of every pair of stragglers that the bound lets through."""
    n, draws = 40, np.random.default_rng(0)
    code = make_code(kind, n, 2)
    parts = draws.standard_normal((code.parts, 8))
    rows = np.array([sum(c * parts[k] for k, c in code.row(i)) for i in range(n)]).astype(np.float32)
    for pair in list(combinations(range(n), 2))[::7]:
        has = without(n, *pair)
        if isinstance(code, AmplifyingCode) and code.amplified(has) > MOST:
            continue
        error = code.decode(has) @ rows.astype(float) - parts.sum(0)
        # The bound is relative to the mean size of a part, times the number of parts.
        assert np.abs(error).max() <= OF_ONE_DECODE * np.abs(parts).max() * code.parts
