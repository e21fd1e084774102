"""A receiver of callbacks: a real HTTP server that verifies what it gets as https://www.standardwebhooks.com says."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

SECRET = base64.b64encode(b"a secret of thirty-two bytes ...").decode()
OLDER = base64.b64encode(b"the one before, as long as that.").decode()
TOLERANCE_S = 300


def verified(headers: Mapping[str, str], body: bytes, secret: str) -> bool:
    """Whether a POST was signed with a secret, lately. Written from the specification, not from our own code."""
    name, timestamp = headers["webhook-id"], headers["webhook-timestamp"]
    if abs(time.time() - int(timestamp)) > TOLERANCE_S:
        return False
    signed = f"{name}.{timestamp}.".encode() + body
    expected = base64.b64encode(hmac.new(base64.b64decode(secret), signed, hashlib.sha256).digest()).decode()
    found = [one.partition(",") for one in headers["webhook-signature"].split(" ")]
    return any(version == "v1" and hmac.compare_digest(value, expected) for version, _, value in found)


@dataclass(frozen=True)
class Got:
    """One POST."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float

    @property
    def data(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)["data"]
        return found


Answers = Callable[[Got, int], web.Response]
"""Says what is answered to a POST, and to the how-manieth it is."""


def well(got: Got, number: int) -> web.Response:
    return web.Response(status=204)


@dataclass
class Receiver:
    """`async with receiving() as receiver: ... receiver.got`"""

    url: str = ""
    answers: Answers = well
    delay_s: float = 0.0
    opened: asyncio.Event | None = None
    """Until this is set, nothing is answered."""
    got: list[Got] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        got = Got(request.path, headers, await request.read(), time.monotonic())
        self.got.append(got)
        number = len(self.got)
        if self.opened is not None:
            await self.opened.wait()
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        return self.answers(got, number)


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """Serve a receiver on a free port of the loopback."""
    receiver = Receiver()
    app = web.Application(client_max_size=16 << 20)
    app.router.add_post("/{path:.*}", receiver.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]  # asyncio's own servers have them
    receiver.url = f"http://127.0.0.1:{port}"
    try:
        yield receiver
    finally:
        await runner.cleanup()
