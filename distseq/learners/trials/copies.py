"""Copies of learners, so that a trial may step without touching the user's objects."""

from copy import copy, deepcopy
from typing import Any

import torch
from torch import nn

from distseq.gradients.problem import Loss, trained
from distseq.learners import pickling
from distseq.learners.learner import Learner, averaged_model
from distseq.models.temporal import TemporalModel

Memo = dict[int, Any]


class CopyError(ValueError):
    """Something of a learner cannot be copied; the message says what."""


def copied_model(model: nn.Module, loss: Loss | None, *, by_pickle: bool = False) -> tuple[nn.Module, Loss | None]:
    """A copy of a model and its loss. CopyError when it can be copied in no way."""
    # Together, because a loss may hold a reference to its model.
    if not by_pickle:
        try:
            return deepcopy((model, loss))
        except Exception:  # a user's model may raise anything, and torch's old weight_norm cannot be deep-copied
            pass
    try:
        return pickling.copied((model, loss))
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise CopyError(f"its model cannot be copied ({reason})") from error


def copied_learner(learner: Learner, *, by_pickle: bool = False) -> Learner:
    """A learner of copies of model, optimizer and schedule, with the same data. CopyError naming what cannot be copied."""
    new = copy(learner)
    new.model, new.loss = copied_model(learner.model, learner.loss, by_pickle=by_pickle)
    # What optimizer and schedule hold of the model is mapped to the copy.
    memo: Memo = {id(one): other for one, other in zip(learner.model.modules(), new.model.modules(), strict=True)}
    for one, other in zip(_tensors(learner.model), _tensors(new.model), strict=True):
        memo[id(one)] = other
    try:
        new.optimizer = _copied_optimizer(learner.optimizer, memo)
        new.schedule = deepcopy(learner.schedule, memo)
    except Exception as error:  # a user's optimizer may raise anything
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise CopyError(f"its optimizer or schedule cannot be copied ({reason})") from error
    if learner.memory is not None and isinstance(new.model, TemporalModel):
        new.memory = learner.memory.fresh(new.model)
    new.use(trained(new.model), None if learner.ema is None else averaged_model(learner.name, new.model, learner.ema))
    return new


def _tensors(model: nn.Module) -> list[torch.Tensor]:
    return [*model.parameters(), *model.buffers()]


def _copied_optimizer(optimizer: Any, memo: Memo) -> Any:
    """A deep copy with all attributes, also of optimizers inside: torch's own `__getstate__` keeps only those that it knows."""
    for value in vars(optimizer).values():
        if isinstance(value, torch.optim.Optimizer) and id(value) not in memo:
            _copied_optimizer(value, memo)
    if not isinstance(optimizer, torch.optim.Optimizer):
        return deepcopy(optimizer, memo)
    new = type(optimizer).__new__(type(optimizer))
    memo[id(optimizer)] = new
    # A schedule replaces `step` by a function of the optimizer that it was made for: the copy would step the original.
    own = {key: value for key, value in vars(optimizer).items() if key != "step"}
    vars(new).update(deepcopy(own, memo))
    if "step" in vars(optimizer):
        vars(new)["step"] = _as_scheduled(new)
    return new


def _as_scheduled(optimizer: torch.optim.Optimizer) -> Any:
    def step(*args: Any, **options: Any) -> Any:
        vars(optimizer)["_opt_called"] = True
        return type(optimizer).step(optimizer, *args, **options)

    # Without this mark a schedule warns that its optimizer was replaced.
    vars(step)["_wrapped_by_lr_sched"] = True
    return step


def beside_state(before: Any, after: Any) -> list[str]:
    """The attributes of an optimizer that a step has changed and that its `state_dict` does not bring back."""
    fresh = _copied_optimizer(before, {})
    fresh.load_state_dict(after.state_dict())
    plain = bool | int | float | str | None
    return sorted(
        key
        for key, value in vars(after).items()
        if key[0] != "_" and isinstance(value, plain) and vars(fresh).get(key) != value
    )
