"""The keys of a config file as tables, from the classes that a config file fills: type, default, meaning."""

import ast
import inspect
import io
import textwrap
import tokenize
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, NamedTuple, get_args, get_type_hints

from distseq.config.schema import CheckpointConfig, LearnerConfig, PoolConfig, RunConfig, SchedulerConfig

TABLES = {
    "[run]": RunConfig,
    "[pool]": PoolConfig,
    "[scheduler]": SchedulerConfig,
    "[checkpoint]": CheckpointConfig,
    "[[learner]] and [defaults]": LearnerConfig,
}
REQUIRED = object()


class Key(NamedTuple):
    name: str
    type: str
    default: Any
    help: str


def markdown() -> str:
    """A section with a table for each table of the file."""
    return "\n".join(_section(heading, kind) for heading, kind in TABLES.items())


def keys(kind: type) -> list[Key]:
    """The keys that a class defines, whether it is a dataclass or a pydantic model."""
    types = get_type_hints(kind)
    if is_dataclass(kind):
        comments = _comments(kind)
        return [
            Key(
                one.name,
                _named(types[one.name]),
                _default(one.default, one.default_factory),
                one.metadata.get("help", comments.get(one.name, "")),
            )
            for one in fields(kind)
        ]
    return [
        Key(
            name,
            _named(types[name]),
            REQUIRED if info.is_required() else info.get_default(call_default_factory=True),
            info.description or "",
        )
        for name, info in kind.model_fields.items()  # type: ignore[attr-defined]
    ]


def _section(heading: str, kind: type) -> str:
    lines = [f"## {heading}", "", "| key | type | default | meaning |", "|---|---|---|---|"]
    for key in keys(kind):
        default = (
            "required" if key.default is REQUIRED else f"`{_toml(key.default)}`" if key.default is not None else ""
        )
        lines.append(f"| `{key.name}` | {key.type} | {default} | {_cell(key.help)} |")
    return "\n".join([*lines, ""])


def _default(value: Any, factory: Any) -> Any:
    if value is not MISSING:
        return value
    return REQUIRED if factory is MISSING else factory()


def _named(wanted: Any) -> str:
    """A type in the words of TOML."""
    names = {
        str: "string",
        int: "integer",
        float: "float",
        bool: "boolean",
        dict: "table",
        list: "array",
        tuple: "array",
    }
    if wanted in names:
        return names[wanted]
    inner = [each for each in get_args(wanted) if each is not type(None)]
    origin = getattr(wanted, "__origin__", None)
    if origin in names:
        return names[origin]
    if inner and all(isinstance(each, str) for each in inner):  # a Literal
        return "string"
    return " or ".join(dict.fromkeys(_named(each) for each in inner)) if inner else "string"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "\\<").replace("$", "\\$")


def _comments(kind: type) -> dict[str, str]:
    """The comment behind each field, where its metadata holds no help."""
    source = textwrap.dedent(inspect.getsource(kind))
    behind = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    body = ast.parse(source).body[0].body  # type: ignore[attr-defined]
    named = [one for one in body if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)]
    return {one.target.id: behind[one.lineno] for one in named if one.lineno in behind}  # type: ignore[union-attr]
