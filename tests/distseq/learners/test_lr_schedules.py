"""A schedule of a config file changes the learning rate as torch's own does, once per step."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

from distseq.config.check import check
from distseq.config.toml_file import from_dict
from distseq.gradients.problem import trained
from distseq.learners.from_config import build_fleet
from distseq.learners.learner import Learner

STEPS = 7
LOSSES = (5.0, 4.0, 3.0, 3.0, 3.0, 3.0, 3.0)  # of the steps


@pytest.fixture(autouse=True)
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("to be or not to be, that is the question. " * 4)


def learner(**more: Any) -> Learner:
    one = {
        "name": "a",
        "model": "distseq.models.char_lstm:CharLSTM",
        "model_args": {"hidden": 2},
        "data": "text:text.txt",
        "data_args": {"window": 3},
        "batch": 2,
        "optimizer": "sgd",
        "optimizer_args": {"lr": 0.1, "momentum": 0.5},
        **more,
    }
    config = from_dict({"run": {"steps": STEPS, "evaluate_every": 1}, "learner": [one]})
    check(config)
    return build_fleet(config).learners[0]


def rates(one: Learner) -> list[float]:
    """The learning rate before each step and after the last."""
    seen = [one.optimizer.param_groups[0]["lr"]]
    for step, loss in enumerate(LOSSES):
        one.apply(np.r_[np.full(len(one.publish()) + len(trained(one.model)), 1e-3), 2 * loss, 2.0])
        one.evaluated(step + 1, loss)
        seen.append(one.optimizer.param_groups[0]["lr"])
    return seen


def torch_rates(kind: Any, **args: Any) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.5)
    schedule = kind(optimizer, **args)
    seen = [optimizer.param_groups[0]["lr"]]
    for loss in LOSSES:
        optimizer.step()
        schedule.step(*([loss] if kind is lr_scheduler.ReduceLROnPlateau else []))
        seen.append(optimizer.param_groups[0]["lr"])
    return seen


@pytest.mark.parametrize(
    ("name", "args", "kind", "whole"),
    [
        ("cosine", {}, lr_scheduler.CosineAnnealingLR, {"T_max": STEPS}),
        ("cosine", {"T_max": 3, "eta_min": 0.01}, lr_scheduler.CosineAnnealingLR, {"T_max": 3, "eta_min": 0.01}),
        ("CosineAnnealingLR", {"T_max": 4}, lr_scheduler.CosineAnnealingLR, {"T_max": 4}),
        ("step", {"step_size": 2, "gamma": 0.3}, lr_scheduler.StepLR, {"step_size": 2, "gamma": 0.3}),
        ("multisteplr", {"milestones": [1, 4]}, lr_scheduler.MultiStepLR, {"milestones": [1, 4]}),
        ("ExponentialLR", {"gamma": 0.9}, lr_scheduler.ExponentialLR, {"gamma": 0.9}),
        ("LinearLR", {"total_iters": 3}, lr_scheduler.LinearLR, {"total_iters": 3}),
        ("OneCycleLR", {"max_lr": 0.2}, lr_scheduler.OneCycleLR, {"max_lr": 0.2, "total_steps": STEPS}),
        ("CyclicLR", {"base_lr": 0.1, "max_lr": 0.3}, lr_scheduler.CyclicLR, {"base_lr": 0.1, "max_lr": 0.3}),
        ("ReduceLROnPlateau", {"patience": 1}, lr_scheduler.ReduceLROnPlateau, {"patience": 1}),
    ],
)
def test_a_schedule_changes_the_learning_rate_as_torch_s_does(
    name: str, args: dict[str, Any], kind: Any, whole: dict[str, Any]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seen = rates(learner(schedule=name, schedule_args=args))
    assert seen == torch_rates(kind, **whole)
    assert len(set(seen)) > 1


def test_without_a_schedule_the_learning_rate_stays() -> None:
    assert set(rates(learner())) == {0.1}


def test_a_learner_s_own_steps_are_the_length_of_its_schedule() -> None:
    assert rates(learner(schedule="cosine", steps=3))[3] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("cosin", {}, "unknown schedule 'cosin'; known: "),
        ("LambdaLR", {}, "unknown schedule 'LambdaLR'; known: "),
        ("step", {}, "schedule step with {}: .*step_size"),
        ("step", {"step_size": 2, "gama": 1}, "schedule step with .*gama"),
        ("step", {"step_size": 0}, "learner a: ZeroDivisionError"),
        ("step", {"step_size": "2"}, "learner a: TypeError"),
        (
            "OneCycleLR",
            {"max_lr": 0.2, "total_steps": 5},
            "schedule OneCycleLR with .* ends before the learner's 7 steps",
        ),
        ("OneCycleLR", {"max_lr": 0.2, "epochs": 2, "steps_per_epoch": 3}, "ends before the learner's 7 steps"),
        ("exponentiallr", {"gamma": float("nan")}, "learner a: schedule exponentiallr: gamma must be finite: got nan"),
        ("multisteplr", {"milestones": [1, float("inf")]}, r"milestones must be finite: got \[1, inf\]"),
        (None, {"gamma": 0.5}, "learner a: schedule_args is given, but no schedule"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused_in_one_line(
    name: str | None, args: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as error:
        learner(**({} if name is None else {"schedule": name}), schedule_args=args)
    assert "\n" not in str(error.value)
