"""The JSON schema of a config file, with which editors complete and check one.

`python -m distseq.config.json_schema` prints what lies beside this file as schema.json (`make schema` writes it).
"""

import json
from typing import Any

from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import CoreSchema, core_schema

from distseq.config.schema import TABLES, LearnerConfig
from distseq.config.validation import model

# The newest draft that the TOML plug-ins of editors read
DRAFT = "http://json-schema.org/draft-07/schema#"


class _Toml(GenerateJsonSchema):
    """Without null, which TOML does not have, and without titles that repeat the keys."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> dict[str, Any]:
        return self.generate_inner(schema["schema"])

    def dict_schema(self, schema: core_schema.DictSchema) -> dict[str, Any]:
        # Arguments, whatever they are: versions of pydantic say so in different ways.
        return {"type": "object"}

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> dict[str, Any]:
        found = super().default_schema(schema)
        # An empty default says only that the key is not set.
        return {name: value for name, value in found.items() if name != "default" or value not in (None, "", {}, [])}

    def field_title_should_be_set(self, schema: CoreSchema | Any) -> bool:
        return False


def json_schema() -> dict[str, Any]:
    """A schema that accepts the config files that `load_config` does, but for rules that concern several keys."""
    learner = _table(LearnerConfig)
    required = learner.pop("required")
    tables = {name: _table(kind) for name, kind in TABLES.items()}
    defaults = learner | {"description": "[defaults]: keys of every learner that does not set them itself."}
    return {
        "$schema": DRAFT,
        "title": "distseq config file",
        "type": "object",
        "additionalProperties": False,
        "properties": tables | {"defaults": defaults, "learner": {"type": "array", "minItems": 1, "items": learner}},
        "required": ["learner"],
        "allOf": [_given(key) for key in required],
    }


def _table(kind: type) -> dict[str, Any]:
    found = model(kind).model_json_schema(schema_generator=_Toml)
    del found["title"]
    return found


def _given(key: str) -> dict[str, Any]:
    """What a key is required by: [defaults] has it, or every learner."""
    by_all = {"properties": {"learner": {"items": {"required": [key]}}}}
    return {"anyOf": [{"required": ["defaults"], "properties": {"defaults": {"required": [key]}}}, by_all]}


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2))
