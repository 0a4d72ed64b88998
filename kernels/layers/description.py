"""Reads descriptions of layers such as "lstm*2" or "ssm:states=16*3,attention:window=64"."""

import inspect
import re
from collections.abc import Callable, Mapping
from types import NoneType
from typing import Any, get_args, get_type_hints

# Layers of one item: far beyond any model that trains, and a typing error must not fill the memory.
MOST = 1000
ITEM = re.compile(r"(?P<name>[^*:=]*)(?P<options>(:[^*]*)?)(\*(?P<count>.*))?", re.DOTALL)
WORDS: Mapping[str, bool] = {"true": True, "false": False}


def parsed(item: str, layers: Mapping[str, Callable[..., Any]]) -> tuple[str, dict[str, Any], int]:
    """(name, options, count) of one item NAME[:OPTION=VALUE]...[*COUNT]. ValueError, naming the item, if one is wrong."""
    found = ITEM.fullmatch(item)
    name, count = (found["name"].strip(), found["count"]) if found else (item, None)
    if found is None or name not in layers:
        raise ValueError(f"a layer must be one of {', '.join(layers)}: got {name!r}")
    if count is not None and not (re.fullmatch(r"[0-9]{1,4}", count.strip()) and 1 <= int(count) <= MOST):
        raise ValueError(f"a layer's count must be a whole number from 1 to {MOST}: got {item!r}")
    known, options = options_of(layers[name]), {}
    for option in found["options"].split(":")[1:]:
        key, given, text = (part.strip() for part in option.partition("="))
        if not given:
            raise ValueError(f"a layer's option must be NAME=VALUE: got {option!r} in {item!r}")
        if key not in known:
            takes = ", ".join(f"{each} ({_named(kind)})" for each, kind in known.items())
            raise ValueError(f"layer {name!r} has no option {key!r}: it takes {takes}: got {item!r}")
        if key in options:
            raise ValueError(f"option {key!r} is given twice: got {item!r}")
        options[key] = _value(text, known[key], f"{key!r} of layer {name!r}", item)
    return name, options, int(count or 1)


def options_of(layer: Callable[..., Any]) -> dict[str, Any]:
    """Option -> type, of what makes a layer of a width; without what `functools.partial` has settled."""
    settled = getattr(layer, "keywords", {})
    made = getattr(layer, "func", layer)
    names = list(inspect.signature(made).parameters)[1:]  # the first is the width
    kinds = get_type_hints(made.__init__)
    return {name: kinds[name] for name in names if name not in settled}


def _value(text: str, kind: Any, what: str, item: str) -> Any:
    kinds = get_args(kind) or (kind,)
    if NoneType in kinds and text.lower() == "none":
        return None
    if bool in kinds and text.lower() in WORDS:
        return WORDS[text.lower()]
    # At most 9 digits: more are no size, and Python refuses to read thousands with a message of its own.
    if int in kinds and re.fullmatch(r"[+-]?[0-9]{1,9}", text):
        return int(text)
    if str in kinds:
        return text
    raise ValueError(f"{what} must be {_named(kind)}: got {text!r} in {item!r}")


def _named(kind: Any) -> str:
    words = {bool: "true or false", int: "a whole number", str: "a word", NoneType: "none"}
    return " or ".join(words[each] for each in get_args(kind) or (kind,))
