"""Learners that draw random numbers end alike on real workers and on simulated ones."""

from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import distseq
from distseq.engine.journal import read_journal
from tests.distseq.gradients.drawing import bits, dropout, late, learner, noise, plain, train


def drawing() -> list[Any]:
    return [
        learner(dropout, "joint", blocks=10),
        learner(noise, "apart", blocks=10),
        learner(late(lambda h: noise(h, h)), "late", blocks=10),
    ]


@pytest.mark.parametrize("pool", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_a_pool_gives_the_bits_of_a_simulated_one(pool: str, tmp_path: Path) -> None:
    here = train(*drawing(), out=tmp_path / "here", scheme="gc:1")
    there = train(*drawing(), out=tmp_path / "there", scheme="gc:1", pool=pool, hosts=2)
    for mine, theirs in zip(there.learners, here.learners, strict=True):
        assert bits(mine.model) == bits(theirs.model)
    assert there.summary["failures"] == []


def test_hosts_that_may_differ_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="learner a draws random numbers, which differ between CPUs and GPUs: device=auto"
    ):
        train(learner(noise), out=tmp_path / "run", device="auto")
    train(learner(lambda h, ids: h), out=tmp_path / "run", device="auto")


def test_the_bits_do_not_depend_on_the_number_of_threads(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        made = train(learner(noise), out=tmp_path / "run", workers=1)
    finally:
        torch.set_num_threads(threads)
    assert bits(made.learners[0].model) == bits(plain(noise, lambda step: 8))


CONFIG = {
    "run": {"steps": 4},
    "defaults": {
        "model": "tests.distseq.training.test_randomness:Dropped",
        "data": "distseq.models.data.synthetic:group_words",
        "data_args": {"points": 3, "length": 4},
        "batch": 12,
    },
    "learner": [{"name": "default"}, {"name": "six", "blocks": 6}],
}


class Dropped(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.drop = torch.nn.Embedding(16, 16), torch.nn.Dropout(0.3)

    def per_sample_loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        logits = self.drop(self.table(batch["inputs"])).transpose(1, 2)
        return torch.nn.functional.cross_entropy(logits, batch["targets"], reduction="none").mean(1)


def test_a_config_file_sets_blocks_and_the_run_keeps_them(tmp_path: Path) -> None:
    quiet = Console(quiet=True)
    options: dict[str, Any] = {"pool": "simulated", "workers": 3, "console": quiet}
    made = distseq.train(CONFIG, out=tmp_path / "run", scheme="gc:1", **options)
    other = distseq.train(CONFIG, out=tmp_path / "other", scheduler="auto", **options)
    for mine, theirs in zip(made.learners, other.learners, strict=True):
        torch.testing.assert_close(mine.model.table.weight, theirs.model.table.weight, rtol=1e-5, atol=1e-6)
    blocks = [one for one in read_journal(tmp_path / "run" / "journal.jsonl") if one["kind"] == "blocks"]
    assert [(one["learner"], one["blocks"], one["joint"]) for one in blocks] == [
        ("default", 12, True),
        ("six", 6, True),
    ]
    again = distseq.train(resume=tmp_path / "run", steps=6, console=quiet)
    assert again.summary["jobs"] == 12
