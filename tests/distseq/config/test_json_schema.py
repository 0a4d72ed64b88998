"""The JSON schema for editors says what `load_config` says."""

import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings

from distseq.cluster.simulated import COMPUTE, UNFINISHED
from distseq.config.json_schema import json_schema
from distseq.config.keys import keys
from distseq.config.schema import TABLES, Config
from distseq.config.toml_file import from_dict, to_toml
from distseq.scheduling.adaptive.cost import OBJECTIVES
from distseq.scheduling.closing import closing_rule
from tests.coding.strategies import PROPERTY
from tests.distseq.config.configs import LEARNER, WHOLE, configs

ROOT = Path(__file__).resolve().parents[3]


def refused(raw: Any) -> bool:
    return not jsonschema.Draft7Validator(json_schema()).is_valid(raw)


def test_the_shipped_file_is_what_the_code_gives() -> None:
    shipped = ROOT / "distseq" / "config" / "schema.json"
    assert json.loads(shipped.read_text(encoding="utf-8")) == json_schema(), "run `make schema`"


def test_it_is_a_schema() -> None:
    jsonschema.Draft7Validator.check_schema(json_schema())


@pytest.mark.parametrize("path", sorted((ROOT / "examples").rglob("*.toml")), ids=lambda path: path.name)
def test_the_examples_fit(path: Path) -> None:
    assert not refused(tomllib.loads(path.read_text(encoding="utf-8")))


@settings(PROPERTY, max_examples=40)
@given(config=configs)
def test_whatever_is_written_into_a_run_folder_fits(config: Config) -> None:
    assert not refused(tomllib.loads(to_toml(config)))


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"learner": []},
        {"learner": LEARNER},
        {"learner": [{"name": "a"}]},
        {"learner": [LEARNER | {"optimiser": "sgd"}]},
        {"learner": [LEARNER | {"name": "a/b"}]},
        {"learner": [LEARNER | {"groups": ["bias"]}]},
        WHOLE | {"polo": {}},
        WHOLE | {"run": 3},
        WHOLE | {"run": {"steps": "3"}},
        WHOLE | {"run": {"steps": True}},
        WHOLE | {"run": {"steps": 0}},
        WHOLE | {"pool": {"kind": "cloud"}},
        WHOLE | {"defaults": {"bach": 3}},
        WHOLE | {"scheduler": {"closing": "soon"}},
    ],
)
def test_what_load_config_refuses_an_editor_marks(raw: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_dict(raw)
    assert refused(raw)


def test_what_a_learner_needs_may_be_in_the_defaults() -> None:
    raw = {"defaults": {"model": "m:M", "data": "x", "batch": 8}, "learner": [{"name": "a"}, {"name": "b"}]}
    assert from_dict(raw)
    assert not refused(raw)


def test_every_key_is_described_to_editors() -> None:
    for table, kind in TABLES.items():
        own = json_schema()["properties"][table]
        assert own["additionalProperties"] is False
        for key in keys(kind):
            assert own["properties"][key.name]["description"].startswith(key.meaning.description)


def values(table: str, name: str) -> tuple[str, ...]:
    return next(key.meaning.values for key in keys(TABLES[table]) if key.name == name)


def test_the_values_are_those_that_the_layers_below_know() -> None:
    assert values("pool", "unfinished") == UNFINISHED
    assert set(values("pool", "compute")) == set(COMPUTE) - {"none"}
    assert values("scheduler", "objective") == OBJECTIVES
    assert [type(closing_rule(name)).__name__.lower() for name in values("scheduler", "closing")] == ["safe", "mu"]
