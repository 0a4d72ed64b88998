"""What a learner was between two jobs, and whether another is of its kind: what a run that is resumed stands on."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import nn

from distseq.learners.optimizers import LENGTH, Optimizer, Schedule
from distseq.models.data.dataset import Dataset


@dataclass(frozen=True)
class Snapshot:
    """A learner between two jobs: state dicts as torch makes them."""

    model: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    schedule: dict[str, Any] | None
    average: dict[str, torch.Tensor] | None = None
    accumulated: torch.Tensor | None = None  # (P + 2,) float64: the sum since the last optimizer step
    summed: int = 0  # jobs in that sum


def check_compatible(name: str, own: Snapshot, kept: Snapshot, accumulate: int) -> None:
    """ValueError when the learner `name`, whose state is `own`, cannot become `kept`."""
    for place, mine, theirs in (
        ("model", _shapes(own.model), _shapes(kept.model)),
        ("optimizer", _groups(own.optimizer), _groups(kept.optimizer)),
    ):
        if mine != theirs:
            wrong = sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))[0]
            raise ValueError(
                f"learner {name}: {wrong} of its {place} is {mine.get(wrong)}, in the checkpoint {theirs.get(wrong)}"
            )
    for what, one, other in (
        ("a learning-rate schedule", own.schedule, kept.schedule),
        ("an average of the weights", own.average, kept.average),
    ):
        if (one is None) != (other is None):
            raise ValueError(f"learner {name}: {what} is in one of checkpoint and job only")
    if kept.summed >= accumulate:
        raise ValueError(f"learner {name}: accumulate={accumulate}, the checkpoint is at job {kept.summed + 1}")
    for key in set(LENGTH.values()) & (own.schedule or {}).keys():
        mine, theirs = (own.schedule or {})[key], (kept.schedule or {})[key]
        if mine != theirs:
            raise ValueError(
                f"learner {name}: its schedule is {theirs} steps long in the checkpoint and {mine} in the job: "
                "with a schedule, the steps of a run cannot change"
            )


def _shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    return {key: f"{str(t.dtype).rpartition('.')[2]} {tuple(t.shape)}" for key, t in tensors.items()}


def _groups(optimizer: Mapping[str, Any]) -> dict[str, str]:
    """What must agree of an optimizer's groups: their parameters."""
    groups = optimizer["param_groups"]
    return {f"group {g}": f"parameters {one['params']}" for g, one in enumerate(groups)}


def described(
    model: nn.Module,
    optimizer: Optimizer,
    schedule: Schedule | None,
    *,
    loss: Any,
    sampler: Any,
    seed: int,
    data: Dataset,
    evaluation: Dataset | None,
) -> dict[str, Any]:
    """What must be the same for a run to be resumed, as far as it can be told: JSON. Values of parameters that are trained are
    not in it, nor is code."""
    fixed = hashlib.sha256()
    for key, tensor in chain(model.named_parameters(), model.named_buffers()):
        if not tensor.requires_grad:
            flat = tensor.detach().contiguous().reshape(-1)
            fixed.update(key.encode() + flat.view(torch.uint8).numpy().tobytes())
    groups = [{**_plain(group), "params": len(group["params"])} for group in optimizer.param_groups]
    return {
        "shapes": _shapes(dict(model.named_parameters())),
        "fixed": fixed.hexdigest(),
        "groups": groups,
        "schedule": None if schedule is None else _plain(schedule.state_dict()),
        "loss": _name(loss),
        "sampler": _name(sampler),
        "seed": seed,
        "fingerprint": data.fingerprint,
        "evaluation": None if evaluation is None else evaluation.fingerprint,
    }


def _plain(state: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that are numbers, text or none."""
    return {key: value for key, value in state.items() if value is None or type(value) in (bool, int, float, str)}


def _name(function: Any) -> str | None:
    return None if function is None else getattr(function, "__qualname__", type(function).__name__)
