"""What is wrong with the configuration, all of it at once, each problem with where, what and what instead."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import JsonValue

SHOWN_CHARS: Final = 80
_SECRET: Final = re.compile(r"api[_-]?key|secret|password", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    `path` is a JSON path from the file's root (`$.queuing.maxQueueDepth`), or an environment variable's name.
    `found` is the value as JSON, shortened; nothing of a key is ever shown.
    """

    path: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.path}: found {self.found}; expected {self.expected}"


class ConfigInvalid(ValueError):
    """The configuration file, or an environment variable, is not usable. `problems` has every reason."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        count = f"{len(self.problems)} problem{'s' if len(self.problems) != 1 else ''}"
        super().__init__("\n  ".join([f"{source}: {count}", *map(str, self.problems)]))


def json_path(location: Sequence[int | str]) -> str:
    """Return a location as a JSON path (RFC 9535); names that are no identifiers stand in brackets."""
    parts = []
    for part in location:
        if isinstance(part, int):
            parts.append(f"[{part}]")
        elif part.isidentifier():
            parts.append(f".{part}")
        else:
            parts.append(f"[{json.dumps(part)}]")
    return "$" + "".join(parts)


def shown(value: JsonValue, path: str) -> str:
    """Return a value as it may be shown: as JSON, at most 80 characters, never a secret, objects by their size."""
    if _SECRET.search(path) and value is not None:
        return "a value that is not shown"
    if isinstance(value, dict | list):
        kind = "an object" if isinstance(value, dict) else "a list"
        return f"{kind} of {len(value)}"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 1] + "…"
