"""Server-sent events, as bytes come in: any chunking gives the same events. Pure.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

MAX_EVENT_BYTES = 4 * 1024 * 1024
MAX_EVENTS = 250_000
"""Of one stream: more than any answer has tokens. Reading nothing but empty events for ever costs too."""
_MARK = b"\xef\xbb\xbf"


class TooLong(Exception):
    """A line, the data of one event, or the whole stream is longer than any model's."""


class SseReader:
    """Feed it bytes; it returns the data of each event that is complete. Comments, names and ids are left out."""

    def __init__(self, *, limit: int = MAX_EVENT_BYTES) -> None:
        self._limit = limit
        self._line: list[bytes] = []
        self._line_bytes = 0
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._after_return = False
        self._first_line = True
        self._events = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the events that `chunk` completes, in order. Raises `TooLong`."""
        if self._after_return and chunk:
            self._after_return = False
            chunk = chunk.removeprefix(b"\n")
        if b"\r" in chunk:
            self._after_return = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *ended, rest = chunk.split(b"\n")
        events = []
        for piece in ended:
            line = b"".join((*self._line, piece)) if self._line else piece
            self._line, self._line_bytes = [], 0
            if (event := self._take(line)) is not None:
                events.append(event)
        self._events += len(events)
        if self._events > MAX_EVENTS:
            raise TooLong(f"more than {MAX_EVENTS} events")
        if rest:
            self._line.append(rest)
            self._line_bytes += len(rest)
            if self._line_bytes > self._limit:
                raise TooLong(f"a line of more than {self._limit} bytes")
        return events

    def _take(self, line: bytes) -> bytes | None:
        if self._first_line:
            self._first_line = False
            line = line.removeprefix(_MARK)
        if not line:
            if not self._data:
                return None
            event = b"\n".join(self._data)
            self._data, self._data_bytes = [], 0
            return event
        if line.startswith(b"data:"):
            value = line[6:] if line.startswith(b"data: ") else line[5:]
            self._data_bytes += len(value) + 1
            if self._data_bytes > self._limit:
                raise TooLong(f"an event of more than {self._limit} bytes")
            self._data.append(value)
        return None
