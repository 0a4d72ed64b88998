"""Learner snapshots, and the check that a saved one is compatible with a learner."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import nn

from distseq.learners.optimizers.by_name import Optimizer
from distseq.learners.optimizers.schedules import LENGTH, Schedule
from distseq.models.data.dataset import Dataset


class Cut(NamedTuple):
    """How the batches of a learner that draws random numbers are cut; 0 blocks = it was not seen to draw any."""

    blocks: int = 0
    joint: bool = False  # the blocks of a row share one pass


NOT_CUT = Cut()


@dataclass(frozen=True)
class Snapshot:
    """The state of a learner between two jobs, as torch's state dicts."""

    model: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    schedule: dict[str, Any] | None
    average: dict[str, torch.Tensor] | None = None
    accumulated: torch.Tensor | None = None  # (P + 2,) float64: the sum since the last optimizer step
    summed: int = 0  # jobs in that sum
    evaluated: int = 0  # steps made at the latest evaluation that the schedule has been stepped with
    cut: Cut = NOT_CUT  # of the next job's batch
    memory: dict[str, torch.Tensor] | None = (
        None  # of a temporal model, with the number of jobs that it has seen as "done"
    )


def check_compatible(name: str, own: Snapshot, saved: Snapshot, accumulate: int, blocks: int | None) -> None:
    """ValueError when the learner `name`, whose state is `own`, cannot be restored to `saved`; blocks: as it was given."""
    for place, mine, theirs in (
        ("model", _shapes(own.model), _shapes(saved.model)),
        ("memory", _shapes(own.memory or {}), _shapes(saved.memory or {})),
        # One without an average is named below.
        ("average", _shapes(own.average or saved.average or {}), _shapes(saved.average or own.average or {})),
        ("optimizer", _groups(own.optimizer), _groups(saved.optimizer)),
    ):
        if mine != theirs:
            wrong = sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))[0]
            raise ValueError(
                f"learner {name}: {wrong} of its {place} is {mine.get(wrong)}, but {theirs.get(wrong)} in the checkpoint"
            )
    for what, one, other in (
        ("a learning-rate schedule", own.schedule, saved.schedule),
        ("an average of the weights", own.average, saved.average),
    ):
        if (one is None) != (other is None):
            has, lacks = ("checkpoint", "learner") if one is None else ("learner", "checkpoint")
            raise ValueError(f"learner {name}: the {has} has {what}, but the {lacks} has none")
    # Other blocks would draw other numbers from the next step on.
    if saved.cut.blocks and blocks is not None and blocks != saved.cut.blocks:
        raise ValueError(
            f"learner {name}: its batches are cut into {saved.cut.blocks} blocks in the checkpoint, which a resumed run must "
            f"keep: got blocks={blocks}"
        )
    if saved.summed >= accumulate:
        raise ValueError(
            f"learner {name}: the checkpoint has accumulated {saved.summed} jobs since the last optimizer step, "
            f"so accumulate must be greater: got accumulate={accumulate}"
        )
    # A cosine of another length would have had other learning rates from the first step on.
    for key in set(LENGTH.values()) & (own.schedule or {}).keys():
        now, then = (own.schedule or {})[key], _plain(saved.schedule or {}).get(key)
        if now != then:
            raise ValueError(
                f"learner {name}: its schedule has {then} steps in the checkpoint, but {now} now: "
                "the number of steps of a run with a schedule cannot be changed"
            )


def _shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    return {key: f"{str(t.dtype).rpartition('.')[2]} {tuple(t.shape)}" for key, t in tensors.items()}


def _groups(optimizer: Mapping[str, Any]) -> dict[str, str]:
    """The parameters of each group. Settings such as the learning rate may change, and are restored with the state."""
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
    """What a resumed run must have in common with the learner, as far as data can tell: a JSON object.

    It covers shapes, frozen parameters and buffers, optimizer groups, schedule, names of loss and sampler, seed and data. Trained
    parameters are not in it, because they change, nor is code.
    """
    fixed = hashlib.sha256()
    for key, tensor in chain(model.named_parameters(), model.named_buffers()):
        # Trained parameters change, so they cannot tell whether a model is the same; what is frozen can.
        if not tensor.requires_grad:
            flat = tensor.detach().contiguous().reshape(-1)
            # As bytes, because numpy has no bfloat16.
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
    """The entries that are numbers, strings or None."""
    return {key: value for key, value in state.items() if value is None or type(value) in (bool, int, float, str)}


def _name(function: Any) -> str | None:
    return None if function is None else getattr(function, "__qualname__", type(function).__name__)
