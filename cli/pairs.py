"""How people write names with values on the command line: `NAME=VALUE`."""

import json
from typing import Any

import typer


def pairs(option: str, given: list[str]) -> list[tuple[str, str]]:
    """Return the names with what stands behind their equals signs."""
    found = []
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{one!r} is not NAME=VALUE", param_hint=option)
        found.append((name, value))
    return found


def value_of(given: str) -> Any:
    """Return JSON as what it says, and anything else as a text."""
    try:
        return json.loads(given)
    except ValueError:
        return given
