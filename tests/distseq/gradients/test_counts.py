"""Losses that return counts: gradients of the sum over the sum of counts, whatever the scheme; what counts may not be."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import distseq
from distseq.engine.journal import read_journal
from tests.distseq.gradients.test_passes import SYMBOLS, Table, alone, asked, task

BATCH, STEPS, LENGTH = 12, 6, 7
SCHEMES = [
    {"scheme": "uncoded"},
    {"scheme": "gc:1"},
    {"scheme": "gc:2,code=cyclic"},
    {"scheme": "msgc:1,2,2"},
    {"scheme": "srsgc:1,2,2,code=cyclic"},
    {"scheduler": "pipeline", "parts": 5},
    {"scheduler": "auto"},
]
Loss = Callable[[nn.Module, Any], Any]


def ragged(samples: int = 40, empty: Callable[[int], bool] = lambda sample: False) -> TensorDataset:
    """Sequences of 0 to LENGTH tokens: inputs (N, LENGTH, 2), targets (N, LENGTH), lengths (N,), sample ids (N,)."""
    draws = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, LENGTH + 1, (samples,), generator=draws)
    lengths = torch.tensor([0 if empty(k) else int(one) for k, one in enumerate(lengths)])
    x = torch.randn(samples, LENGTH, 2, generator=draws)
    return TensorDataset(x, torch.randn(samples, LENGTH, generator=draws), lengths, torch.arange(samples))


def per_token(model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
    x, y, lengths, _ = batch
    present = torch.arange(LENGTH) < lengths[:, None]
    return ((model(x).squeeze(2) - y).square() * present).sum(1), lengths  # integers


def line(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1)).to(dtype)


def learner(loss: Loss = per_token, data: Any = None, name: str = "a", **more: Any) -> distseq.Learner:
    model = line()
    chosen = {"batch": BATCH, "steps": STEPS, **more}
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    return distseq.Learner(name, model, optimizer, data=data or ragged(), loss=loss, **chosen)


def train(*learners: distseq.Learner, out: Path, **options: Any) -> distseq.Result:
    chosen = {"pool": "simulated", "workers": 4, "compute": "rows", "scheme": "uncoded", **options}
    chosen = {key: value for key, value in chosen.items() if key != "scheme" or "scheduler" not in options}
    return distseq.train(list(learners), out=out, console=Console(quiet=True), **chosen)


def plain(data: TensorDataset, accumulate: int = 1, clip: float | None = None) -> tuple[nn.Module, list[float], int]:
    """The loop that a user would write: model, losses of the batches, and optimizer steps that were not made."""
    model, losses, skipped = line(), [], 0
    one = learner(data=data, accumulate=accumulate)
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    total, count = torch.zeros(()), 0
    for step in range(STEPS):
        sums_B, counts_B = per_token(model, [each[one.ids(step)] for each in data.tensors])
        total, count = total + sums_B.sum(), count + int(counts_B.sum())
        losses += [float(sums_B.detach().sum() / counts_B.sum())] if counts_B.sum() else []
        if (step + 1) % accumulate:
            continue
        optimizer.zero_grad()
        if count:
            (total / count).backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
        skipped += not count
        total, count = torch.zeros(()), 0
    return model, losses, skipped


def same(one: nn.Module, other: nn.Module) -> None:
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(
    ("compute", "options"),
    [
        *(("rows", one) for one in SCHEMES),
        ("decoded", SCHEMES[1]),
        *(pytest.param("decoded", one, marks=pytest.mark.slow) for one in SCHEMES if one is not SCHEMES[1]),
    ],
    ids=str,
)
def test_a_gradient_is_of_the_sum_over_the_sum_of_counts(compute: str, options: Any, tmp_path: Path) -> None:
    data = ragged()
    # Schemes with a delay need others to turn to.
    others = [learner(data=data, name=name, seed=1) for name in "bc"]
    first = learner(data=data, accumulate=2, clip=0.1)
    made = train(first, *others, out=tmp_path / "run", compute=compute, **options)
    model, losses, _ = plain(data, accumulate=2, clip=0.1)
    same(made.learners[0].model, model)
    jobs = [
        one
        for one in read_journal(tmp_path / "run" / "journal.jsonl")
        if one.get("learner") == "a" and one["kind"] == "job"
    ]
    np.testing.assert_allclose([job["loss"] for job in jobs], losses, rtol=1e-4)
    one = learner(data=data)
    expected = [int(data.tensors[2][one.ids(job["step"])].sum()) for job in jobs]
    np.testing.assert_allclose([job["count"] for job in jobs], expected, rtol=1e-5)
    assert made.summary["largest_gradient_difference"] < 1e-5


def test_counts_of_one_give_the_weights_of_no_counts(tmp_path: Path) -> None:
    def mean(model: nn.Module, batch: Any) -> Tensor:
        sums_B, lengths_B = per_token(model, batch)
        return sums_B / lengths_B

    def ones(model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        return mean(model, batch), torch.ones(len(batch[0]), dtype=torch.bool)

    without = train(learner(mean), out=tmp_path / "without").learners[0].model
    within = train(learner(ones), out=tmp_path / "with").learners[0].model
    for mine, theirs in zip(within.parameters(), without.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_count_has_no_gradient(tmp_path: Path) -> None:
    def counted_by_the_model(model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        sums_B, lengths_B = per_token(model, batch)
        return sums_B, lengths_B + 0 * model[0].weight.square().sum()  # type: ignore[operator, union-attr]

    made = train(learner(counted_by_the_model), out=tmp_path / "run")
    same(made.learners[0].model, plain(ragged())[0])


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_batch_without_counts_makes_no_step_and_is_counted(accumulate: int, tmp_path: Path) -> None:
    def first(step: int) -> np.ndarray:
        # Steps 2 and 3 see only sequences without a token.
        return np.arange(20, 20 + BATCH) if step in (2, 3) else np.arange(BATCH)

    data = ragged(empty=lambda sample: sample >= 20)
    made = train(
        learner(data=data, accumulate=accumulate, sampler=first), out=tmp_path / "run", scheme="gc:1,code=cyclic"
    )
    torch.manual_seed(0)
    model = line()
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    for step in [k for k in range(STEPS) if k not in (2, 3) and (k + 1) % accumulate == 0]:
        sums_B, counts_B = per_token(model, [each[first(step)] for each in data.tensors])
        optimizer.zero_grad()
        (sums_B.sum() / counts_B.sum()).backward()
        optimizer.step()
    same(made.learners[0].model, model)
    jobs = [one for one in read_journal(tmp_path / "run" / "journal.jsonl") if one["kind"] == "job"]
    assert [job["count"] for job in jobs if "loss" not in job] == [0, 0]
    assert [job["step"] for job in jobs if job.get("skipped")] == ([2, 3] if accumulate == 1 else [3])
    assert made.summary["models"]["a"]["skipped_steps"] == 2 // accumulate
    assert np.isfinite(made.summary["models"]["a"]["training_loss"])
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == made.summary


def test_an_evaluation_is_the_sum_over_the_sum_of_counts(tmp_path: Path) -> None:
    held_out = ragged(11)
    made = train(learner(evaluation=held_out), out=tmp_path / "run")
    with torch.no_grad():
        sums_B, counts_B = per_token(made.learners[0].model, list(held_out.tensors))
    assert made.summary["models"]["a"]["evaluation_loss"] == pytest.approx(float(sums_B.sum() / counts_B.sum()))


def test_an_evaluation_without_counts_says_so(tmp_path: Path) -> None:
    made = train(learner(evaluation=ragged(5, lambda sample: True)), out=tmp_path / "run")
    assert made.summary["models"]["a"]["evaluation_error"] == "the counts of all evaluation samples are 0"


@pytest.mark.parametrize(
    ("count", "reason"), [(-1.0, "-1"), (float("nan"), "nan"), (float("inf"), "inf"), (float("-inf"), "-inf")]
)
def test_a_count_that_is_none_is_refused_with_its_sample(count: float, reason: str, tmp_path: Path) -> None:
    def wrong(model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        sums_B, lengths_B = per_token(model, batch)
        return sums_B, torch.where(batch[3] == 17, count, lengths_B.float())

    def late(step: int) -> np.ndarray:
        return np.array([*range(BATCH - 1), 17 if step == 2 else 3])

    # At once where the trial sees the sample, in its step where it does not.
    with pytest.raises(
        (ValueError, RuntimeError), match=rf"count {reason} for sample 17: a count must be finite and at"
    ):
        train(learner(wrong, sampler=late), out=tmp_path / "run")


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        (lambda sums, counts: (sums, counts[:, None]), r"must return \(\d+,\) counts: got shape \(\d+, 1\)"),
        (lambda sums, counts: (sums, counts.sum()), r"must return \(\d+,\) counts: got shape \(\)"),
        (lambda sums, counts: (sums, 3), r"must return a tensor of \(\d+,\) counts: got int"),
        (lambda sums, counts: (sums, counts, counts), r"the pair \(sums, counts\): got 3 values"),
        (lambda sums, counts: (sums, counts.to(torch.complex64)), "counts that are real numbers: got torch.complex64"),
    ],
)
def test_what_is_no_pair_is_refused(returned: Callable[..., Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"learner a: loss {reason}|learner a: loss must return .*{reason}"):
        train(learner(lambda model, batch: returned(*per_token(model, batch))), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_loss_that_returns_counts_only_sometimes_is_refused(tmp_path: Path) -> None:
    def sometimes(model: nn.Module, batch: Any) -> Any:
        sums_B, lengths_B = per_token(model, batch)
        return sums_B if bool((batch[3] == 17).any()) else (sums_B, lengths_B)

    def late(step: int) -> np.ndarray:
        return np.array([*range(BATCH - 1), 17 if step == 2 else 3])

    with pytest.raises(
        (ValueError, RuntimeError), match="returns no counts for these samples, but returned them when it"
    ):
        train(learner(sometimes, sampler=late), out=tmp_path / "run")


def test_a_resumed_run_keeps_sums_and_counts_between_two_optimizer_steps(tmp_path: Path) -> None:
    class Stop(distseq.Observer):
        def job_applied(self, learner: str, step: int, metrics: Any, now: float) -> None:
            if step == 2:
                raise KeyboardInterrupt

    data, out = ragged(), tmp_path / "run"
    whole = train(learner(data=data, accumulate=2), out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(learner(data=data, accumulate=2), out=out, watchers=[Stop()], checkpoint_every=1)
    again = distseq.train(
        [learner(data=data, accumulate=2)], resume=out, console=Console(quiet=True), scheme="gc:1"
    ).learners[0]
    same(again.model, whole.learners[0].model)


class Counted(Table):
    def per_sample_loss(self, batch: dict[str, Tensor]) -> Any:
        return super().per_sample_loss(batch), batch["targets"].sum(1)


def test_counts_are_computed_in_one_pass_with_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distseq.gradients.passes.FASTER", float("inf"))
    name = f"{__name__}:Counted"
    work = task(name)
    for job in range(7, 12):
        rows = [asked(work, learner, job) for learner in range(4)]
        found = [row.tobytes() for row in work.rows(rows)]
        assert found == alone(lambda: task(name), rows)
        counts = [
            float(each.samples["targets"].sum(1).float() @ torch.from_numpy(each.weights).float()) for each in rows
        ]
        np.testing.assert_allclose([work.row(*each)[-1] for each in rows], counts, rtol=1e-5)
    assert work.passes == (4,) * 4  # two of the trial, which takes three jobs, and one for each job after it
    assert SYMBOLS > 1
