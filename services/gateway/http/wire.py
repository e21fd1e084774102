"""The caller's end of a stream: server-sent events as they are written, and whether anybody still reads them."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import to_json
from starlette.types import Receive, Send

from services.gateway.http.answering import REPLAYED
from services.gateway.http.errors import said_of
from shared.bus.hearing import Ear

HEARTBEAT_S = 10.0
STALLED_S = 30.0
"""A caller that reads nothing for this long is let go."""
HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
)


def event(name: str, data: bytes, seq: int | None = None) -> bytes:
    """Return one event on the wire. `data` is JSON on one line; `seq`: what a reader can go on behind."""
    mark = b"" if seq is None else b"id: %d\n" % seq
    return b"%bevent: %b\ndata: %b\n\n" % (mark, name.encode(), data)


class Gone(Exception):
    """The caller has closed the connection, or reads nothing any more. The run goes on."""


@dataclass(slots=True)
class Wire:
    """The caller's end of the stream."""

    send: Send
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    written_at: float = 0.0
    patience_s: float = STALLED_S
    """For how long the caller may take nothing."""
    begun: bool = False
    """The answer's head is out: nothing can be refused any more, only said."""

    async def begin(self, *, replayed: bool, more: Mapping[str, str] | None = None) -> None:
        said = {**(REPLAYED if replayed else {}), **(more or {})}
        headers = [*HEADERS, *((name.lower().encode(), value.encode()) for name, value in said.items())]
        self.begun = True
        await self.send({"type": "http.response.start", "status": 200, "headers": headers})

    async def write(self, data: bytes, *, more: bool = True) -> None:
        if self.gone.is_set():
            raise Gone
        try:
            async with asyncio.timeout(self.patience_s):
                await self.send({"type": "http.response.body", "body": data, "more_body": more})
        except (TimeoutError, OSError) as error:
            raise Gone from error
        self.written_at = asyncio.get_running_loop().time()

    async def tell(self, name: str, data: Any) -> None:
        await self.write(event(name, to_json(data)))

    async def fail(self, error: Exception, run_id: str) -> None:
        await self.tell("error", self.said(error, run_id))
        await self.end()

    @staticmethod
    def said(error: Exception, run_id: str) -> Mapping[str, Any]:
        """Return what an `error` says."""
        status, detail, _ = said_of(error)
        return {"status": status, "detail": detail, "run_id": run_id}

    async def end(self) -> None:
        await self.tell("done", {})
        await self.write(b"", more=False)

    async def still_there(self) -> None:
        """Say something if nothing was said for long. Raises `Gone`."""
        if self.gone.is_set():
            raise Gone
        if asyncio.get_running_loop().time() - self.written_at >= HEARTBEAT_S:
            await self.write(b": still there\n\n")


@asynccontextmanager
async def watching(receive: Receive, wire: Wire, ear: Ear) -> AsyncIterator[None]:
    """Notice meanwhile that the caller has gone."""
    watch = asyncio.create_task(_watch(receive, wire, ear))
    try:
        yield
    finally:
        watch.cancel()


async def _watch(receive: Receive, wire: Wire, ear: Ear) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    wire.gone.set()
    ear.rouse()
