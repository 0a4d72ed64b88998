"""Reads a config file into a configuration and writes one back; errors are one line."""

import difflib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from distseq.config.schema import (
    CheckpointConfig,
    Config,
    LearnerConfig,
    PoolConfig,
    RunConfig,
    SchedulerConfig,
)

T = TypeVar("T")


def load_config(path: Path) -> Config:
    """Read a job file; ValueError with one line for anything wrong in it."""
    try:
        with open(path, "rb") as file:
            return from_dict(tomllib.load(file))
    except OSError as error:
        raise ValueError(f"cannot read job file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def from_dict(raw: Mapping[str, Any]) -> Config:
    """A configuration from the tables of a job file."""
    _known(raw, ["run", "pool", "scheduler", "checkpoint", "defaults", "learner"], "the job file")
    defaults, learners = raw.get("defaults", {}), raw.get("learner", [])
    _table(defaults, "[defaults]")
    _known(defaults, [f.name for f in fields(LearnerConfig)], "[defaults]")
    if not isinstance(learners, list):
        raise ValueError("learners are an array of tables: write [[learner]]")
    return Config(
        tuple(_fill(LearnerConfig, {**defaults, **_table(one, "[[learner]]")}, "[[learner]]") for one in learners),
        _fill(RunConfig, raw.get("run", {}), "[run]"),
        _fill(PoolConfig, raw.get("pool", {}), "[pool]"),
        _fill(SchedulerConfig, raw.get("scheduler", {}), "[scheduler]"),
        _fill(CheckpointConfig, raw.get("checkpoint", {}), "[checkpoint]"),
    )


def _table(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} must be a table: got {value!r}")
    return value


def _known(table: Mapping[str, Any], known: list[str], where: str) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
            raise ValueError(f"unknown key {key!r} in {where}; nearest: {near[0]}")


def _fill(kind: type[T], raw: Any, where: str) -> T:
    """A frozen dataclass from a table, every key known, present where it has no default, and of its type."""
    table = _table(raw, where)
    slots = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    _known(table, list(slots), where)
    for name, slot in slots.items():
        if name not in table and slot.default is MISSING and slot.default_factory is MISSING:
            raise ValueError(f"{where} needs {name!r}")
    types = get_type_hints(kind)
    for key, value in table.items():
        if isinstance(value, dict | list):
            _json(value, f"{key} in {where}")
    return kind(**{key: _typed(value, types[key], f"{key} in {where}") for key, value in table.items()})


def _json(value: dict[str, Any] | list[Any], where: str) -> None:
    """Arguments travel to the workers as JSON."""
    try:
        json.dumps(value)
    except TypeError as error:
        raise ValueError(f"{where} must hold text, numbers, true or false, arrays and tables: {error}") from None


def _typed(value: Any, wanted: Any, where: str) -> Any:
    allowed = get_args(wanted) if isinstance(wanted, UnionType) else (get_origin(wanted) or wanted,)
    if isinstance(value, int) and not isinstance(value, bool) and float in allowed and int not in allowed:
        return float(value)
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        names = " or ".join(t.__name__ for t in allowed if t is not type(None))
        raise ValueError(f"{where} must be {names}: got {value!r}")
    if isinstance(value, list):
        for item in value:
            _typed(item, get_args(wanted)[0], f"each of {where}")
    return value


def to_toml(config: Config) -> str:
    """The job file of a configuration, which reads back equal."""
    names = ("run", "pool", "scheduler", "checkpoint")
    tables: list[tuple[str, Any]] = [(f"[{name}]", getattr(config, name)) for name in names]
    tables += [("[[learner]]", learner) for learner in config.learner]
    return "\n".join(f"{head}\n" + "".join(_line(k, v) for k, v in asdict(one).items()) for head, one in tables)


def _line(key: str, value: Any) -> str:
    return "" if value is None else f"{key} = {_toml(value)}\n"


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, str):
        # TOML forbids the surrogate pairs and the raw DEL of JSON's strings.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value) if isinstance(value, float) else json.dumps(value)
