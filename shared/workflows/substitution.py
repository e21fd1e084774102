"""`{name}` in a prompt stands for a value. Each is put in once; what comes in is data and is never expanded again.

`{{` and `}}` stand for literal braces, and braces around anything that is not a plain name are left as they are,
so that JSON and code in a prompt survive.
"""

import json
import re
from collections.abc import Mapping
from typing import Final

from pydantic import JsonValue

NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REFERENCE: Final = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}")


def references(text: str) -> tuple[str, ...]:
    """Return the names that a text refers to, each once, in order."""
    found = (match.group(1) for match in _REFERENCE.finditer(text))
    return tuple(dict.fromkeys(name for name in found if name is not None))


def substitute(text: str, values: Mapping[str, JsonValue]) -> str:
    """Return the text with every reference replaced in one pass. A name without a value stays as it is written."""

    def put(match: re.Match[str]) -> str:
        name = match.group(1)
        if name is None:
            return match.group(0)[0]
        return as_text(values[name]) if name in values else match.group(0)

    return _REFERENCE.sub(put, text)


def as_text(value: JsonValue) -> str:
    """Return a value as it reads in a prompt: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
