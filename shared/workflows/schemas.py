"""Outputs that must be of a shape (`output_schema`): JSON Schema 2020-12, checked without fetching anything."""

from collections.abc import Mapping
from typing import Any, Final

import jsonschema_rs
from pydantic import JsonValue

from shared.workflows.substitution import as_json

MOST_TOLD: Final = 20
"""Errors that a model is told of one output."""
_PATTERNS: Final = jsonschema_rs.RegexOptions()
"""In linear time: a hostile pattern cannot backtrack."""


class _Refused(Exception):
    """A schema refers to something outside itself."""


def _fetch(uri: str) -> Any:
    raise _Refused(uri)


def schema_problem(schema: Mapping[str, JsonValue]) -> str | None:
    """Return why a schema cannot be used, None when it can."""
    try:
        _validator(schema)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, _Refused, ValueError) as error:
        return " ".join(str(error).split())[:300]
    return None


def _validator(schema: Mapping[str, JsonValue]) -> Any:
    return jsonschema_rs.Draft202012Validator(dict(schema), retriever=_fetch, pattern_options=_PATTERNS)


def read_output(text: str, schema: Mapping[str, JsonValue]) -> tuple[JsonValue, tuple[str, ...]]:
    """Return the value that an answer is, and what is wrong with it: nothing when the tuple is empty."""
    value = as_json(text)
    if isinstance(value, str) and schema.get("type") not in ("string", None):
        return value, ("the answer is not JSON: answer with the JSON and nothing else",)
    found = []
    for error in _validator(schema).iter_errors(value):
        where = "".join(f"[{one}]" if isinstance(one, int) else f".{one}" for one in error.instance_path)
        found.append(f"${where}: {error.message}"[:300])
        if len(found) == MOST_TOLD:
            break
    return value, tuple(found)
