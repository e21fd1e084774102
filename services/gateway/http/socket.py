"""`/ws`: ask, follow and steer over one WebSocket, several requests at a time.

A request's last message is `answer`, `run`, `pong` or `error`; what comes before it carries the same `id`.
"""

import asyncio
import json
import logging
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, assert_never

from fastapi import APIRouter
from pydantic_core import from_json, to_json
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from services.gateway.admission import OverLimit
from services.gateway.bearers import NoKeys
from services.gateway.following import Following, following
from services.gateway.gateway import Gateway, gateway_of
from services.gateway.guard import NotKnown, TooManyTries
from services.gateway.http.answers import to_chat, to_workflow
from services.gateway.http.chat import birth_of
from services.gateway.http.errors import Refusal, failure, said_of
from services.gateway.http.identity import identity_by, who, who_now
from services.gateway.http.run_models import Wanted
from services.gateway.http.runs import missing, steered
from services.gateway.http.socket_models import Cancel, Chat, Decide, Ping, Subscribe, asked_of, mark_of
from services.gateway.http.streams import FAREWELL_S, held
from services.gateway.pages import Fact
from services.gateway.principal import Principal
from services.gateway.queued import whereabouts
from services.gateway.runs import KeyReused, NoEndInTime, Past, given_s
from services.gateway.tenure import CredentialOver
from services.gateway.texts import Said, fields_of
from services.gateway.waiting import Stopping, TooManyWaiting
from shared import subjects
from shared.bus.errors import BusError
from shared.bus.payloads import PayloadMissing
from shared.contracts.access import Scope
from shared.contracts.commands import ChatRequest
from shared.contracts.events import RunAccepted, RunEnded
from shared.contracts.ids import Verb
from shared.contracts.message import Run, Unreadable
from shared.observe.logs import bound

log = logging.getLogger("segue.gateway")
router = APIRouter(tags=["chat"])

PROTOCOL: Final = "segue"
MOST_BYTES: Final = 1024 * 1024
"""Of one message; what is larger is for `POST /chat`."""
MOST_AT_ONCE: Final = 32
"""Requests that go on at the same time on one socket."""
IDLE_S: Final = 300.0
"""A socket on which nothing goes on and nothing is said for this long is closed."""
STALLED_S: Final = 30.0
NEEDS: Final[Mapping[type, Scope]] = {Subscribe: Scope.READ, Cancel: Scope.WORKFLOWS, Decide: Scope.WORKFLOWS}
"""What a credential has to allow for what is not asking, as over HTTP."""
_GOING_AWAY: Final = 1001
_RESTARTS: Final = 1012
_NOT_ALLOWED: Final = 1008
OVER: Final = "the credential does not count any more"

Fields = dict[str, Any]


class Gone(Exception):
    """The client is gone, or reads nothing any more. Its runs go on."""


@dataclass(slots=True, eq=False)
class Line:
    """One client's socket. Whoever has something to say waits until the client has taken what was said before."""

    socket: WebSocket
    patience_s: float = STALLED_S
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def tell(self, kind: str, mark: str | int | None, **fields: Any) -> None:
        """Send one message. Raises `Gone`."""
        said = {"type": kind, **({} if mark is None else {"id": mark}), **fields}
        try:
            async with self._turn, asyncio.timeout(self.patience_s):
                await self.socket.send_text(to_json(said).decode())
        except (TimeoutError, RuntimeError, WebSocketDisconnect, OSError) as error:
            raise Gone from error

    async def fail(self, mark: str | int | None, status: int, detail: Any, run_id: str | None = None) -> None:
        await self.tell("error", mark, status=status, detail=detail, **({} if run_id is None else {"run_id": run_id}))


@router.websocket("/ws")
async def ws(socket: WebSocket) -> None:
    """Take a client on, or refuse it with a status before the connection is one."""
    gateway = gateway_of(socket)
    origin = socket.headers.get("origin")
    if not gateway.origins.allow(origin, socket.headers.get("host")):
        told = (
            f"pages of {str(origin)[:200]!r} may not connect; the operator lists those that may in SEGUE_CORS_ORIGINS"
        )
        await _refuse(socket, failure(403, told))
        return
    try:
        async with held(gateway, socket):
            offered = socket.scope.get("subprotocols", [])
            await socket.accept(subprotocol=PROTOCOL if PROTOCOL in offered else None)
            await Conversation(gateway, socket).hold()
    except TooManyWaiting as error:
        status, detail, headers = said_of(error)
        await _refuse(socket, failure(status, detail, headers=headers))
    except Stopping as error:
        with suppress(Gone, RuntimeError):
            await Line(socket).fail(None, 503, said_of(error)[1])
            await socket.close(_RESTARTS, "this gateway stops; connect again")
    except CredentialOver as error:
        line = Line(socket, FAREWELL_S)
        with suppress(Gone, RuntimeError):
            await line.fail(None, 401, str(error))
            await socket.close(_NOT_ALLOWED, OVER)


