"""Builds torch optimizers and learning-rate schedules from their names and arguments in a config file."""

import re
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, signature
from typing import Any

import torch
from torch import nn
from torch.optim import lr_scheduler

Optimizer = torch.optim.Optimizer
Schedule = lr_scheduler.LRScheduler
Named = Sequence[tuple[str, nn.Parameter]]

SHORT = {"cosine": "CosineAnnealingLR", "step": "StepLR"}
# Schedules made from functions or other schedules, which a config file cannot hold.
UNWRITABLE = ("LambdaLR", "MultiplicativeLR", "SequentialLR", "ChainedScheduler")
# Schedule -> the argument that defaults to the learner's number of steps.
LENGTH = {"CosineAnnealingLR": "T_max", "OneCycleLR": "total_steps"}


def torch_optimizer(
    name: str, args: Mapping[str, Any], named: Named, groups: Sequence[Mapping[str, Any]] = ()
) -> Optimizer:
    """Builds torch.optim's optimizer of that name (case ignored) over `named` (name, parameter) pairs.

    groups: each has a `match`, a regular expression searched in parameter names, and arguments that replace those of `args` for
        the matching parameters. The first match counts; parameters without a match get `args`.

    ValueError for an unknown name, arguments that the optimizer does not take, or a group that matches nothing.

    >>> torch_optimizer("sgd", {"lr": 0.1}, list(nn.Linear(2, 1).named_parameters())).param_groups[0]["lr"]
    0.1
    """
    known: dict[str, Callable[..., Optimizer]] = {
        key.lower(): value
        for key, value in vars(torch.optim).items()
        if isinstance(value, type) and issubclass(value, Optimizer) and value is not Optimizer
    }
    if name.lower() not in known:
        raise ValueError(f"unknown optimizer {name!r}; known: {', '.join(sorted(known))}")
    made, left = [], list(named)
    for group in groups:
        own, left = _matched(group, left)
        more = {key: value for key, value in group.items() if key != "match"}
        # Built alone first, only to check its arguments: torch stores unknown ones of a group without a word.
        _made(name, known[name.lower()], {**args, **more}, own)
        made.append({"params": own, **more})
    rest = [parameter for _, parameter in left]
    return _made(name, known[name.lower()], args, [{"params": rest}, *made] if rest and made else rest or made)


def _matched(group: Mapping[str, Any], named: Named) -> tuple[list[nn.Parameter], list[tuple[str, nn.Parameter]]]:
    """The parameters that a group matches, and the (name, parameter) pairs that it leaves to later groups."""
    pattern = group.get("match")
    if not isinstance(pattern, str):
        raise ValueError(f"a parameter group needs match = a regular expression: got {dict(group)}")
    try:
        # search, not match: "bias$" is meant to find the biases of every layer.
        found = [bool(re.search(pattern, name)) for name, _ in named]
    except re.error as error:
        raise ValueError(f"match = {pattern!r} is not a regular expression: {error}") from None
    if not any(found):
        names = ", ".join(name for name, _ in named[:8]) + (" ..." if len(named) > 8 else "")
        raise ValueError(
            f"match = {pattern!r} matches no parameter that earlier groups left: {names or 'they left none'}"
        )
    pairs = list(zip(named, found, strict=True))
    return [parameter for (_, parameter), own in pairs if own], [one for one, own in pairs if not own]


def _made(name: str, kind: Callable[..., Optimizer], args: Mapping[str, Any], parameters: Any) -> Optimizer:
    try:
        return kind(parameters, **args)
    except (TypeError, ValueError) as error:
        raise ValueError(f"optimizer {name} with {dict(args)}: {error}") from None


def torch_schedule(name: str, args: Mapping[str, Any], optimizer: Optimizer, steps: int) -> Schedule:
    """Builds torch.optim.lr_scheduler's schedule of that name (case ignored), or `cosine` or `step`.

    steps: how often it will be stepped, which is the default of its length. ValueError for an unknown name, arguments that it
    does not take, or a schedule that ends before the learner does.
    """
    known: dict[str, Callable[..., Schedule]] = {
        key.lower(): value
        for key, value in vars(lr_scheduler).items()
        if isinstance(value, type) and issubclass(value, Schedule) and key not in UNWRITABLE and key[0] != "_"
    }
    # The abstract base class.
    del known["lrscheduler"]
    known |= {short: known[full.lower()] for short, full in SHORT.items()}
    if name.lower() not in known:
        raise ValueError(f"unknown schedule {name!r}; known: {', '.join(sorted(known))}")
    kind = known[name.lower()]
    # OneCycleLR takes its length either as total_steps or as epochs x steps_per_epoch, not both.
    length = LENGTH.get(kind.__name__)
    implied = {length: steps} if length is not None and not {"epochs", "steps_per_epoch"} & args.keys() else {}
    try:
        schedule = kind(optimizer, **{**implied, **args})
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"schedule {name} with {dict(args)}: {error}") from None
    check_length(schedule, steps, f"{name} with {dict(args)}")
    return schedule


def check_length(schedule: Schedule, steps: int, name: str) -> None:
    """ValueError for a schedule that raises before the learner's `steps` optimizer steps are made."""
    # OneCycleLR raises at the step after its last: better now than at the end of a long run.
    if getattr(schedule, "total_steps", steps) < steps:
        raise ValueError(f"schedule {name} ends before the learner's {steps} steps")


def check_step(optimizer: Optimizer) -> None:
    """ValueError for an optimizer such as LBFGS, whose step computes the loss again."""
    closure = signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is Parameter.empty:
        raise ValueError(
            f"{type(optimizer).__name__} computes the loss again within each step, but a step here has one gradient, which "
            "workers computed: use an optimizer whose step() needs no closure"
        )
