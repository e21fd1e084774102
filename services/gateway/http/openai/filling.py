"""Which values a template's parameters get from an OpenAI request. Pure.

`metadata` has values by name; OpenAI's are texts, so one for a number, a list, … is read as JSON. What the user said
last is an object with more of them, or the value of the first required parameter that is not given yet.
"""

from collections.abc import Mapping

from pydantic import JsonValue
from pydantic_core import from_json


def given(
    parameters: Mapping[str, tuple[str, bool]], metadata: Mapping[str, JsonValue], said: str
) -> dict[str, JsonValue]:
    """Return the values. `parameters`: type and whether it is required, by name, in the template's order."""
    found = {name: _read(value, parameters[name][0]) for name, value in metadata.items() if name in parameters}
    spoken = _object(said)
    if spoken is not None and spoken.keys() & parameters.keys():
        return {**found, **spoken}
    missing = [name for name, (_, required) in parameters.items() if required and name not in found]
    if missing and said.strip():
        found[missing[0]] = _read(said, parameters[missing[0]][0])
    return found


def _read(value: JsonValue, kind: str) -> JsonValue:
    if not isinstance(value, str) or kind == "string":
        return value
    try:
        read: JsonValue = from_json(value)
    except ValueError:
        return value
    return read


def _object(text: str) -> dict[str, JsonValue] | None:
    if not text.lstrip().startswith("{"):
        return None
    found = _read(text, "object")
    return found if isinstance(found, dict) else None
