"""What the map of regimes counts as storage, and where it says that bandwidth changes the winner."""

import pytest

from distseq.scheduling.adaptive.candidates import Candidate
from distseq.scheduling.pipeline import Pipeline
from tests.bench.regimes import Found, storage, thresholds


@pytest.mark.parametrize(
    ("candidate", "models", "shares"),
    [
        ("uncoded", 4, 1),
        ("gc:3", 4, 4),
        ("gc:3,q=4", 4, 4),
        ("srsgc:1,2,6", 4, 4),
        ("msgc:1,2,1", 4, 4 / 3),
        ("redispatch:1,copies=1", 4, 64),
        (Pipeline(64, 1, places=1), 4, 1),
        (Pipeline(64, 2, places=2), 4, 2),
        (Pipeline(32, 2, places=2), 4, 2),
        (Pipeline(8, 2), 16, 64),
        (Pipeline(4, 1, lanes=16), 16, 4),
        (Pipeline(1, 1, lanes=64), 256, 1),
    ],
    ids=str,
)
def test_storage_is_what_the_fullest_worker_holds(candidate: Candidate, models: int, shares: float) -> None:
    assert storage(candidate, models) == pytest.approx(shares)


def test_a_winner_changes_where_the_brute_force_over_bandwidths_does() -> None:
    pairs = [(1.0, 100.0), (1.5, 90.0), (2.0, 20.0), (2.5, 60.0), (5.0, 3.0)]
    found = [Found(f"{k}", f"{k}", *pair, 1.0, 1.0) for k, pair in enumerate(pairs)]
    limits = thresholds(found)
    for per_second in (0.5, 1, 3.9, 4.1, 9.9, 10.1, 44, 46, 66, 68, 200):
        best = min(max(one.seconds, one.vectors / per_second) for one in found)
        chosen = next(one for limit, one in limits if per_second >= limit)
        assert max(chosen.seconds, chosen.vectors / per_second) == pytest.approx(best)
