"""`POST /ag-ui`: the same runs for clients that speak the AG-UI protocol."""

import asyncio
from collections.abc import Sequence
from typing import Any

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from services.gateway.births import Birth
from services.gateway.following import Following, following
from services.gateway.gateway import Gateway, gateway_of
from services.gateway.http.ag_ui_events import Event, Translation
from services.gateway.http.ag_ui_models import AgUiInput, asked_in, key_of_run, session_of_thread
from services.gateway.http.bodies import parsed
from services.gateway.http.chat import birth_of
from services.gateway.http.errors import said_of
from services.gateway.http.identity import identity_by
from services.gateway.http.models import ChatBody, Failure
from services.gateway.http.openapi import takes
from services.gateway.http.routing import routes
from services.gateway.http.streams import streaming
from services.gateway.http.wire import Wire, watching
from services.gateway.runs import KeyReused, NoEndInTime, Past, given_s
from services.gateway.tenure import CredentialOver
from services.gateway.texts import Said
from shared import subjects
from shared.bus.errors import BusError
from shared.contracts.events import RunEnded
from shared.contracts.message import Run, Unreadable
from shared.observe.logs import bound

router = routes("chat")
_SAID: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}},
    422: {"model": Failure},
    429: {"model": Failure},
    503: {"model": Failure},
}


@router.post("/ag-ui", summary="Answer by the AG-UI protocol", responses=_SAID, openapi_extra=takes(AgUiInput))
async def ag_ui(request: Request) -> Response:
    """Answer the last message of a thread with AG-UI's events: what is asked again under a `runId` is the same run."""
    gateway = gateway_of(request)
    asked = await parsed(request, AgUiInput)
    message, images = asked_in(asked)
    body = ChatBody(message=message, images=images, session_id=session_of_thread(asked.thread_id))
    identity = identity_by(request, key_of_run(asked))
    request.scope["state"]["run_id"] = identity.run_id
    return Answering(gateway, birth_of(identity, body, gateway), asked)


class Answering(Response):
    """The response. Nothing is sent before the run is queued: what is refused is refused with its status."""

    def __init__(self, gateway: Gateway, birth: Birth, asked: AgUiInput) -> None:
        super().__init__()
        self._gateway, self._birth = gateway, birth
        run_id = birth.run.run_id
        self._words = Translation(asked.thread_id, asked.run_id, asked.messages, run_id)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gateway, run, wire = self._gateway, self._birth.run, Wire(send)
        async with (
            streaming(gateway, scope, wire, lambda why: self._farewell(wire, why)),
            following(gateway.pages, run.tenant, run.run_id, tokens=True) as there,
        ):
            with bound(run_id=run.run_id):
                past = await gateway.runs.past(self._birth)
                if past == Past():
                    await gateway.runs.bear(self._birth)
                async with watching(receive, wire, there.ear):
                    await self._tell(wire, there, past)

    async def _farewell(self, wire: Wire, why: Exception) -> None:
        code = "credential_over" if isinstance(why, CredentialOver) else "stopping"
        await _write(wire, self._words.fail(said_of(why)[1], code))
        await wire.write(b"", more=False)

    async def _tell(self, wire: Wire, there: Following, past: Past) -> None:
        run = past.accepted.run if past.accepted is not None else self._birth.run
        await wire.begin(replayed=past.ended is not None)
        await _write(wire, self._words.begin())
        try:
            await self._follow(wire, there, run)
            await self._gateway.runs.certify(self._birth, past)
            ended = await self._gateway.bus.log.read(subjects.facts(run).ended, RunEnded)
            assert ended is not None, "it was followed to its end"
            await _write(wire, self._words.end(ended))
        except (BusError, Unreadable, NoEndInTime, KeyReused) as error:
            await _write(wire, self._words.fail(said_of(error)[1], type(error).__name__))
        await wire.write(b"", more=False)

    async def _follow(self, wire: Wire, there: Following, run: Run) -> None:
        until, loop = self._gateway.runs.patience_until(run), asyncio.get_running_loop()
        async for batch in there.batches():
            events = [event for one in batch for event in self._translated(one)]
            if events:
                await _write(wire, events)
            if not batch:
                await wire.still_there()
                if loop.time() > until:
                    raise NoEndInTime(run.run_id, given_s(run))

    def _translated(self, one: Any) -> Sequence[Event]:
        return self._words.said(one) if isinstance(one, Said) else self._words.fact(one)


async def _write(wire: Wire, events: Sequence[Event]) -> None:
    await wire.write(b"".join(b"data: %b\n\n" % to_json(event) for event in events))
