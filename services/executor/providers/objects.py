"""JSON objects in what providers send, read with doubt. Pure."""

from typing import Any

from pydantic_core import from_json

from services.executor.providers import Failed
from services.executor.providers.amounts import shown
from services.executor.taxonomy import MALFORMED


def object_in(data: bytes | str) -> dict[str, Any] | None:
    """Return the object that is there; None: there is none."""
    try:
        found = from_json(data)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def read_object(data: bytes, *, in_list: bool = False) -> dict[str, Any] | Failed:
    """Return the object that an answer is, or why it is none; `in_list`: also one alone in a list."""
    try:
        found = from_json(data)
    except ValueError as error:
        return Failed(MALFORMED, f"the answer is not JSON: {error}", 200, cost_usd=None)
    if in_list and isinstance(found, list) and len(found) == 1:
        found = found[0]
    if not isinstance(found, dict):
        return Failed(MALFORMED, f"the answer is JSON, but not an object: {shown(found)}", 200, cost_usd=None)
    return found
