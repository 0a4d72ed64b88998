"""Reads and writes specifications, `NAME[:VALUE,...[,KEY=VALUE,...]]`, as dataclasses and their fields.

Fields without a default are values, in order; fields with a default are options. The number of workers, `n`, is neither.
"""

import re
from collections.abc import Callable
from dataclasses import MISSING, fields
from functools import cache
from typing import Any, TypeVar, get_type_hints

T = TypeVar("T")
Reader = Callable[[str], Any]


# Larger numbers are typing errors, with which tables of groups and rounds would fill the memory.
LARGEST = 1_000_000


def _whole(word: str) -> int:
    # Not all that int() takes: of "1_0", "+1" or Arabic digits a specification would be another text than is read back.
    if not re.fullmatch(r"-?[0-9]+", word):
        raise ValueError(f"{word!r} is not a whole number")
    if len(word) > 8 or abs(int(word)) > LARGEST:
        raise ValueError(f"{word} is too large: numbers go up to {LARGEST}")
    return int(word)


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise ValueError(f"{word!r} is not a number") from None


# Only types whose text is read back as the same value: a specification is written into checkpoints and journals.
READERS: dict[Any, Reader] = {int: _whole, float: _number, str: str}


def from_words(kind: Callable[..., T], spec: str, name: str, example: str, **fixed: int) -> T:
    """The dataclass `kind`, from what follows `name` in a specification and the fields in `fixed`, which it does not contain.

    ValueError, naming specification and value, for a wrong number of values, an unknown option, or a value of the wrong type;
    and whatever `kind` raises.
    """
    positional, options = _fields(kind)
    rest = spec.strip()[len(name) + 1 :]
    words = [word.strip() for word in rest.split(",")] if rest else []
    values = [word for word in words if "=" not in word]
    pairs = [word.split("=", 1) for word in words if "=" in word]
    named = dict(pairs)
    # A dictionary keeps the last of two equal options; a typing error should not be decided by order.
    if len(named) < len(pairs):
        raise ValueError(f"scheme {spec!r}: an option is given twice")
    if len(values) != len(positional):
        wanted = ",".join(positional) or "no values"
        raise ValueError(f"scheme {spec!r}: {name} takes {wanted}, as in {example!r}")
    for key in named:
        if key not in options:
            raise ValueError(f"scheme {spec!r}: {name} has no option {key!r}; known: {', '.join(options) or 'none'}")
    given = dict(zip(positional, values, strict=True)) | named
    try:
        read = {key: (positional | options)[key](word) for key, word in given.items()}
    except ValueError as error:
        raise ValueError(f"scheme {spec!r}: {error}") from None
    return kind(**fixed, **read)


def to_words(one: Any) -> str:
    """The values and options that `from_words` reads back, after a colon; options at their defaults are left out."""
    kind: Any = type(one)
    positional, _ = _fields(kind)
    words = [str(getattr(one, name)) for name in positional]
    words += [
        f"{f.name}={getattr(one, f.name)}"
        for f in fields(one)
        if f.name != "n" and f.default is not MISSING and getattr(one, f.name) != f.default
    ]
    return f":{','.join(words)}" if words else ""


def example_of(kind: Callable[..., Any], name: str) -> str:
    """A specification with the names of the values in place of the values."""
    return ":".join(filter(None, [name, ",".join(word.upper() for word in _fields(kind)[0])]))


@cache
def _fields(kind: Any) -> tuple[dict[str, Reader], dict[str, Reader]]:
    """The readers of the values and of the options. ValueError for a field of a type that cannot be written in a word."""
    if not isinstance(kind, type):
        return {}, {}
    types = get_type_hints(kind)
    said = [f for f in fields(kind) if f.name != "n" and f.init]
    for f in said:
        if types[f.name] not in READERS:
            raise ValueError(f"{kind.__name__}.{f.name} must be int, float or str to be part of a specification")
    required = {f.name: READERS[types[f.name]] for f in said if f.default is MISSING}
    return required, {f.name: READERS[types[f.name]] for f in said if f.name not in required}
