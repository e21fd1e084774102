"""How long a connection is waited for, and how many there may be: slow and silent clients cost nobody an answer.

The server's own timer (`timeout_keep_alive`) begins after a first answer; a client that connects and says nothing, or
sends its head a byte at a time, would be kept for ever. Bodies have a time of their own, see `bodies`.
"""

import asyncio
import json
import sys
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from shared.service import KEEP_ALIVE_S

HEAD_WITHIN_S: Final = 10.0
"""From a request's first byte until its head is whole."""
FIRST_WITHIN_S: Final = float(KEEP_ALIVE_S)
"""From connecting until the first byte: browsers and pools connect ahead."""
MOST_HEAD_BYTES: Final = 65_536
KEPT_FILES: Final = 200
"""Descriptors that are not for connections: the bus, the history, logs."""


class Patient(HttpToolsProtocol):
    """One connection."""

    most = 10_000
    """Connections of the process; at the bound an idle one makes room, else the new one is told so."""
    head_within_s = HEAD_WITHIN_S
    first_within_s = FIRST_WITHIN_S
    _late: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait."""
        super().connection_made(transport)
        if len(self.connections) > self.most and not self._made_room():
            self._turn_away(503, "as many connections are open as this gateway takes; come back in a moment")
            return
        self._wait(self.first_within_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._heard()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what comes; what is not the whole head of a request has to be that soon."""
        if not self.busy and self._head_bytes == 0:
            self._heard()
            self._wait(self.head_within_s)
        if self._late is not None:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._late is not None and self._head_bytes > MOST_HEAD_BYTES:
            self._heard()
            self._turn_away(431, f"the request's head is larger than {MOST_HEAD_BYTES:,} bytes")

    def on_headers_complete(self) -> None:
        """The head is whole: from here on the application waits."""
        self._heard()
        super().on_headers_complete()

    @property
    def busy(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def _made_room(self) -> bool:
        for other in self.connections:
            if other is not self and isinstance(other, Patient) and not other.busy:
                other.transport.close()
                self.connections.discard(other)
                return True
        return False

    def _wait(self, seconds: float) -> None:
        self._late = self.loop.call_later(seconds, self._too_late)

    def _heard(self) -> None:
        self._head_bytes = 0
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _too_late(self) -> None:
        self._late = None
        if self.busy:  # a second head on its way while the first request is answered
            self._wait(self.head_within_s)
        elif self._head_bytes:
            self._turn_away(408, f"the request's head did not come within {self.head_within_s:.0f} s")
        else:
            self.transport.close()

    def _turn_away(self, status: int, detail: str) -> None:
        words = {408: "Request Timeout", 431: "Request Header Fields Too Large", 503: "Service Unavailable"}
        body = json.dumps({"detail": detail}).encode()
        head = (
            f"HTTP/1.1 {status} {words[status]}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n" + ("retry-after: 1\r\n" if status == 503 else "")
        )
        self.transport.write(f"{head}\r\n".encode() + body)
        self.transport.close()


def patient(connections: int) -> type[Patient]:
    """Return the protocol for a gateway with so many connections at the most, or as many as the system lets it have."""
    return type("Patient", (Patient,), {"most": min(connections, _room(connections))})


def _room(wanted: int) -> int:
    """Return how many connections there is room for, after asking the system for as much as it gives."""
    if sys.platform == "win32":
        return wanted
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough: Any = wanted + KEPT_FILES
    if soft != resource.RLIM_INFINITY and soft < enough:
        soft = enough if hard == resource.RLIM_INFINITY else min(enough, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else max(1, soft - KEPT_FILES)
