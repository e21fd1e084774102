"""The smallest value that a JSON Schema accepts, and a value fitted to one. Pure.

Covers what structured output takes: types, enum, const, required, items, bounds, formats, anyOf/oneOf/allOf, and
local $ref.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

DEEPEST: Final = 40
TERSE_FROM: Final = 4
"""From this depth on, what may be null or left out is: schemas can refer to themselves."""

_FORMATS: Final[dict[str, str]] = {
    "date-time": "2026-11-23T12:00:00Z",
    "date": "2026-11-23",
    "time": "12:00:00Z",
    "duration": "PT1M",
    "email": "someone@example.org",
    "uri": "https://example.org/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "192.0.2.1",
    "hostname": "example.org",
}


def instance(schema: Mapping[str, Any], words: str) -> Any:
    """Return a small value that is valid for `schema`; `words` is what free text in it says."""
    return _instance(schema, schema, words, 0)


def _instance(schema: Any, root: Mapping[str, Any], words: str, depth: int) -> Any:
    if not isinstance(schema, Mapping) or depth > DEEPEST:
        return words if schema is not False else None
    schema = resolved(schema, root)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for choice in ("anyOf", "oneOf"):
        options = schema.get(choice)
        if options:
            rest = {key: value for key, value in schema.items() if key != choice}
            return _instance(_joined(rest, _plainest(options, root, terse=depth >= TERSE_FROM)), root, words, depth + 1)
    match _type_of(schema):
        case "object":
            return _object(schema, root, words, depth)
        case "array":
            count = int(schema.get("minItems", 0))
            firsts = schema.get("prefixItems") or []
            items = [*firsts, *[schema.get("items", {})] * max(0, count - len(firsts))]
            return [_instance(item, root, words, depth + 1) for item in items]
        case "integer":
            return _number(schema, whole=True)
        case "number":
            return _number(schema, whole=False)
        case "boolean":
            return True
        case "null":
            return None
    return _text(schema, words)


def resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a schema with its local `$ref` followed and its `allOf` joined."""
    for _ in range(DEEPEST):
        reference = schema.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#"):
            break
        target: Any = root
        for step in reference.lstrip("#/").split("/") if reference != "#" else ():
            target = target.get(step, {}) if isinstance(target, Mapping) else {}
        schema = _joined({key: value for key, value in schema.items() if key != "$ref"}, target)
    for part in schema.get("allOf") or ():
        schema = _joined({key: value for key, value in schema.items() if key != "allOf"}, resolved(part, root))
    return schema


def _joined(one: Mapping[str, Any], other: Any) -> dict[str, Any]:
    if not isinstance(other, Mapping):
        return dict(one)
    joined = {**other, **one}
    for key in ("properties",):
        if key in one and key in other:
            joined[key] = {**other[key], **one[key]}
    if "required" in one and "required" in other:
        joined["required"] = list(dict.fromkeys([*other["required"], *one["required"]]))
    return joined


def _plainest(options: list[Any], root: Mapping[str, Any], *, terse: bool) -> Any:
    """Return the first option that is not null, an answer that says something; where `terse`, null before others."""
    for option in options:
        if isinstance(option, Mapping) and (resolved(option, root).get("type") == "null") == terse:
            return option
    return options[0]


def _type_of(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "null")
    if kind is None:
        if "properties" in schema or "required" in schema:
            return "object"
        if "items" in schema or "prefixItems" in schema:
            return "array"
    return str(kind or "string")


def _object(schema: Mapping[str, Any], root: Mapping[str, Any], words: str, depth: int) -> dict[str, Any]:
    properties = schema.get("properties") or {}
    names = schema.get("required") or (properties if depth < TERSE_FROM else ())
    made = {name: _instance(properties.get(name, {}), root, words, depth + 1) for name in names}
    return made or ({"answer": words} if not properties and schema.get("additionalProperties") is not False else {})


def _number(schema: Mapping[str, Any], *, whole: bool) -> float | int:
    least = float(schema.get("minimum", 0))
    most = float(schema.get("maximum", math.inf))
    step = float(schema.get("multipleOf", 1 if whole else 0)) or 0.0
    above = schema.get("exclusiveMinimum")
    below = schema.get("exclusiveMaximum")
    value = max(least, 0.0) if most >= 0 else most
    if isinstance(above, int | float) and not isinstance(above, bool) and value <= above:
        room = (float(below) - above) / 2 if isinstance(below, int | float) and below - above <= 1 else 1.0
        value = above + (step or room)
    if isinstance(below, int | float) and not isinstance(below, bool) and value >= below:
        value = below - (step or 1.0)
    if step:
        value = math.ceil(value / step) * step
    return int(value) if whole else value


def _text(schema: Mapping[str, Any], words: str) -> str:
    form = schema.get("format")
    text = _FORMATS.get(form, words) if isinstance(form, str) else words
    least, most = int(schema.get("minLength", 0)), schema.get("maxLength")
    if len(text) < least:
        text = (text or "x").ljust(least, ".")
    return text[: int(most)] if isinstance(most, int) else text


def fitted(value: Any, schema: Any, root: Mapping[str, Any], words: str) -> Any:
    """Return `value` without what the schema does not allow and with what it requires; values stay as they are."""
    if not isinstance(schema, Mapping):
        return value
    schema = resolved(schema, root)
    if isinstance(value, list):
        return [fitted(one, schema.get("items"), root, words) for one in value]
    if not isinstance(value, dict):
        return value
    properties = schema.get("properties") or {}
    closed = schema.get("additionalProperties") is False
    kept = {
        name: fitted(one, properties.get(name), root, words)
        for name, one in value.items()
        if name in properties or not closed
    }
    for name in schema.get("required") or ():
        if name not in kept:
            kept[name] = _instance(properties.get(name, {}), root, words, 0)
    return kept
