"""Learners that draw random numbers train as a plain loop that seeds each block, whatever computes them."""

import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distseq.coding.layout import block_edges, layout
from distseq.coding.plan import MiniTask
from distseq.engine.journal import read_journal
from distseq.gradients.randomness import block_seeds
from tests.distseq.gradients.drawing import (
    ALONE,
    BATCH,
    JOINT,
    Samples,
    bits,
    close,
    dropout,
    learner,
    noise,
    plain,
    train,
)

SCHEMES: list[dict[str, Any]] = [
    {"scheme": "uncoded"},
    {"scheme": "gc:1"},
    {"scheme": "gc:2,code=cyclic"},
    {"scheme": "msgc:1,2,1"},
    {"scheme": "srsgc:1,2,2,code=cyclic"},
    {"scheduler": "pipeline", "parts": 3, "copies": 2},
    {"scheduler": "auto"},
    {"scheme": "gc:1", "compute": "decoded"},
]
every_draw = pytest.mark.parametrize("name", [*JOINT, *ALONE])


def middle(name: str) -> Any:
    return {**JOINT, **ALONE}[name]


def cut_of(folder: Path) -> list[tuple[int, int, bool | None]]:
    records = read_journal(folder / "journal.jsonl")
    return [(one["step"], one["blocks"], one.get("joint")) for one in records if one["kind"] == "blocks"]


@pytest.mark.parametrize("name", list(ALONE))
def test_a_run_has_the_bits_of_a_plain_loop_that_seeds_each_block(name: str, tmp_path: Path) -> None:
    made = train(learner(middle(name)), out=tmp_path / "run", workers=1)
    assert bits(made.learners[0].model) == bits(plain(middle(name), lambda step: 8))
    assert cut_of(tmp_path / "run") == [(0, 8, False)]


@pytest.mark.parametrize("name", list(JOINT))
def test_dropout_in_one_pass_draws_the_masks_of_a_pass_for_each_block(name: str, tmp_path: Path) -> None:
    made = train(learner(middle(name), dtype=torch.float64), out=tmp_path / "run")
    close(made.learners[0].model, plain(middle(name), lambda step: BATCH, dtype=torch.float64), 1e-9)
    assert cut_of(tmp_path / "run") == [(0, BATCH, True)]


