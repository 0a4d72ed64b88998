"""Builds torch's learning-rate schedules from their names and arguments in a config file."""

from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

from torch.optim import Optimizer, lr_scheduler

Schedule = lr_scheduler.LRScheduler

SHORT = {"cosine": "CosineAnnealingLR", "step": "StepLR"}
# Schedules made from functions or other schedules, which a config file cannot hold.
UNWRITABLE = ("LambdaLR", "MultiplicativeLR", "SequentialLR", "ChainedScheduler")
# Schedule -> the argument that defaults to the learner's number of steps.
LENGTH = {"CosineAnnealingLR": "T_max", "OneCycleLR": "total_steps"}


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
    check_finite(f"schedule {name}", args)
    try:
        schedule = kind(optimizer, **{**implied, **args})
    # An IndexError, say, for a list that is too short.
    except Exception as error:
        raise ValueError(f"schedule {name} with {dict(args)}: {' '.join(str(error).split())}") from None
    check_length(schedule, steps, f"{name} with {dict(args)}")
    return schedule


def check_finite(what: str, args: Mapping[str, Any]) -> None:
    """ValueError naming an argument that is, or holds, NaN or an infinity: after a step with it, weights are no numbers."""
    for key, value in args.items():
        for number in value if isinstance(value, list | tuple) else [value]:
            if isinstance(number, float) and not isfinite(number):
                raise ValueError(f"{what}: {key} must be finite: got {value}")


def check_length(schedule: Schedule, steps: int, name: str) -> None:
    """ValueError for a schedule that raises before the learner's `steps` optimizer steps are made."""
    # OneCycleLR raises at the step after its last: better now than at the end of a long run.
    if getattr(schedule, "total_steps", steps) < steps:
        raise ValueError(f"schedule {name} ends before the learner's {steps} steps")
