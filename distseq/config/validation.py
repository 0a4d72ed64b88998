"""Checks the tables of a config file against the schema, with pydantic; errors are one line."""

import difflib
import json
from collections.abc import Hashable, Mapping
from dataclasses import MISSING
from functools import cache
from typing import Annotated, Any, Literal, TypeVar

import tomli_w
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic_core import ErrorDetails

from distseq.config.keys import LARGEST, NAME, Key, keys, noted

T = TypeVar("T", bound=Hashable)
# pydantic's words -> those of TOML, and of the project's other messages
WORDS = {
    "Input should be a valid dictionary": "must be a table",
    "Input should be a valid list": "must be an array of tables, such as [[learner]]",
    "Input should be": "must be",
    f"String should match pattern '^{NAME}$'": "must be letters, digits, '.', '_' and '-', the first a letter or a digit",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
    "a valid boolean": "true or false",
    "a valid ": "a ",
    "a integer": "an integer",
    "Value error, ": "",
}
# Of arguments. Copying, writing and reading them are recursive, here and on the workers.
DEEPEST = 64
SHOWN = 300  # characters of a wrong value
# Not strict: in Python, the tables may be any Mapping and not just a dict.
TABULAR = ConfigDict(extra="forbid")
STRICT = ConfigDict(extra="forbid", strict=True, protected_namespaces=())


@cache
def model(table: type) -> type[BaseModel]:
    """The pydantic model of a table: strict types, ranges, and no key that the dataclass does not have."""
    own: dict[str, Any] = {one.name: (_type(one), _field(one)) for one in keys(table)}
    return create_model(table.__name__, __config__=STRICT, __doc__=table.__doc__, **own)


def _type(one: Key) -> Any:
    if one.meaning.values:
        # A default that is none of the values, "", means that the key is not set; who writes it gets what the default gives.
        return Literal[tuple(dict.fromkeys((*one.meaning.values, one.default)))]
    return Annotated[one.type, AfterValidator(_plain)] if one.kind in (dict, list) else one.type


def _field(one: Key) -> Any:
    means = one.meaning
    options: dict[str, Any] = {"description": noted(means.description, means.users, means.unset)}
    bounds = {"ge": means.least, "le": means.most, "gt": means.above, "lt": means.below}
    if one.kind is int and means.most is None:
        bounds["le"] = LARGEST
    options |= {name: bound for name, bound in bounds.items() if bound is not None}
    if one.kind is float and {means.least, means.above} != {None}:
        options["allow_inf_nan"] = False
    options |= {"pattern": f"^{means.pattern}$"} if means.pattern else {}
    return Field(... if one.default is MISSING else one.default, **options)


def depth(value: Any) -> int:
    """How deep tables and arrays are nested, at most DEEPEST + 1: what goes deeper, or in a circle, is not followed."""
    level, found = [value], 0
    while level and found <= DEEPEST:
        held = [
            one.values() if isinstance(one, Mapping) else one
            for one in level
            if isinstance(one, Mapping | list | tuple)
        ]
        found += bool(held)
        level = [inner for values in held for inner in values] if held else []
    return found


def _plain(value: Any) -> Any:
    """Arguments travel to the workers as JSON, and are kept in the run folder as TOML, which has no null."""
    if depth(value) > DEEPEST:
        raise ValueError(f"must be nested at most {DEEPEST} deep")
    try:
        tomli_w.dumps({"value": json.loads(json.dumps(value))})
    except TypeError as error:
        raise ValueError(f"must hold text, numbers, true or false, arrays and tables ({error})") from None
    return value


def fill(table: type[T], raw: Mapping[str, Any], where: str) -> T:
    """The dataclass of a table, from its keys. ValueError with one line for the first thing that is wrong."""
    try:
        found = model(table).model_validate(dict(raw))
    except ValidationError as error:
        raise ValueError(_line(error.errors(), model(table), where)) from None
    return table(**{name: getattr(found, name) for name in found.model_fields_set})


def learner_place(table: Mapping[str, Any]) -> str:
    """How messages name the table of a learner."""
    return f"[[learner]] {table['name']!r}" if isinstance(table.get("name"), str) else "[[learner]]"


def check(table: Any, where: str) -> None:
    """ValueError when a dataclass of the schema holds what its table in a file could not."""
    fill(type(table), vars(table), where)


def check_known(table: type, raw: Mapping[str, Any], where: str) -> None:
    """ValueError for a key that the table does not have, whatever the values are."""
    try:
        model(table).model_validate(dict(raw))
    except ValidationError as error:
        unknown = [one for one in error.errors() if one["type"] == "extra_forbidden"]
        if unknown:
            raise ValueError(_line(unknown, model(table), where)) from None


def tables(raw: Mapping[str, Any], names: tuple[str, ...], array: str) -> dict[str, Any]:
    """The named tables of a file, empty where it has none, and its array of tables. ValueError for anything else in it."""
    own: dict[str, Any] = {name: (dict[str, Any], {}) for name in names} | {array: (list[dict[str, Any]], [])}
    file = create_model("ConfigFile", __config__=TABULAR, **own)
    try:
        return dict(file.model_validate(dict(raw)))
    except ValidationError as error:
        raise ValueError(_line(error.errors(), file, "the config file")) from None


def _line(errors: list[ErrorDetails], kind: type[BaseModel], where: str) -> str:
    """One line with the broken rule and the value that breaks it, for the first of pydantic's errors."""
    # Unknown keys come first: one may be the misspelling of a key that is reported as missing.
    error = min(errors, key=lambda one: one["type"] != "extra_forbidden")
    name, *inner = error["loc"]
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(name), kind.model_fields, n=1, cutoff=0.0)
        return f"unknown key {name!r} in {where}; nearest: {near[0]}"
    if error["type"] == "missing":
        return f"{where} needs {name!r}"
    rule = error["msg"]
    for theirs, ours in WORDS.items():
        rule = rule.replace(theirs, ours)
    given = _shown(error["input"])
    return f"{name}{''.join(f'[{one!r}]' for one in inner)} in {where} {rule}: got {given}"


def _shown(value: Any) -> str:
    """A value on one line that is not too long."""
    try:
        text = repr(value)
    except RecursionError:
        text = f"a {type(value).__name__}"
    # The arrays of numpy and torch are shown on several lines.
    text = " ".join(text.splitlines())
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} ..."