async def _refuse(socket: WebSocket, answer: Response) -> None:
    if "websocket.http.response" in socket.scope.get("extensions", {}):
        await socket.send_denial_response(answer)
    else:
        await socket.close(1008)


class Conversation:
    """What goes on on one socket."""

    def __init__(self, gateway: Gateway, socket: WebSocket) -> None:
        self._gateway, self._socket, self._line = gateway, socket, Line(socket)
        self._tenant = who(socket).tenant
        self._going: dict[asyncio.Task[None], str | int | None] = {}

    async def hold(self) -> None:
        """Serve the client until it goes, or has nothing more to say."""
        try:
            while True:
                document = await self._next()
                if document is not None:
                    await self._take(document)
        except (Gone, WebSocketDisconnect):
            pass
        except TimeoutError:
            with suppress(RuntimeError):
                await self._socket.close(_GOING_AWAY, f"nothing was said for {IDLE_S:.0f} s")
        finally:
            going = list(self._going)
            for task in going:
                task.cancel()
            await asyncio.gather(*going, return_exceptions=True)

    async def _next(self) -> Any:
        """Return what the client says next, read; None when it could not be. Raises `TimeoutError` when idle."""
        while True:
            try:
                async with asyncio.timeout(IDLE_S):
                    message = await self._socket.receive()
                break
            except TimeoutError:
                if not self._going:
                    raise
        if message["type"] == "websocket.disconnect":
            raise Gone
        text = message.get("text")
        if text is None:
            await self._line.fail(None, 415, "a message is JSON in a text frame, not a binary one")
        elif len(text) > MOST_BYTES:
            told = f"a message has at most {MOST_BYTES:,} characters; send a larger one with POST /chat"
            await self._line.fail(None, 413, told)
        else:
            try:
                return from_json(text, allow_inf_nan=False)
            except ValueError as error:
                await self._line.fail(None, 422, [{"path": "$", "code": "json_invalid", "message": str(error)}])
        return None

    async def _take(self, document: Any) -> None:
        mark = mark_of(document)
        try:
            asked = asked_of(document)
            if isinstance(asked, Ping):
                await self._line.tell("pong", mark)
                return
            scopes = (await self._known()).scopes
            if (wanted := NEEDS.get(type(asked), Scope.CHAT)) not in scopes:
                has = ", ".join(sorted(scopes)) or "none"
                raise Refusal(403, f"this needs the scope {wanted.value!r}; the credential has: {has}")
            if len(self._going) >= MOST_AT_ONCE:
                told = f"{MOST_AT_ONCE} requests go on on this connection, which is all that it takes; wait for one"
                raise Refusal(429, told)
            if mark is not None and mark in self._going.values():
                raise Refusal(409, f"the id {mark!r} is that of a request that goes on; give each its own")
        except Refusal as refusal:
            await self._line.fail(mark, refusal.status_code, refusal.said)
            return
        except NotKnown as error:
            await self._line.fail(mark, 401, str(error))
            await self._quietly(self._socket.close(_NOT_ALLOWED, OVER))
            raise Gone from error
        task = asyncio.create_task(self._serve(asked, mark))
        self._going[task] = mark
        task.add_done_callback(self._over)

    async def _known(self) -> Principal:
        """Return whom the socket is from at this moment: a key that is revoked asks nothing more, new limits count."""
        try:
            principal = await who_now(self._socket)
        except (TooManyTries, NoKeys, BusError) as error:
            raise Refusal(503, "who this is from cannot be looked up now; say it again: nothing was kept") from error
        if principal.tenant != self._tenant:
            raise NotKnown("this credential is another tenant's now: connect again")
        return principal

    def _over(self, task: "asyncio.Task[None]") -> None:
        self._going.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("socket.bug", exc_info=error)

    async def _serve(self, asked: Chat | Subscribe | Cancel | Decide, mark: str | int | None) -> None:
        run_id = None if isinstance(asked, Chat) else asked.run_id
        try:
            await self._doing(asked, mark)
        except Refusal as refusal:
            await self._quietly(self._line.fail(mark, refusal.status_code, refusal.said, run_id))
        except (BusError, Unreadable, PayloadMissing, KeyReused, NoEndInTime, OverLimit) as error:
            status, detail, _ = said_of(error)
            await self._quietly(self._line.fail(mark, status, detail, run_id or getattr(error, "run_id", None)))
        except Gone:
            await self._quietly(self._socket.close(_GOING_AWAY))

    @staticmethod
    async def _quietly(telling: Coroutine[Any, Any, None]) -> None:
        with suppress(Gone, RuntimeError):
            await telling

    async def _doing(self, asked: Chat | Subscribe | Cancel | Decide, mark: str | int | None) -> None:
        match asked:
            case Chat():
                await self._chat(asked, mark)
            case Subscribe():
                await self._subscribe(asked, mark)
            case Cancel():
                await self._steer(Verb.CANCEL, asked.run_id, Wanted(reason=asked.reason), mark)
            case Decide():
                wanted = Wanted(reason=asked.comment, task=asked.task)
                await self._steer(Verb(asked.type), asked.run_id, wanted, mark)
            case _:
                assert_never(asked)

    async def _steer(self, verb: Verb, run_id: str, wanted: Wanted, mark: str | int | None) -> None:
        answer = await steered(self._gateway, self._tenant, run_id, verb, wanted)
        await self._line.tell("run", mark, run_id=run_id, data=json.loads(bytes(answer.body)))

    async def _chat(self, asked: Chat, mark: str | int | None) -> None:
        gateway = self._gateway
        birth = birth_of(identity_by(self._socket, asked.idempotency_key), asked, gateway)
        run = birth.run
        with bound(run_id=run.run_id):
            async with following(gateway.pages, run.tenant, run.run_id, tokens=asked.tokens) as there:
                past = await gateway.runs.past(birth)
                if past == Past():
                    await gateway.runs.bear(birth)
                run = past.accepted.run if past.accepted is not None else run
                await self._line.tell("accepted", mark, run_id=run.run_id, session_id=run.session_id)
                await self._follow(there, run, asked, mark)
            await gateway.runs.certify(birth, past)
            await self._end(run, mark, chat=True)

    async def _subscribe(self, asked: Subscribe, mark: str | int | None) -> None:
        gateway, facts = self._gateway, subjects.events(self._tenant, asked.run_id)
        log = gateway.bus.log
        there = await whereabouts(
            gateway.bus, self._tenant, asked.run_id, lambda: log.read(facts.accepted, RunAccepted)
        )
        if there is None:
            raise missing(asked.run_id)
        run = there.run
        await self._line.tell("accepted", mark, run_id=run.run_id, session_id=run.session_id)
        with bound(run_id=run.run_id):
            async with following(gateway.pages, run.tenant, run.run_id, after=asked.after, tokens=asked.tokens) as way:
                await self._follow(way, run, asked, mark)
            accepted = there if isinstance(there, RunAccepted) else await log.read(facts.accepted, RunAccepted)
            await self._end(run, mark, chat=accepted is None or isinstance(accepted.request, ChatRequest))

    async def _follow(self, there: Following, run: Run, asked: Chat | Subscribe, mark: str | int | None) -> None:
        """Tell what happens until the run has ended. Raises `NoEndInTime`."""
        until = self._gateway.runs.patience_until(run)
        loop = asyncio.get_running_loop()
        async for batch in there.batches():
            for one in batch:
                if isinstance(one, Said):
                    kind, fields = fields_of(one)
                    await self._line.tell(kind, mark, run_id=run.run_id, **fields)
                elif asked.events:
                    await self._fact(one, run, mark)
            if not batch and loop.time() > until:
                raise NoEndInTime(run.run_id, given_s(run))

    async def _fact(self, fact: Fact, run: Run, mark: str | int | None) -> None:
        await self._line.tell("event", mark, run_id=run.run_id, event=fact.kind, **fact.fields())

    async def _end(self, run: Run, mark: str | int | None, *, chat: bool) -> None:
        ended = await self._gateway.bus.log.read(subjects.facts(run).ended, RunEnded)
        assert ended is not None, "it was followed to its end"
        answer = to_chat(ended) if chat else to_workflow(ended)
        body = json.loads(answer.body.to_json())
        if answer.status == 200:
            await self._line.tell("answer", mark, run_id=run.run_id, data=body)
        else:
            await self._line.tell("error", mark, status=answer.status, **body)
