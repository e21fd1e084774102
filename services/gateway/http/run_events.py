"""`GET /runs/{id}/events`: everything that happens to a run, as server-sent events that can be taken up again.

Facts are read from the log by their sequence, which is each event's `id`: a reader that was cut off says the last one
that it has (`Last-Event-ID`, as browsers do) and gets what follows, each once. What is heard live only says that there
is something to read, so a slow reader loses nothing, holds nothing back, and slows nobody.
"""

import asyncio
from typing import Any

from fastapi import APIRouter
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from services.gateway.following import following
from services.gateway.gateway import Gateway, gateway_of
from services.gateway.http.errors import Refusal
from services.gateway.http.identity import who
from services.gateway.http.models import Failure
from services.gateway.http.runs import missing
from services.gateway.http.streams import streaming
from services.gateway.http.wire import Wire, event, watching
from services.gateway.pages import Fact
from services.gateway.queued import Queued, whereabouts
from services.gateway.tenure import CredentialOver
from services.gateway.texts import Said, fields_of
from shared import subjects
from shared.bus.errors import BusError
from shared.contracts.message import Run
from shared.observe.logs import bound
from shared.topology import EVENTS

router = APIRouter(tags=["runs"])

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
            "description": "Whether pieces of answers come too, as they are written; they have no ids.",
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
    accepted = subjects.events(tenant, run_id).accepted
    found = await whereabouts(gateway.bus, tenant, run_id, lambda: gateway.bus.jetstream.last(EVENTS, accepted))
    if found is None:
        raise missing(run_id)
    queued = found.run if isinstance(found, Queued) else None
    return Followed(gateway, tenant, run_id, after=after, tokens=tokens, queued=queued)


def _after(request: Request) -> int:
    said = request.headers.get("last-event-id", "").strip() or request.query_params.get("after", "").strip() or "0"
    if not said.isascii() or not said.isdigit() or len(said) > 18:
        raise Refusal(422, f"{said[:40]!r} is no id of an event: it is a whole number")
    return int(said)


class Followed(Response):
    """The response: until the run's end, or until the reader goes."""

    def __init__(
        self, gateway: Gateway, tenant: str, run_id: str, *, after: int, tokens: bool, queued: Run | None = None
    ) -> None:
        super().__init__()
        self._gateway, self._tenant, self._run_id = gateway, tenant, run_id
        self._after, self._tokens, self._queued = after, tokens, queued

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gateway, wire, loop = self._gateway, Wire(send), asyncio.get_running_loop()
        try:
            async with (
                streaming(gateway, scope, wire, lambda why: self._farewell(wire, why)),
                following(gateway.pages, self._tenant, self._run_id, after=self._after, tokens=self._tokens) as there,
                watching(receive, wire, there.ear),
            ):
                with bound(run_id=self._run_id):
                    await wire.begin(replayed=False)
                    await wire.write(b"retry: 1000\n\n")
                    until = gateway.runs.patience_until(self._queued) if self._queued is not None else None
                    async for batch in there.batches():
                        if batch:
                            until = None
                            await wire.write(b"".join(_written(one) for one in batch))
                        elif until is not None and loop.time() > until:
                            await wire.write(b"", more=False)  # its request was refused: nothing will end
                            return
                        else:
                            await wire.still_there()
                    await wire.end()
        except BusError:
            if not wire.begun:
                raise
            # It comes back, here or at another gateway, with the last id that it has.

    async def _farewell(self, wire: Wire, why: Exception) -> None:
        """Of a gateway that stops nothing is said: the reader comes back, like after any cut."""
        if isinstance(why, CredentialOver):
            await wire.tell("error", wire.said(why, self._run_id))
            await wire.write(b"", more=False)


def _written(one: Fact | Said) -> bytes:
    if isinstance(one, Fact):
        return event(one.kind, one.json, one.seq)
    name, fields = fields_of(one)
    return event(name, to_json(fields))
