"""`POST /chat`"""

from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response

from services.gateway import births
from services.gateway.births import Birth, Identity
from services.gateway.gateway import Gateway, gateway_of
from services.gateway.http.answering import begun, in_background_by, respond
from services.gateway.http.answers import to_chat
from services.gateway.http.bodies import parsed
from services.gateway.http.callbacks import callback_of
from services.gateway.http.errors import Refusal
from services.gateway.http.identity import identity_of
from services.gateway.http.models import BegunAnswer, ChatAnswer, ChatBody, Failure, RunFailure
from services.gateway.http.openapi import takes
from services.gateway.http.routing import routes
from services.gateway.http.sse import Events
from shared.contracts.commands import ChatRequest
from shared.contracts.door import AskChat
from shared.contracts.ids import new_session_id
from shared.workflows.validation import Problem

router = routes("chat")


@router.post(
    "/chat",
    summary="Answer a message",
    responses={
        202: {"model": BegunAnswer},
        200: {"model": ChatAnswer, "content": {"text/event-stream": {}}},
        409: {"model": RunFailure},
        413: {"model": RunFailure},
        422: {"model": Failure},
        429: {"model": Failure},
        502: {"model": RunFailure},
        503: {"model": Failure},
        504: {"model": RunFailure},
    },
    openapi_extra=takes(ChatBody),
)
async def chat(request: Request) -> Response:
    """Answer a message: directly, or by a workflow of several models where that helps.

    With `stream: true` the answer comes as server-sent events: `accepted`, `category`, `acknowledgement`, `token`
    (or `restart`, when an attempt begins anew), then `answer` or `error`, then `done`. An `Idempotency-Key` header
    makes a repeated request the same one: it gets the same answer and is not paid for again. With `async: true` it
    answers at once (202) and the run is looked at, or followed, under its id.
    """
    gateway = gateway_of(request)
    asked = await parsed(request, ChatBody)
    in_background = asked.in_background or in_background_by(request)
    if asked.stream and in_background:
        raise Refusal(422, (Problem("$.async", "one_of", "a stream is waited for: give stream or async"),))
    birth = birth_of(identity_of(request), asked, gateway)
    if in_background:
        return await begun(gateway, birth)
    if asked.stream:
        return Events(gateway, birth)
    del asked  # the message may be large, and this request may wait for long
    return respond(await gateway.answered(birth), to_chat)


def birth_of(identity: Identity, asked: ChatBody | AskChat, gateway: Gateway) -> Birth:
    """Return the birth of what somebody asks, over HTTP or over the bus."""
    session_id = asked.session_id
    if session_id is None:
        session_id = births.session_of(identity.run_id) if identity.keyed else new_session_id()
    return births.of_chat(
        identity,
        ChatRequest(
            message=asked.message,
            images=asked.images,
            context_tokens=asked.context_tokens or 0,
            new_session=asked.session_id is None,
        ),
        session_id=session_id,
        priority=asked.priority,
        now=datetime.now(UTC),
        timeout_s=asked.timeout_s or gateway.listings.timeout_s,
        callback=callback_of(gateway, identity.tenant, asked.callback_url),
    )
