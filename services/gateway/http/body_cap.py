"""No body beyond the cap is ever read into memory, whatever its header says."""

import asyncio
import contextlib

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.gateway.http.errors import Refusal, failure

LINGER_S = 2.0
LINGER_BYTES = 64 * 1024 * 1024
"""What is thrown away of a refused body, so that a caller who is still sending gets to read the answer."""


class BodyCap:
    """ASGI middleware: 413 for a body of more than `most_bytes`, by its announced length or as it comes in."""

    def __init__(self, app: ASGIApp, most_bytes: int) -> None:
        self._app = app
        self._most = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in {"GET", "HEAD", "DELETE", "OPTIONS"}:
            await self._app(scope, receive, send)
            return
        announced, patient = _announced(scope)
        if announced is not None and announced > self._most:
            if not patient:
                await _throw_away(receive)
            refused = failure(413, self._detail(), headers={"Connection": "close"}, path=scope["path"])
            await refused(scope, receive, send)
            return
        got = 0

        async def counted() -> Message:
            nonlocal got
            message = await receive()
            got += len(message.get("body", b""))
            if got > self._most:
                await _throw_away(receive)
                raise Refusal(413, self._detail(), headers={"Connection": "close"})
            return message

        await self._app(scope, counted, send)

    def _detail(self) -> str:
        return f"the body is larger than {self._most:,} bytes, which is the most that is taken (SEGUE_MAX_BODY_BYTES)"


def _announced(scope: Scope) -> tuple[int | None, bool]:
    """Return the announced length, and whether the caller waits for a word before it sends."""
    length, patient = None, False
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            length = int(value)
        elif name == b"expect":
            patient = True
    return length, patient


async def _throw_away(receive: Receive) -> None:
    left = LINGER_BYTES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
