"""`GET /runs/{id}/events`: everything that happens to a run, as server-sent events that can be taken up again.

Facts are read from the log by their sequence, which is each event's `id`: a reader that was cut off says the last one
that it has (`Last-Event-ID`, as browsers do) and gets what follows, each once. What is heard live only says that there
is something to read, so a slow reader loses nothing, holds nothing back, and slows nobody.
"""

import asyncio
import contextlib
import json
import re
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter
from nats.aio.msg import Msg
from pydantic_core import from_json, to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from services.gateway.gateway import Gateway, gateway_of
from services.gateway.http.errors import Refusal
from services.gateway.http.identity import who
from services.gateway.http.models import Failure
from services.gateway.http.sse import Gone, Wire, event, watch_caller
from services.gateway.waiting import Stopping
from shared import subjects
from shared.bus.errors import BusError
from shared.bus.jetstream import Stored
from shared.contracts.ids import TOKEN_PATTERN
from shared.observe.logs import bound
from shared.topology import EVENTS

router = APIRouter(tags=["runs"])

PAGE: Final = 100
PAGE_BYTES: Final = 4 * 1024 * 1024
_TOKEN = re.compile(TOKEN_PATTERN.removesuffix("$"))
_DESCRIBED: dict[str, Any] = {
    "parameters": [
        {
            "name": "Last-Event-ID",
            "in": "header",
            "required": False,
            "schema": {"type": "integer"},
            "description": "Go on behind this event; browsers send it by themselves.",
        },
        {
            "name": "after",
            "in": "query",
            "required": False,
            "schema": {"type": "integer"},
            "description": "The same, for readers that cannot set headers.",
        },
        {
            "name": "tokens",
            "in": "query",
            "required": False,
            "schema": {"type": "boolean", "default": True},
            "description": "Whether pieces of answers come too, as they are written.",
        },
    ]
}


@router.get(
    "/runs/{run_id}/events",
    summary="Follow a run",
    responses={200: {"content": {"text/event-stream": {}}}, 404: {"model": Failure}, 422: {"model": Failure}},
    openapi_extra=_DESCRIBED,
)
async def events(request: Request, run_id: str) -> Response:
    """Follow a run from its beginning, or from where you were: facts with their ids, pieces of answers without."""
    gateway, tenant = gateway_of(request), who(request).tenant
    after = _after(request)
    tokens = request.query_params.get("tokens", "true").lower() not in ("false", "0", "no")
    facts = subjects.events(tenant, run_id) if _TOKEN.fullmatch(run_id) else None
    if facts is None or not await gateway.bus.log.exists(facts.accepted):
        raise Refusal(404, f"there is no run {run_id[:80]!r}: it never was, waits to be accepted, or has aged away")
    return Following(gateway, tenant, run_id, after=after, tokens=tokens)


def _after(request: Request) -> int:
    said = request.headers.get("last-event-id", "").strip() or request.query_params.get("after", "").strip() or "0"
    if not said.isascii() or not said.isdigit() or len(said) > 18:
        raise Refusal(422, f"{said[:40]!r} is no id of an event: it is a whole number")
    return int(said)


@dataclass(slots=True)
class _Place:
    """How far a reader is."""

    seq: int
    over: bool = False


class Following(Response):
    """The response: until the run's end, or until the reader goes."""

    def __init__(self, gateway: Gateway, tenant: str, run_id: str, *, after: int, tokens: bool) -> None:
        super().__init__()
        self._gateway, self._tenant, self._run_id = gateway, tenant, run_id
        self._after, self._tokens = after, tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gateway, wire = self._gateway, Wire(send)
        heard_on = [subjects.live(self._tenant, self._run_id).all]
        if self._tokens:
            heard_on.append(subjects.token(self._tenant, self._run_id, "*"))
        try:
            async with gateway.waiting.place(), gateway.bus.live.listen(*heard_on) as queue:
                watching = asyncio.create_task(watch_caller(receive, wire, queue))
                try:
                    with bound(run_id=self._run_id):
                        await wire.begin(replayed=False)
                        await self._follow(wire, queue)
                        await wire.end()
                finally:
                    watching.cancel()
        except (Stopping, BusError):
            if not wire.begun:
                raise
            # It comes back, here or at another gateway, with the last id that it has.
        except Gone:
            pass

    async def _follow(self, wire: Wire, queue: "asyncio.Queue[Msg | None]") -> None:
        place = _Place(self._after)
        await wire.write(b"retry: 1000\n\n")
        await self._tell(wire, place)
        place.over = place.over or await self._ended_before(place.seq)
        while not place.over:
            heard = [await queue.get()]
            while not queue.empty():
                heard.append(queue.get_nowait())
            news = False
            for msg in heard:
                if msg is not None and self._is_token(msg):
                    await self._token(wire, msg)
                else:
                    news = True
            if news:
                await self._tell(wire, place)
            await wire.still_there()

    async def _tell(self, wire: Wire, place: _Place) -> None:
        """Tell every fact behind the reader's place."""
        subject = subjects.events(self._tenant, self._run_id).all
        while True:
            page = await self._gateway.bus.jetstream.direct_page(
                EVENTS, subject, after=place.seq, limit=PAGE, max_bytes=PAGE_BYTES
            )
            for stored in page:
                name = subjects.fact_of(stored.subject)
                await wire.write(event(_kind(name), _told(stored, name), stored.seq))
                place.seq = stored.seq
                place.over = place.over or name == "ended"
            if not page:
                break

    async def _ended_before(self, seq: int) -> bool:
        """Whether the reader has had the end already."""
        last = await self._gateway.bus.jetstream.last(EVENTS, subjects.events(self._tenant, self._run_id).ended)
        return last is not None and last.seq <= seq

    def _is_token(self, msg: Msg) -> bool:
        return msg.subject.startswith(subjects.token(self._tenant, self._run_id, ""))

    async def _token(self, wire: Wire, msg: Msg) -> None:
        with contextlib.suppress(ValueError):  # a hint that cannot be read is one that was lost
            delta = json.loads(msg.data)
            call = msg.subject.rpartition(".")[2]
            await wire.tell("restart" if delta.get("restart") else "token", {"call": call, **delta})


def _kind(name: str) -> str:
    """Return what an event is called: its fact, without the names in it."""
    parts = name.split(".")
    if parts[0] == "call":
        if parts[-1] == "job":
            return "job"
        return "attempt" if "attempt" in parts[3:4] else parts[3]
    return parts[0]


def _told(stored: Stored, name: str) -> bytes:
    """Return an event's data. Of what is too large for the bus it is the outline; null where there is none."""
    body: Any = None
    if stored.data:
        with contextlib.suppress(ValueError):
            body = from_json(stored.data)
    return to_json({"seq": stored.seq, "fact": name, "at": stored.time, "data": body})
