"""The one thing that ASGI hides and a provider's failures need: the connection itself."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import MutableMapping
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

CONNECTION: Final = "simulator.connection"
"""The key of the scope under which the connection's transport is found."""


class ReachableProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with the connection in the scope."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        cast(dict[str, Any], self.scope)[CONNECTION] = self.transport


def cut(scope: MutableMapping[str, Any]) -> None:
    """Close the connection after what was written: the client sees an end of file where more was promised."""
    _transport(scope).close()


def reset(scope: MutableMapping[str, Any]) -> None:
    """Reset the connection at once: the client sees ECONNRESET, and may lose what was written before."""
    transport = _transport(scope)
    connection = transport.get_extra_info("socket")
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _transport(scope: MutableMapping[str, Any]) -> asyncio.Transport:
    return cast(asyncio.Transport, scope[CONNECTION])


def closing(scope: MutableMapping[str, Any]) -> bool:
    return _transport(scope).is_closing()
