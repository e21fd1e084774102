"""Which lines of a child's log a person sees, and how. Time comes as an argument."""

import json
from typing import Final

_WORTH: Final = (b'"warning"', b'"error"', b'"critical"')
_LEVELS: Final = ("warning", "error", "critical")
_KNOWN: Final = ("time", "level", "service", "logger", "event", "exception", "color_message")

REPEATED_S: Final = 10.0


def worth_showing(line: bytes) -> bool:
    """Whether a line is a JSON log of a warning or worse."""
    if not any(level in line for level in _WORTH):
        return False
    return _parsed(line).get("level") in _LEVELS


def readable(line: bytes) -> str:
    """Return a log line as a person reads it: level, event, fields; what is no JSON log as it is."""
    fields = _parsed(line)
    if "event" not in fields:
        return line.decode(errors="replace").rstrip()
    parts = [str(fields.get("level", "")), str(fields["event"])]
    parts += [f"{name}={_short(value)}" for name, value in fields.items() if name not in _KNOWN]
    text = " ".join(part for part in parts if part)
    return f"{text}\n{fields['exception']}" if fields.get("exception") else text


def _parsed(line: bytes) -> dict[str, object]:
    if not line.startswith(b"{"):
        return {}
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if " " not in text else json.dumps(text, ensure_ascii=False)


class Repeats:
    """Knows what was said lately: a service that cannot reach the bus says so five times a second."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, str], float] = {}

    def known(self, name: str, line: str, now: float) -> bool:
        """Whether the same line of the same child was shown within `REPEATED_S`; if not, it is now."""
        for said in [said for said, at in self._said.items() if now - at >= REPEATED_S]:
            del self._said[said]
        if (name, line) in self._said:
            return True
        self._said[name, line] = now
        return False
