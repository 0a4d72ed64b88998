"""Optimizers and learning-rate schedules of torch, by name, as a job file writes them."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import lr_scheduler

Optimizer = torch.optim.Optimizer
Schedule = lr_scheduler.LRScheduler
Named = Sequence[tuple[str, nn.Parameter]]

SHORT = {"cosine": "CosineAnnealingLR", "step": "StepLR"}
# Made from functions or other schedules, which a job file cannot hold.
UNWRITABLE = ("LambdaLR", "MultiplicativeLR", "SequentialLR", "ChainedScheduler")
# Schedule -> the argument that is the learner's number of steps where the job does not say otherwise.
LENGTH = {"CosineAnnealingLR": "T_max", "OneCycleLR": "total_steps"}


def torch_optimizer(
    name: str, args: Mapping[str, Any], named: Named, groups: Sequence[Mapping[str, Any]] = ()
) -> Optimizer:
    """torch.optim's optimizer of that name, case ignored, over the `named` parameters.

    Each of `groups` is a `match`, a regular expression searched in the parameters' names, and arguments in place of `args`
    for those that it finds; the first that finds a parameter has it. What is left has `args` alone. ValueError for another
    name, arguments that it does not take, or a group that finds nothing.
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
        # Made alone first: torch does not look at the arguments of a group.
        _made(name, known[name.lower()], {**args, **more}, own)
        made.append({"params": own, **more})
    rest = [parameter for _, parameter in left]
    return _made(name, known[name.lower()], args, [{"params": rest}, *made] if rest and made else rest or made)


def _matched(group: Mapping[str, Any], named: Named) -> tuple[list[nn.Parameter], list[tuple[str, nn.Parameter]]]:
    """The parameters that a group finds, and those that it leaves."""
    pattern = group.get("match")
    if not isinstance(pattern, str):
        raise ValueError(f"a group of parameters needs a match, a regular expression: got {dict(group)}")
    try:
        found = [bool(re.search(pattern, name)) for name, _ in named]
    except re.error as error:
        raise ValueError(f"group {pattern!r} is no regular expression: {error}") from None
    if not any(found):
        names = ", ".join(name for name, _ in named[:8]) + (" ..." if len(named) > 8 else "")
        raise ValueError(f"group {pattern!r} matches no parameter; left for it: {names or 'none'}")
    pairs = list(zip(named, found, strict=True))
    return [parameter for (_, parameter), own in pairs if own], [one for one, own in pairs if not own]


def _made(name: str, kind: Callable[..., Optimizer], args: Mapping[str, Any], parameters: Any) -> Optimizer:
    try:
        return kind(parameters, **args)
    except (TypeError, ValueError) as error:
        raise ValueError(f"optimizer {name} with {dict(args)}: {error}") from None


def torch_schedule(name: str, args: Mapping[str, Any], optimizer: Optimizer, steps: int) -> Schedule:
    """torch.optim.lr_scheduler's schedule of that name, case ignored, or `cosine` or `step`; it is stepped `steps` times.

    ValueError for another name, arguments it does not take, or a schedule that ends before the learner does.
    """
    known: dict[str, Callable[..., Schedule]] = {
        key.lower(): value
        for key, value in vars(lr_scheduler).items()
        if isinstance(value, type) and issubclass(value, Schedule) and key not in UNWRITABLE and key[0] != "_"
    }
    del known["lrscheduler"]
    known |= {short: known[full.lower()] for short, full in SHORT.items()}
    if name.lower() not in known:
        raise ValueError(f"unknown schedule {name!r}; known: {', '.join(sorted(known))}")
    kind = known[name.lower()]
    length = LENGTH.get(kind.__name__)
    implied = {length: steps} if length is not None and not {"epochs", "steps_per_epoch"} & args.keys() else {}
    try:
        schedule = kind(optimizer, **{**implied, **args})
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"schedule {name} with {dict(args)}: {error}") from None
    if getattr(schedule, "total_steps", steps) < steps:
        raise ValueError(f"schedule {name} with {dict(args)} ends before the learner's {steps} steps")
    return schedule
