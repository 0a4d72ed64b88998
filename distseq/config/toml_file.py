"""Reads a config file into a configuration and writes one back; errors are one line."""

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tomli_w

from distseq.config.schema import TABLES, Config, LearnerConfig
from distseq.config.validation import check_known, fill, learner_place, tables

# Bytes of the largest config file, far more than a thousand learners take, and parts of the longest dotted key.
LARGEST, PARTS = 1 << 24, 100


def load_config(path: str | Path) -> Config:
    """Read a config file (TOML). ValueError, in one line, when it cannot be read or when anything in it is wrong.

    >>> text = '''
    ... [[learner]]
    ... name = "text"
    ... model = "distseq.models.sequence:SequenceModel"
    ... data = "text:book.txt"
    ... batch = 8
    ... '''
    >>> Path("config.toml").write_text(text) and load_config("config.toml").learner[0].batch
    8
    """
    try:
        with open(path, "rb") as file:
            return from_dict(_parsed(file.read(LARGEST + 1)))
    except OSError as error:
        raise ValueError(f"cannot read config file {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not TOML: it is not UTF-8 text ({error.reason} at byte {error.start})") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not TOML: {error}") from None
    except RecursionError:
        raise ValueError(f"{path}: its tables and lists are nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _parsed(content: bytes) -> dict[str, Any]:
    """The tables of a config file. ValueError for a file that would take too long to parse; whatever tomllib raises."""
    if len(content) > LARGEST:
        raise ValueError(f"a config file may have at most {LARGEST >> 20} MiB")
    # tomllib's time and memory grow with the square of a key's parts: 5,000 of them take 100 MB.
    if any(part.count(b".") > PARTS for part in re.split(rb"[=,{}\[\]\n]", content)):
        raise ValueError(f"a key may have at most {PARTS} parts")
    # Editors on Windows write a byte order mark.
    return tomllib.loads(content.decode("utf-8-sig"))


def from_dict(raw: Mapping[str, Any]) -> Config:
    """A configuration from the tables of a config file. ValueError, in one line, for anything wrong in them.

    Example: from_dict({"learner": [{"name": "a", "model": "m:M", "data": "csv:x.csv", "batch": 8}]}).learner[0].optimizer
    """
    found = tables(raw, (*TABLES, "defaults"), "learner")
    defaults, learners = found.pop("defaults"), found.pop("learner")
    check_known(LearnerConfig, defaults, "[defaults]")
    # Merged key by key: a learner that gives model_args replaces those of [defaults] as a whole.
    whole = [{**defaults, **one} for one in learners]
    return Config(
        tuple(fill(LearnerConfig, one, learner_place(one)) for one in whole),
        **{name: fill(TABLES[name], table, f"[{name}]") for name, table in found.items()},
    )


def to_toml(config: Config) -> str:
    """The config file of a configuration, which reads back equal."""
    written: dict[str, Any] = {name: _table(getattr(config, name)) for name in TABLES}
    return tomli_w.dumps(written | {"learner": [_table(one) for one in config.learner]})


def _table(one: Any) -> dict[str, Any]:
    """Keys that are set, in plain JSON: TOML has neither null nor tuples."""
    return {key: value for key, value in json.loads(json.dumps(asdict(one))).items() if value not in (None, {}, [])}
