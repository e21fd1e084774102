"""What the generated API description needs to be told: bodies that we parse ourselves."""

from typing import Any

from pydantic import BaseModel


def takes(body: type[BaseModel]) -> dict[str, Any]:
    """Return the description of a route's body."""
    schema = body.model_json_schema()
    found = _inlined(schema, schema.pop("$defs", {}))
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": found}}}}


def _inlined(node: Any, definitions: dict[str, Any], within: tuple[str, ...] = ()) -> Any:
    """Return a schema without references; one that comes back to itself is only named there."""
    if isinstance(node, dict):
        name = str(node.get("$ref", "")).removeprefix("#/$defs/")
        if name in within:
            return {"type": "object", "title": name, "description": f"The same again: {name}."}
        if name in definitions:
            whole = {**definitions[name], **{k: v for k, v in node.items() if k != "$ref"}}
            return _inlined(whole, definitions, (*within, name))
        return {key: _inlined(value, definitions, within) for key, value in node.items()}
    if isinstance(node, list):
        return [_inlined(value, definitions, within) for value in node]
    return node
