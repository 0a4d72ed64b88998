"""A learner that draws random numbers only in some step changes to blocks in that step, in every run alike."""

from pathlib import Path
from typing import Any

import pytest
import torch

import distseq
from distseq.engine.journal import read_journal
from tests.distseq.gradients.drawing import (
    LATE,
    STEPS,
    Samples,
    bits,
    close,
    dropout,
    late,
    learner,
    noise,
    plain,
    train,
)

TURN = 3  # the step whose batch has a late sample


def turned(blocks: int) -> Any:
    return lambda step: blocks if step >= TURN else 0


def turns(folder: Path) -> list[tuple[str, int, int]]:
    records = read_journal(folder / "journal.jsonl")
    return [(one["learner"], one["step"], one["blocks"]) for one in records if one["kind"] == "blocks"]


def noisy(h: torch.Tensor) -> torch.Tensor:
    return noise(h, h)


class Lines(distseq.Observer):
    def __init__(self) -> None:
        self.found: list[tuple[str, int, int]] = []

    def cut_in_blocks(self, learner: str, step: int, blocks: int) -> None:
        self.found.append((learner, step, blocks))


class Stop(distseq.Observer):
    """Interrupts the run after a step of learner a."""

    def __init__(self, after: int) -> None:
        self.after = after

    def job_applied(self, learner: str, step: int, metrics: Any, now: float) -> None:
        if (learner, step) == ("a", self.after):
            raise KeyboardInterrupt


SCHEMES: list[dict[str, Any]] = [
    {"scheme": "uncoded"},
    {"scheme": "gc:1"},
    {"scheme": "gc:2,code=cyclic"},
    {"scheme": "gc:1", "compute": "decoded"},
    {"scheme": "msgc:1,2,1", "blocks": 16},
    {"scheme": "srsgc:1,2,2,code=cyclic"},
    {"scheduler": "pipeline", "parts": 3, "copies": 2},
    {"scheduler": "auto"},
    {"scheme": "redispatch:1,copies=2", "delays": "bursts"},
]
DRAWS = {"noise": noisy, "dropout": lambda h: dropout(h, h)}


@pytest.mark.parametrize(
    ("name", "options"),
    # Each scheme once with one of the two, and with the other among slow tests.
    [
        pytest.param(name, one, marks=[pytest.mark.slow] if (k + j) % 2 else [])
        for k, name in enumerate(DRAWS)
        for j, one in enumerate(SCHEMES)
    ],
    ids=str,
)
def test_its_open_job_is_opened_again_in_blocks(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    chosen, lines, draw = dict(options), Lines(), DRAWS[name]
    blocks = chosen.pop("blocks", None)
    others = [learner(late(noisy), "b", blocks=blocks), learner(noise, "c", blocks=blocks)]
    made = train(learner(late(draw), blocks=blocks), *others, out=tmp_path / "run", watchers=[lines], **chosen)
    close(made.learners[0].model, plain(late(draw), turned(blocks or 8)))
    close(made.learners[1].model, plain(late(noisy), turned(blocks or 8)))
    close(made.learners[2].model, plain(noise, lambda step: blocks or 8))
    # Said once each.
    assert sorted(lines.found) == [("a", TURN, blocks or 8), ("b", TURN, blocks or 8)]
    assert sorted(turns(tmp_path / "run")) == [
        ("a", TURN, blocks or 8),
        ("b", TURN, blocks or 8),
        ("c", 0, blocks or 8),
    ]
    assert made.summary["failures"] == []


def test_it_has_the_bits_of_a_plain_loop(tmp_path: Path) -> None:
    made = train(learner(late(noisy)), out=tmp_path / "run", workers=1)
    assert bits(made.learners[0].model) == bits(plain(late(noisy), turned(8)))


@pytest.mark.parametrize("after", range(STEPS - 1))
def test_a_resumed_run_takes_the_same_turn(after: int, tmp_path: Path) -> None:
    whole = train(learner(late(noisy)), learner(noise, "b"), out=tmp_path / "whole")
    learners = [learner(late(noisy)), learner(noise, "b")]
    with pytest.raises(KeyboardInterrupt):
        train(*learners, out=tmp_path / "run", watchers=[Stop(after)], checkpoint_every=1)
    again = [learner(late(noisy)), learner(noise, "b")]
    resumed = distseq.train(again, resume=tmp_path / "run")
    for mine, theirs in zip(resumed.learners, whole.learners, strict=True):
        assert bits(mine.model) == bits(theirs.model)


def test_a_resumed_run_keeps_its_blocks(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(learner(noise), out=tmp_path / "run", watchers=[Stop(1)], checkpoint_every=1)
    with pytest.raises(
        ValueError, match=r"learner a: its batches are cut into 8 blocks in the checkpoint.* got blocks=5"
    ):
        distseq.train([learner(noise, blocks=5)], resume=tmp_path / "run")
    made = distseq.train([learner(noise, blocks=8)], resume=tmp_path / "run")
    close(made.learners[0].model, plain(noise, lambda step: 8))


def test_more_parts_than_blocks_stop_the_learner_and_name_the_option(tmp_path: Path) -> None:
    made = train(learner(late(noisy)), learner(dropout, "b"), out=tmp_path / "run", workers=16)
    (failure,) = made.summary["failures"]
    assert (failure["learner"], failure["step"]) == ("a", TURN)
    assert "it draws random numbers, so its batch is cut into blocks=8, but a job has 16 parts" in failure["error"]
    assert "set its blocks to 16 or more" in failure["error"]
    # The way out is one.
    made = distseq.train([learner(late(noisy), blocks=16), learner(dropout, "b")], resume=tmp_path / "run")
    assert made.summary["failures"] == []
    close(made.learners[0].model, plain(late(noisy), turned(16)))


def test_auto_leaves_parts_without_a_block_empty(tmp_path: Path) -> None:
    made = train(learner(late(noisy), blocks=2), out=tmp_path / "run", workers=16, scheduler="auto")
    close(made.learners[0].model, plain(late(noisy), turned(2)))


def test_data_that_draw_late_take_the_turn_too(tmp_path: Path) -> None:
    data = Samples(lambda k: torch.rand(()) if k == LATE else torch.ones(()))
    made = train(learner(lambda h, ids: h, data=data), out=tmp_path / "run", workers=1)
    assert bits(made.learners[0].model) == bits(plain(lambda h, ids: h, turned(8), data))
    assert turns(tmp_path / "run") == [("a", TURN, 8)]


@pytest.mark.parametrize("fails", ["row", "late"])
def test_other_faults_are_what_they_were(fails: str, tmp_path: Path) -> None:
    def breaks(h: torch.Tensor) -> torch.Tensor:
        if fails == "row" or len(h) < 20:  # in blocks
            raise RuntimeError("broken")
        return noisy(h)

    made = train(learner(late(breaks)), learner(noise, "b"), out=tmp_path / "run", scheme="uncoded", workers=1)
    (failure,) = made.summary["failures"]
    assert (failure["learner"], failure["step"], failure["error"]) == ("a", TURN, "RuntimeError: broken")
