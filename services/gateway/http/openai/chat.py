"""`POST /v1/chat/completions`, `GET /v1/models`"""

from typing import Any

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.births import Birth
from services.gateway.gateway import Gateway, gateway_of
from services.gateway.http.answering import REPLAYED
from services.gateway.http.bodies import parsed
from services.gateway.http.errors import JSON, Refusal
from services.gateway.http.identity import who
from services.gateway.http.openai import offer
from services.gateway.http.openai.asking import asked_of, birth_of, understood, unknown
from services.gateway.http.openai.bodies import ChatCompletionBody
from services.gateway.http.openai.completion import Chunks, completion
from services.gateway.http.openai.described import ASKED, CALLED_BACK, ERRORS, EVENTS, at
from services.gateway.http.openai.failures import Failing, of_run
from services.gateway.http.openai.following import Following
from services.gateway.http.openai.messages import of_chat
from services.gateway.http.openai.outcome import SIMULATED
from services.gateway.http.openapi import takes
from services.gateway.http.routing import routes
from services.gateway.runs import Heard
from shared.contracts.conversation import Conversation

router = routes("openai")


@router.get("/v1/models", summary="Models, for OpenAI's clients", responses=ERRORS)
async def models(request: Request) -> Response:
    """List what `model` can be for this caller: `segue-auto`, roles, templates as `template/<name>`."""
    data = await _listed(request)
    return Response(to_json({"object": "list", "data": data}), 200, None, JSON)


@router.get(
    "/v1/models/{model:path}",
    summary="A model, for OpenAI's clients",
    responses=ERRORS,
    openapi_extra=at("model", "Its id, such as segue-auto or template/research_report."),
)
async def model(request: Request) -> Response:
    """Return one model of those that are listed."""
    name = request.path_params["model"]
    found = next((one for one in await _listed(request) if one["id"] == name), None)
    if found is None:
        raise unknown(name, request)
    return Response(to_json(found), 200, None, JSON)


async def _listed(request: Request) -> list[dict[str, Any]]:
    gateway, asks = gateway_of(request), who(request)
    there = await gateway.book.all(asks.tenant)
    return offer.listed(gateway.listings, {name: one.template for name, one in there.items()}, asks)


@router.post(
    "/v1/chat/completions",
    summary="Answer a conversation, for OpenAI's clients",
    responses={**ASKED, 200: EVENTS},
    openapi_extra={**takes(ChatCompletionBody), **CALLED_BACK},
)
async def chat(request: Request) -> Response:
    """Answer a conversation as OpenAI's API does: `segue-auto` by the whole system, a role by its model, a template.

    With `stream` the answer comes in chunks; an `Idempotency-Key` makes a repeated request the same one. A
    `Segue-Callback-Url` has the answer POSTed there, too.
    """
    gateway = gateway_of(request)
    body = await parsed(request, ChatCompletionBody)
    if problems := body.problems():
        raise Refusal(422, problems)
    with understood():
        conversation = Conversation(
            model=body.model,
            messages=of_chat(body.messages),
            parameters=body.parameters(),
            store=body.store is not False,
        )
    birth = await birth_of(request, gateway, body, conversation)
    streams = bool(body.stream)
    include_usage = body.stream_options is not None and body.stream_options.include_usage
    if streams:
        return chunked(gateway, birth, include_usage=include_usage)
    del body, conversation  # they may be large, and this request may wait for long
    return whole(birth, await gateway.answered(birth), gateway)


def chunked(gateway: Gateway, birth: Birth, *, include_usage: bool) -> Response:
    """Return the stream of a run's answer."""
    asked = asked_of(birth, birth.run, gateway)
    simulated = offer.simulated(gateway.listings.models, asked.conversation.role)
    teller = Chunks(asked, simulated, include_usage)
    headers = {SIMULATED: "true"} if simulated else {}
    return Following(gateway, birth.run, teller, birth=birth, steps=asked.shows_steps, headers=headers)


def whole(birth: Birth, heard: Heard, gateway: Gateway) -> Response:
    """Return the whole answer of a run that has ended."""
    if heard.ended.outcome != "completed":
        return failing(of_run(heard.ended))
    headers = {SIMULATED: "true"} if heard.ended.spent.simulated else {}
    body = completion(asked_of(birth, heard.ended.run, gateway), heard.ended)
    return Response(to_json(body), 200, {**headers, **(REPLAYED if heard.replayed else {})}, JSON)


def failing(error: Failing) -> Response:
    """Return the answer of an error."""
    return Response(error.body(), error.status, dict(error.headers()), JSON)
