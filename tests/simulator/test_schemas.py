"""Structured answers: the smallest value that a schema takes."""

import json
from typing import Any

import httpx
import jsonschema  # type: ignore[import-untyped]  # publishes no types
import pytest

from simulator.schemas import fitted, instance
from tests.simulator.conftest import asking, said

SCHEMAS: list[dict[str, Any]] = [
    {},
    {"type": "object"},
    {"type": "object", "additionalProperties": False},
    {"type": "string"},
    {"type": "string", "minLength": 400},
    {"type": "string", "maxLength": 3},
    {"type": "string", "format": "date-time"},
    {"type": "integer"},
    {"type": "integer", "minimum": 7, "multipleOf": 5},
    {"type": "integer", "exclusiveMinimum": 3},
    {"type": "integer", "maximum": -2},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    {"type": "number", "exclusiveMaximum": 0},
    {"type": "number", "minimum": 0.5, "maximum": 0.75},
    {"type": "boolean"},
    {"type": "null"},
    {"type": ["string", "null"]},
    {"const": {"a": 1}},
    {"enum": ["b", "c"]},
    {"type": "array", "items": {"type": "integer"}},
    {"type": "array", "items": {"enum": [1, 2]}, "minItems": 3},
    {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}]},
    {"anyOf": [{"type": "null"}, {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}]},
    {"oneOf": [{"type": "integer"}, {"type": "string"}]},
    {"allOf": [{"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]}, {"required": ["b"]}]},
    {
        "type": "object",
        "properties": {"score": {"type": "integer", "minimum": 1}, "why": {"type": "string"}},
        "required": ["score", "why"],
        "additionalProperties": False,
    },
    {
        "$defs": {
            "node": {"type": "object", "properties": {"next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]}}}
        },
        "$ref": "#/$defs/node",
    },
    {
        "$defs": {"leaf": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}},
        "type": "object",
        "properties": {"leaves": {"type": "array", "items": {"$ref": "#/$defs/leaf"}, "minItems": 1}},
        "required": ["leaves"],
    },
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: json.dumps(schema)[:60])
def test_instances_are_valid(schema: dict[str, Any]) -> None:
    jsonschema.validate(instance(schema, "some words"), schema)


def test_fitted_drops_what_is_closed_out_and_adds_what_is_required() -> None:
    schema = {
        "type": "object",
        "properties": {"kept": {}, "needed": {"type": "integer", "minimum": 4}},
        "required": ["kept", "needed"],
        "additionalProperties": False,
    }
    assert fitted({"kept": [1], "extra": 2}, schema, schema, "") == {"kept": [1], "needed": 4}


async def test_a_structured_answer_is_valid_and_about_the_question(http: httpx.AsyncClient) -> None:
    """JSON alone; its free texts are from the question."""
    schema = SCHEMAS[25]
    wanted = {"type": "json_schema", "json_schema": {"name": "grade", "schema": schema}}
    answer = json.loads(
        said(await http.post("/chat/completions", json=asking("Grade this essay.", response_format=wanted)))
    )
    jsonschema.validate(answer, schema)
    assert answer["why"] == "Grade this essay."


async def test_json_object_is_an_object(http: httpx.AsyncClient) -> None:
    answer = await http.post(
        "/chat/completions", json=asking("Name a colour.", response_format={"type": "json_object"})
    )
    assert json.loads(said(answer)) == {"answer": "Name a colour."}
