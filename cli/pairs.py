"""How people write names with values on the command line: `NAME=VALUE`."""

import json
from typing import Any

import typer

UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


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


def seconds_of(option: str, text: str) -> int:
    """Return how long `90d`, `12h`, `30m` or `0s` is, in seconds."""
    number, unit = text[:-1].strip(), text[-1:]
    if not number.isascii() or not number.isdigit() or unit not in UNITS or len(number) > 6:
        raise typer.BadParameter(f"{text!r} is no time: 90d, 12h, 30m, 0s", param_hint=option)
    return int(number) * UNITS[unit]
