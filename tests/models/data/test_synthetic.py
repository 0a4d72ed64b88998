"""Made sequences are what they say, and the same on every host."""

from itertools import permutations

import numpy as np
import pytest

from distseq.models.data.dataset import open_dataset
from distseq.models.data.synthetic import associative_recall, group_words


@pytest.mark.parametrize(("points", "elements"), [(3, 6), (5, 120)])
def test_the_target_is_the_product_so_far(points: int, elements: int) -> None:
    table = list(permutations(range(points)))
    batch = group_words(points, length=9, samples=20).batch(np.arange(20))
    assert batch["inputs"].max() < elements
    for word, targets in zip(batch["inputs"].tolist(), batch["targets"].tolist(), strict=True):
        state = tuple(range(points))
        for symbol, target in zip(word, targets, strict=True):
            state = tuple(table[symbol][i] for i in state)
            assert table[target] == state


def test_every_key_asked_for_was_given_with_its_value() -> None:
    batch = associative_recall(pairs=4, length=20, keys=9, values=5, samples=30).batch(np.arange(30))
    for inputs, targets in zip(batch["inputs"].tolist(), batch["targets"].tolist(), strict=True):
        known = dict(zip(inputs[0:8:2], inputs[1:8:2], strict=True))
        asked = [at for at, target in enumerate(targets) if target != -100]
        assert len(asked) == 4
        assert min(asked) >= 8
        assert [targets[at] for at in asked] == [known[inputs[at]] for at in asked]
        assert all(inputs[at] == 0 for at in range(8, 20) if at not in asked)


def test_a_sample_hangs_on_its_id_and_the_seed_alone() -> None:
    data = open_dataset("distseq.models.data.synthetic:group_words", length=5, seed=3)
    again = open_dataset("distseq.models.data.synthetic:group_words", length=5, seed=3)
    assert data.batch(np.array([7, 2]))["inputs"][0].equal(again.batch(np.array([7]))["inputs"][0])
    assert data.fingerprint == again.fingerprint != group_words(length=5, seed=4).fingerprint


def test_config_files_that_name_the_module_where_it_was_still_work() -> None:
    assert (
        open_dataset("distseq.models.synthetic:group_words", length=5).fingerprint == group_words(length=5).fingerprint
    )


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: group_words(6), "group words need 2 to 5 points and a length >= 1: got points=6, length=16"),
        (lambda: associative_recall(pairs=9, keys=8), "recall needs 1 <= pairs <= keys"),
        (lambda: associative_recall(samples=0), "needs samples >= 1: got 0"),
        (lambda: group_words(samples=4).batch(np.array([4])), r"sample ids must be in 0 .. 3: got \[4\]"),
    ],
)
def test_what_does_not_fit_is_one_line(make, text: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=text):
        make()
