"""One request and its response over ASGI: reading with a bound, writing, waiting while the client is still there."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Final

from simulator.transport import connection_of

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]

JSON: Final = (b"content-type", b"application/json")
LARGEST_BODY_BYTES: Final = 32 * 1024 * 1024


class TooLarge(Exception):
    """The body is over the limit."""


class Gone(Exception):
    """The client went before its request was complete."""


class Exchange:
    """What a protocol module gets to talk to a client with."""

    __slots__ = ("_receive", "_send", "connection", "scope")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope, self._receive, self._send = scope, receive, send
        self.connection = connection_of(scope)

    @property
    def method(self) -> str:
        return str(self.scope["method"])

    @property
    def query(self) -> bytes:
        return bytes(self.scope["query_string"])

    @property
    def raw_headers(self) -> Sequence[Header]:
        """Names in lower case."""
        headers: Sequence[Header] = self.scope["headers"]
        return headers

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode("latin-1"): value.decode("latin-1") for name, value in self.raw_headers}

    @property
    def closed(self) -> bool:
        """Whether the client is known to be gone."""
        return bool(self.connection.is_closing())

    async def body(self, limit: int = LARGEST_BODY_BYTES) -> bytes:
        """Return the whole body. Raises `TooLarge` as soon as that is known, and `Gone`."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise Gone
        if not message.get("more_body"):
            return bytes(message["body"])
        if any(name == b"content-length" and int(value) > limit for name, value in self.raw_headers):
            raise TooLarge
        parts = [message["body"]]
        size = len(parts[0])
        while message.get("more_body"):
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Gone
            parts.append(message["body"])
            size += len(parts[-1])
            if size > limit:
                raise TooLarge
        return b"".join(parts)

    async def respond(self, status: int, body: bytes, *headers: Header) -> None:
        """Send a whole response, in one piece."""
        if self.scope["method"] != "HEAD":  # no body follows then
            self.connection.hold()
        length = (b"content-length", b"%d" % len(body))
        await self._send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
        await self._send({"type": "http.response.body", "body": body})

    async def start(self, status: int, headers: Sequence[Header]) -> None:
        """Begin a response; its head goes out with the first `write`."""
        self.connection.hold()
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, body: bytes, *, last: bool = False) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": not last})

    async def wait(self, seconds: float | None) -> bool:
        """Wait; return at once with False when the client goes. None waits for that alone."""
        if seconds is not None and seconds <= 0:
            return True
        try:
            async with asyncio.timeout(seconds):
                while (await self._receive())["type"] != "http.disconnect":
                    pass
        except TimeoutError:
            return True
        return False

    async def cut(self) -> None:
        """Close the connection after what was written: the client sees its end where more was promised."""
        self.connection.close()
        await self.wait(None)

    async def reset(self) -> None:
        """Reset the connection."""
        self.connection.reset()
        await self.wait(None)
