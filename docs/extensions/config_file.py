"""Lists the keys of the config file as tables, from the fields of the schema: type, default, option, meaning."""

from dataclasses import MISSING
from typing import Any

from distseq.config.keys import Key, keys, noted
from distseq.config.schema import TABLES, LearnerConfig

# Python's types in the words of TOML
NAMES = {str: "string", bool: "boolean", int: "integer", float: "number", dict: "table", list: "array of tables"}


def markdown() -> str:
    """A section with a table for each table of the file."""
    tables = {f"[{name}]": kind for name, kind in TABLES.items()} | {"[[learner]] and [defaults]": LearnerConfig}
    return "\n".join(_section(heading, kind) for heading, kind in tables.items())


def _section(heading: str, kind: type) -> str:
    lines = [f"## {heading}", "", "| key | type | default | option | meaning |", "|---|---|---|---|---|"]
    return "\n".join([*lines, *map(_row, keys(kind)), ""])


def _row(key: Key) -> str:
    option = f"--{key.meaning.option.replace('_', '-')}" if key.meaning.shell else f"{key.meaning.option}="
    cells = [f"`{key.name}`", _type(key), _default(key), f"`{option}`" if key.meaning.option else "", _meaning(key)]
    return f"| {' | '.join(cells)} |"


def _type(key: Key) -> str:
    if key.meaning.values:
        return ", ".join(f'`"{value}"`' for value in key.meaning.values)
    name = NAMES[key.kind]
    return name if key.meaning.least is None else f"{name}, at least {key.meaning.least}"


def _default(key: Key) -> str:
    if key.default is MISSING:
        return "required"
    return key.meaning.unset or (f"`{_toml(key.default)}`" if key.default not in (None, "") else "")


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def _meaning(key: Key) -> str:
    text = noted(key.meaning.description, key.meaning.users, "")
    for sign in "|<$[":
        text = text.replace(sign, f"\\{sign}")
    return text
