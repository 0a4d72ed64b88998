"""Parameter groups, accumulation and averaged weights of a config file do what torch's own do."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import swa_utils

import distseq
from distseq.config.toml_file import from_dict, load_config, to_toml
from distseq.gradients.problem import trained
from distseq.learners.from_config import build_fleet
from distseq.learners.learner import Learner

JOB = """
[run]
steps = 6
[[learner]]
name = "a"
model = "distseq.models.char_lstm:CharLSTM"
model_args = { hidden = 2 }
data = "text:text.txt"
data_args = { window = 3 }
batch = 4
optimizer = "sgd"
optimizer_args = { lr = 0.1, weight_decay = 0.5 }
"""
GROUPS = """groups = [{ match = "bias", weight_decay = 0.0 }, { match = "^lstm", lr = 0.2, weight_decay = 0.25 }]\n"""
NAMES = ["embedding.weight", "bias", *(f"lstm.{part}_l0" for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))]


@pytest.fixture(autouse=True)
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("to be or not to be, that is the question. " * 4)


def learner(more: str = "") -> Learner:
    Path("job.toml").write_text(JOB + more)
    return build_fleet(load_config(Path("job.toml"))).learners[0]


def settings(one: Learner) -> dict[str, tuple[float, float]]:
    """Parameter -> its learning rate and weight decay."""
    names = {id(p): name for name, p in one.model.named_parameters()}
    groups = one.optimizer.param_groups
    return {names[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}


def test_a_parameter_belongs_to_the_first_group_that_finds_it_and_the_rest_has_the_common_settings() -> None:
    found = settings(learner(GROUPS))
    assert set(found) == set(NAMES)
    for name, pair in found.items():
        expected = (0.1, 0.0) if "bias" in name else (0.2, 0.25) if name.startswith("lstm") else (0.1, 0.5)
        assert pair == expected


def test_groups_may_take_every_parameter_and_without_any_there_is_one() -> None:
    assert len(learner('groups = [{ match = "bias" }, { match = "" }]').optimizer.param_groups) == 2
    assert len(learner().optimizer.param_groups) == 1


def test_groups_are_written_as_they_were_read() -> None:
    Path("job.toml").write_text(JOB + GROUPS + "accumulate = 2\nema = 0.5\n")
    config = load_config(Path("job.toml"))
    Path("again.toml").write_text(to_toml(config))
    assert load_config(Path("again.toml")) == config


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (
            [{"match": "bais$"}],
            r"match = 'bais\$' matches no parameter that earlier groups left: bias, embedding\.weight, lstm",
        ),
        (
            [{"match": ""}, {"match": "bias"}],
            "match = 'bias' matches no parameter that earlier groups left: they left none",
        ),
        ([{"match": "("}], r"match = '\(' is not a regular expression"),
        ([{"weight_decay": 0.0}], "a parameter group needs match = a regular expression"),
        (["bias"], r"groups\[0\] in .* must be a table: got 'bias'"),
        ([{"match": "bias", "weight_decy": 0.0}], "learner a: optimizer sgd with .*weight_decy"),
        ([{"match": "bias", "lr": float("inf")}], "learner a: optimizer sgd: lr must be finite: got inf"),
        ([{"match": "bias", "lr": -1.0}], "optimizer sgd with .*Invalid learning rate"),
        ("bias", "groups in .* must be an array of tables"),
    ],
)
def test_groups_that_make_no_sense_are_refused_in_one_line(groups: Any, message: str) -> None:
    Path("job.toml").write_text(JOB)
    one = load_config(Path("job.toml")).learner[0].__dict__ | {"groups": groups}
    with pytest.raises(ValueError, match=message) as error:
        build_fleet(from_dict({"learner": [one | {"optimizer_args": {"lr": 0.1}}]}))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("optimizer", "args", "message"),
    [
        ("adam", {"betas": [0.9]}, r"learner a: optimizer adam with \{'betas': \[0\.9\]\}: list index out of range"),
        ("adam", {"betas": [0.9, float("nan")]}, r"learner a: optimizer adam: betas must be finite: got \[0\.9, nan\]"),
        ("sgd", {"lr": float("inf")}, "learner a: optimizer sgd: lr must be finite: got inf"),
        ("muon", {"lr": float("nan")}, "learner a: optimizer muon: lr must be finite: got nan"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_in_one_line(
    optimizer: str, args: dict[str, Any], message: str
) -> None:
    Path("job.toml").write_text(JOB)
    one = load_config(Path("job.toml")).learner[0].__dict__ | {"groups": []}
    with pytest.raises(ValueError, match=message) as error:
        build_fleet(from_dict({"learner": [one | {"optimizer": optimizer, "optimizer_args": args}]}))
    assert "\n" not in str(error.value)


def totals(one: Learner, count: int) -> list[np.ndarray]:
    draws = np.random.default_rng(3)
    reached = np.ones(len(trained(one.model)))
    return [np.r_[draws.normal(size=len(one.publish())), reached, 4.0 * k, 4.0] for k in range(count)]


@pytest.mark.parametrize("clip", ["", "clip = 0.5\n"])
def test_accumulation_steps_once_on_the_mean_over_the_batches(clip: str) -> None:
    one, other = learner(f"accumulate = 3\n{clip}"), learner(clip)
    for turn in range(2):
        three = totals(one, 3)
        before = one.publish()
        losses = [one.apply(total)["loss"] for total in three[:2]]
        np.testing.assert_array_equal(one.publish(), before)
        losses.append(one.apply(three[2])["loss"])
        assert losses == [0.0, 1.0, 2.0], "the loss of each batch"
        other.apply((three[0] + three[1] + three[2]) / 3)
        np.testing.assert_allclose(one.publish(), other.publish(), rtol=1e-6, atol=1e-7)
        assert (one.publish() != before).any(), turn


def test_a_schedule_is_as_long_as_the_optimizer_s_steps() -> None:
    one = learner('accumulate = 2\nschedule = "cosine"\n')
    for total in totals(one, 6):
        one.apply(total)
    assert one.optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("accumulate = 0", r"accumulate in \[\[learner\]\] 'a' must be at least 1: got 0"),
        ("accumulate = 4", "learner a: steps=6 is not a multiple of accumulate=4"),
        ("accumulate = 1.5", "accumulate in .* must be an integer: got 1.5"),
        ("ema = 0.0", r"ema in \[\[learner\]\] 'a' must be greater than 0: got 0.0"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(more: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        learner(more)


def test_weights_are_averaged_after_each_optimizer_step_as_torch_does() -> None:
    one = learner("accumulate = 2\nema = 0.75\n")
    average = swa_utils.AveragedModel(one.model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.75))
    for k, total in enumerate(totals(one, 6)):
        one.apply(total)
        if k % 2:
            average.update_parameters(one.model)
    assert one.averaged is not None
    for key, tensor in one.averaged.state_dict().items():
        assert torch.equal(tensor, average.module.state_dict()[key])
        assert not torch.equal(tensor, one.model.state_dict()[key])
    assert learner().averaged is None


def test_a_run_keeps_the_averaged_weights_too() -> None:
    Path("job.toml").write_text(JOB + "ema = 0.5\n")
    result = distseq.train("job.toml", pool="simulated", out="run")
    assert sorted(path.name for path in (result.folder / "weights").iterdir()) == ["a.ema.safetensors", "a.safetensors"]