@pytest.mark.parametrize(
    ("name", "options"),
    # Each scheme once with one of the two, and with the other among slow tests.
    [
        pytest.param(name, one, marks=[pytest.mark.slow] if (k + j) % 2 else [])
        for k, name in enumerate(("dropout", "noise"))
        for j, one in enumerate(SCHEMES)
    ],
    ids=str,
)
def test_codes_schedulers_and_workers_agree(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    # Schemes with a delay need others to turn to.
    others = [learner(noise, other, blocks=6) for other in "bc"]
    made = train(learner(middle(name), blocks=6), *others, out=tmp_path / "run", **options)
    close(made.learners[0].model, plain(middle(name), lambda step: 6))
    close(made.learners[1].model, plain(noise, lambda step: 6))
    assert made.summary["largest_gradient_difference"] < 1e-5


def test_replicas_have_the_same_bits_whoever_is_late(tmp_path: Path) -> None:
    found = {
        delays: bits(train(learner(noise), out=tmp_path / delays, scheme="gc:1", delays=delays).learners[0].model)
        for delays in ("none", "bursts", "spikes")
    }
    assert len(set(map(tuple, found.values()))) == 1


@pytest.mark.parametrize("kind", ["torch", "numpy", "python"])
def test_data_that_draw_are_read_under_the_seeds_of_their_blocks(kind: str, tmp_path: Path) -> None:
    draws = {
        "torch": lambda k: torch.rand(()),
        "numpy": lambda k: np.random.rand(),
        "python": lambda k: random.random(),
    }
    data = Samples(draws[kind])
    for name, drawn in (("plain", lambda h, ids: h), ("noise", noise), ("dropout", dropout)):
        made = train(learner(drawn, data=data), out=tmp_path / name, workers=1)
        assert bits(made.learners[0].model) == bits(plain(drawn, lambda step: 8, data))
        coded = train(learner(drawn, data=data), out=tmp_path / f"{name}-coded", scheme="gc:1")
        close(coded.learners[0].model, made.learners[0].model)


@every_draw
def test_a_run_leaves_the_generators_as_they_are(name: str, tmp_path: Path) -> None:
    # Made before: building a model draws.
    one = learner(middle(name))
    np.random.randn()  # leaves a spare number behind
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    train(one, out=tmp_path / "run")
    assert torch.equal(before[0], torch.get_rng_state())
    assert repr(before[1]) == repr(np.random.get_state())
    assert before[2] == random.getstate()


def test_fewer_blocks_than_parts_are_refused_and_name_the_option(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"learner a: it draws .* blocks=8, but a job has 16 parts.* set its blocks to 16"
    ):
        train(learner(noise), out=tmp_path / "run", workers=16)
    assert not (tmp_path / "run").exists()
    made = train(learner(noise, blocks=16), out=tmp_path / "run", workers=16)
    close(made.learners[0].model, plain(noise, lambda step: 16))


def test_auto_uses_at_most_as_many_parts_as_blocks(tmp_path: Path) -> None:
    made = train(learner(noise, blocks=3), out=tmp_path / "run", workers=16, scheduler="auto")
    close(made.learners[0].model, plain(noise, lambda step: 3))
    jobs = [one for one in read_journal(tmp_path / "run" / "journal.jsonl") if one["kind"] == "job"]
    assert all(len({group for group, _ in job["rows"]}) <= 3 for job in jobs)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        (0, "learner a: blocks must be a whole number of at least 1: got 0"),
        (2.0, "learner a: blocks must be a whole number of at least 1: got 2.0"),
        (BATCH + 1, f"learner a: blocks={BATCH + 1} is more than batch={BATCH}"),
    ],
)
def test_blocks_are_between_one_and_the_batch(blocks: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        learner(noise, blocks=blocks)


def test_a_learner_that_draws_nothing_is_not_cut(tmp_path: Path) -> None:
    one = train(learner(lambda h, ids: h), out=tmp_path / "one")
    other = train(learner(lambda h, ids: h, blocks=2), out=tmp_path / "other")
    assert bits(one.learners[0].model) == bits(other.learners[0].model)
    assert cut_of(tmp_path / "other") == []


def test_dropout_of_no_effect_draws_nothing(tmp_path: Path) -> None:
    train(learner(torch.nn.Dropout(0.0)), out=tmp_path / "run")
    assert cut_of(tmp_path / "run") == []


def test_an_evaluation_that_draws_does_not_depend_on_the_workers(tmp_path: Path) -> None:
    losses = []
    for workers in (1, 3, 5):
        one = learner(noise, evaluation=Samples())
        made = train(one, out=tmp_path / str(workers), workers=workers, scheme="uncoded")
        losses.append(made.summary["models"]["a"]["evaluation_loss"])
    np.testing.assert_allclose(losses, losses[0], rtol=1e-5)


def test_seeds_depend_on_nothing_but_seed_step_and_block() -> None:
    seeds = {(a, b): block_seeds(a, b, 5) for a in (0, 1, 2**40) for b in (0, 1, 2**33)}
    assert len({one for each in seeds.values() for one in each}) == 5 * len(seeds)
    assert block_seeds(4, 9, 3) == block_seeds(4, 9, 7)[:3]
    assert all(0 <= one < 2**63 for each in seeds.values() for one in each)


@given(
    scheme=st.sampled_from(["uncoded", "gc:1", "gc:2,code=cyclic", "gc:1,q=3", "msgc:1,2,2", "srsgc:1,2,3"]),
    n=st.integers(4, 9),
    samples=st.integers(1, 70),
    data=st.data(),
)
def test_parts_are_whole_blocks(scheme: str, n: int, samples: int, data: st.DataObject) -> None:
    blocks = data.draw(st.integers(1, samples))
    cut, edges = layout(scheme, n), block_edges(samples, blocks)
    assert edges.tolist() == [0, *np.cumsum([len(each) for each in np.array_split(np.arange(samples), blocks)])]
    cuts = cut.cuts(samples, blocks)
    assert [cuts[0], cuts[-1]] == [0, samples]
    assert set(cuts.tolist()) <= set(edges.tolist())
    assert all(begin <= end for begin, end in pairwise(cuts.tolist()))
    for group, code in enumerate(cut.scheme.codes):
        for worker in range(code.n):
            ids, _ = cut.row(MiniTask(0, group, worker), np.arange(samples), blocks)
            numbers = cut.row_blocks(MiniTask(0, group, worker), samples, blocks)
            # Each block of a row is there as a whole, its samples in order.
            for b in set(numbers.tolist()):
                assert ids[numbers == b].tolist() == list(range(edges[b], edges[b + 1]))
