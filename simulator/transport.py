"""The one thing that ASGI hides and a provider's failures need: the connection itself."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import MutableMapping
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

CONNECTION: Final = "simulator.connection"
"""The key of the scope under which the `Connection` is found."""


class Connection:
    """A transport that can hold a response's head back, to send it together with what follows.

    uvicorn writes head and body apart; on loopback the second packet and the second waking of the client cost as much
    as an answer does here.
    """

    __slots__ = ("_held", "_hold", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._hold = False
        self._held = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def hold(self) -> None:
        """Hold the next write back until the one after it, or until the end."""
        self._hold = True

    def write(self, data: bytes) -> None:
        if self._hold:
            self._hold, self._held = False, data
            return
        if self._held:
            data, self._held = self._held + data, b""
        self._transport.write(data)

    def close(self) -> None:
        if self._held:
            self.write(b"")
        self._transport.close()

    def reset(self) -> None:
        """Reset the connection at once: the client sees ECONNRESET, and may lose what was written before."""
        connection = self._transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()


class ReachableProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with the connection in the scope."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(cast(asyncio.Transport, Connection(transport)))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        cast(MutableMapping[str, Any], self.scope)[CONNECTION] = self.transport


def connection_of(scope: MutableMapping[str, Any]) -> Connection:
    """Return the connection of a request."""
    return cast(Connection, scope[CONNECTION])
