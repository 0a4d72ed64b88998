"""Builds optimizers from their names and arguments in a config file."""

from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, signature
from typing import Any

import torch
from torch import nn

from distseq.learners.optimizers.groups import matched, trained_names
from distseq.learners.optimizers.muon import Muon
from distseq.learners.optimizers.schedules import check_finite

Optimizer = torch.optim.Optimizer


def torch_optimizer(
    name: str, args: Mapping[str, Any], model: nn.Module, groups: Sequence[Mapping[str, Any]] = ()
) -> Optimizer:
    """Builds torch.optim's optimizer of that name (case ignored), or `muon`, over the parameters that require a gradient.

    groups: each has a `match`, a regular expression searched in parameter names, and arguments that replace those of `args` for
        the matching parameters. The first match counts; parameters without a match get `args`.

    ValueError for an unknown name, arguments that the optimizer does not take, or a group that matches nothing.

    >>> torch_optimizer("sgd", {"lr": 0.1}, nn.Linear(2, 1)).param_groups[0]["lr"]
    0.1
    """
    known: dict[str, Callable[..., Optimizer]] = {
        key.lower(): value
        for key, value in vars(torch.optim).items()
        if isinstance(value, type) and issubclass(value, Optimizer) and value is not Optimizer
    }
    if name.lower() == "muon":
        # torch's own takes matrices alone.
        return _made(name, lambda model, **args: Muon(model, groups=groups, **args), args, model)
    if name.lower() not in known:
        raise ValueError(f"unknown optimizer {name!r}; known: {', '.join(sorted({*known, 'muon'}))}")
    made, left = [], trained_names(model)
    for group in groups:
        pairs, left = matched(group, left)
        own = [parameter for _, parameter in pairs]
        more = {key: value for key, value in group.items() if key != "match"}
        # Built alone first, only to check its arguments: torch stores unknown ones of a group without a word.
        _made(name, known[name.lower()], {**args, **more}, own)
        made.append({"params": own, **more})
    rest = [parameter for _, parameter in left]
    return _made(name, known[name.lower()], args, [{"params": rest}, *made] if rest and made else rest or made)


def check_step(optimizer: Optimizer) -> None:
    """ValueError for an optimizer such as LBFGS, whose step computes the loss again."""
    closure = signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is Parameter.empty:
        raise ValueError(
            f"{type(optimizer).__name__} computes the loss again within each step, but a step here has one gradient, which "
            "workers computed: use an optimizer whose step() needs no closure"
        )


def _made(name: str, kind: Callable[..., Optimizer], args: Mapping[str, Any], parameters: Any) -> Optimizer:
    check_finite(f"optimizer {name}", args)
    try:
        return kind(parameters, **args)
    # An IndexError, say, for a list that is too short.
    except Exception as error:
        raise ValueError(f"optimizer {name} with {dict(args)}: {' '.join(str(error).split())}") from None
