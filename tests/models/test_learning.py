"""What a layer can learn: words of S3 need a state that is tracked.

A plain run trains one seed; `make test-long` takes medians of three.
"""

import statistics

import pytest

from distseq.models.data.synthetic import group_words
from tests.bench.learning import SEEDS, TRACKERS, accuracy, model_of, recalling, tracking

pytestmark = pytest.mark.slow
STEPS = 800

seeds = pytest.mark.parametrize("seeds", [1, pytest.param(SEEDS, marks=pytest.mark.long)])


def median(layers: str, seeds: int, steps: int = STEPS) -> float:
    """Share of right steps of words of 16, as long as those it was trained on."""
    return statistics.median(tracking(layers, seed, steps)[0] for seed in range(seeds))


@seeds
@pytest.mark.parametrize("name", ["lstm", "delta_product, 2 steps"])
def test_what_tracks_a_state_learns_the_words_of_s3(name: str, seeds: int) -> None:
    assert median(TRACKERS[name], seeds) >= 0.99


@seeds
def test_a_diagonal_in_0_1_does_not(seeds: int) -> None:
    assert median(TRACKERS["mamba: diagonal in [0, 1]"], seeds) <= 0.7


def test_an_untrained_model_guesses() -> None:
    model = model_of(0, symbols=6, width=64, layers="lstm", head="symbols", residual=True)
    assert accuracy(model, group_words(3, 16)) <= 0.3


@seeds
def test_attention_recalls_pairs_and_a_mean_of_the_past_does_not(seeds: int) -> None:
    assert statistics.median(recalling("attention", 4, seed, 600) for seed in range(seeds)) >= 0.9
    assert statistics.median(recalling("aaren", 4, seed, 200) for seed in range(seeds)) <= 0.7


@seeds
def test_a_delta_rule_recalls_pairs(seeds: int) -> None:
    """Its keys begin with half of the input before, so that a value is written at the key before it."""
    assert statistics.median(recalling("delta", 4, seed, 300) for seed in range(seeds)) >= 0.9
