"""The keys of a config file as tables, from the schema that checks it: type, default, meaning."""

from dataclasses import MISSING
from typing import Any, get_args, get_origin

from distseq.config.keys import Key, keys
from distseq.config.schema import TABLES, LearnerConfig

WORDS = {str: "text", int: "integer", float: "number", bool: "true or false", dict: "table", list: "array"}


def markdown() -> str:
    """A section with a table for each table of the file."""
    headings = {f"[{name}]": kind for name, kind in TABLES.items()} | {"[[learner]] and [defaults]": LearnerConfig}
    return "\n".join(_section(heading, kind) for heading, kind in headings.items())


def _section(heading: str, kind: type) -> str:
    head = [f"## {heading}", "", "| key | type | default | meaning |", "|---|---|---|---|"]
    rows = [f"| `{one.name}` | {_type(one)} | {_default(one)} | {_meaning(one)} |" for one in keys(kind)]
    return "\n".join([*head, *rows, ""])


def _type(one: Key) -> str:
    """What TOML calls it, or the values that it may have."""
    if one.meaning.values:
        return ", ".join(f"`{value}`" for value in one.meaning.values)
    kinds = get_args(one.type) if get_origin(one.type) not in (dict, list) else ()
    return " or ".join(_word(kind) for kind in kinds or (one.type,) if kind is not type(None))


def _word(kind: Any) -> str:
    return WORDS[get_origin(kind) or kind]


def _default(one: Key) -> str:
    if one.default is MISSING:
        return "**required**"
    if one.meaning.unset:
        return _cell(one.meaning.unset)
    if isinstance(one.default, bool):
        return f"`{str(one.default).lower()}`"
    return f"`{one.default_text}`" if one.default_text else ""


def _meaning(one: Key) -> str:
    option = [f"Option `--{one.meaning.option.replace('_', '-')}`."] if one.meaning.option and one.meaning.shell else []
    users = [f"({'; '.join(one.meaning.users)})"] if one.meaning.users else []
    return " ".join([_cell(one.meaning.description), *users, *option])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "\\<").replace("[", "\\[").replace("*", "\\*")
