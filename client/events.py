"""Server-sent events, read from whatever pieces come. (https://html.spec.whatwg.org/multipage/server-sent-events.html)"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a stream."""

    name: str
    data: dict[str, Any]
    id: int | None = None
    """Where to go on behind; None: it cannot be asked for again (a piece of a text)."""


@dataclass(slots=True)
class EventReader:
    """Takes lines in, gives events out."""

    last_id: int | None = None
    """Of the latest event that had one."""
    _name: str = "message"
    _data: list[str] = field(default_factory=list)
    _id: int | None = None

    def take(self, line: str) -> Event | None:
        """Take one line in, without its end; returns the event that it completes."""
        if not line:
            return self._complete()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "event":
                self._name = value
            case "data":
                self._data.append(value)
            case "id" if value.isdigit():
                self._id = int(value)
        return None

    def _complete(self) -> Event | None:
        found = None
        if self._data:
            data = json.loads("\n".join(self._data))
            found = Event(self._name, data if isinstance(data, dict) else {"data": data}, self._id)
            if self._id is not None:
                self.last_id = self._id
        self._name, self._data, self._id = "message", [], None
        return found


def events(lines: Iterable[str]) -> Iterator[Event]:
    """Yield the events of lines."""
    reader = EventReader()
    for line in lines:
        if (event := reader.take(line)) is not None:
            yield event
