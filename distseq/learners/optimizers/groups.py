"""Parameter groups as a config file writes them: a regular expression, and the options of the parameters that it matches."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

Named = list[tuple[str, nn.Parameter]]


def trained_names(model: nn.Module) -> Named:
    """The (name, parameter) pairs of a model that require a gradient."""
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def matched(group: Mapping[str, Any], named: Sequence[tuple[str, nn.Parameter]]) -> tuple[Named, Named]:
    """The (name, parameter) pairs that a group matches, and those that it leaves to later groups.

    ValueError for a group without a regular expression, or one that matches nothing.
    """
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
    return [one for one, own in pairs if own], [one for one, own in pairs if not own]
