"""Random numbers by event: those of a plain loop over Python's integers, the same in any order and company."""

import numpy as np
import torch

from distseq.models.temporal import Draws
from distseq.models.temporal.draws import hashed

WHOLE = 2**64 - 1


def mixed(x: int) -> int:
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & WHOLE
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & WHOLE
    return x ^ (x >> 31)


def plain(*keys: int) -> int:
    x = 0
    for key in keys:
        x = mixed(((x + 0x9E3779B97F4A7C15) & WHOLE) ^ (key & WHOLE))
    return x


def test_the_finalizer_is_that_of_splitmix64() -> None:
    # The first output of SplitMix64 with seed 0, as in its published test vectors.
    assert mixed(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF


def test_hashes_are_those_of_whole_numbers() -> None:
    events = np.array([0, 1, 7, 2**40])
    assert hashed(3, -1, events, 2).tolist() == [plain(3, -1, event, 2) for event in events.tolist()]


def test_an_events_numbers_depend_on_no_other_event() -> None:
    draws, events, order = Draws(4, 1), np.arange(50), np.random.default_rng(0).permutation(50)
    assert np.array_equal(draws.integers(events, 0, 3, 20)[order], draws.integers(events[order], 0, 3, 20))
    whole = draws.kept((events, events + 1), 1, 6, 0.3, torch.float32)
    assert torch.equal(
        whole[order[:9]], draws.kept((events[order[:9]], events[order[:9]] + 1), 1, 6, 0.3, torch.float32)
    )


def test_numbers_are_uniform_and_independent_of_slot_and_epoch() -> None:
    events = np.arange(40_000)
    count = np.bincount(Draws(0).integers(events, 0, 5, 15), minlength=15)
    assert count[:5].sum() == 0
    # Of 4,000 expected, six standard deviations of a binomial count.
    assert abs(count[5:] - 4000).max() < 360
    kept = Draws(0).kept((events,), 1, 8, 0.25, torch.float64)
    assert set(kept.unique().tolist()) == {0.0, 1 / 0.75}
    assert abs(kept.mean().item() - 1) < 0.01
    for other in (Draws(0).integers(events, 1, 5, 15), Draws(0, 1).integers(events, 0, 5, 15)):
        assert abs((other == Draws(0).integers(events, 0, 5, 15)).mean() - 0.1) < 0.01
