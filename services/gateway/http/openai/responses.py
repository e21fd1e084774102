"""`/v1/responses`: what a response is, is read from its run's log each time. Nothing is kept here."""

import asyncio
from typing import Final

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.births import Birth
from services.gateway.gateway import Gateway, gateway_of
from services.gateway.http.answering import REPLAYED
from services.gateway.http.bodies import parsed
from services.gateway.http.errors import JSON, Refusal
from services.gateway.http.openai import offer
from services.gateway.http.openai.asking import asked_of, birth_of, understood
from services.gateway.http.openai.bodies import ResponsesBody
from services.gateway.http.openai.chat import failing
from services.gateway.http.openai.described import ASKED, CALLED_BACK, ERRORS, EVENTS, at
from services.gateway.http.openai.failures import of_run
from services.gateway.http.openai.following import Following, Meet, Place, tell
from services.gateway.http.openai.messages import of_input
from services.gateway.http.openai.outcome import SIMULATED, Asked
from services.gateway.http.openai.response import Status, id_of, input_items, response
from services.gateway.http.openai.response_events import ResponseEvents
from services.gateway.http.openai.stored import before, find, with_items
from services.gateway.http.openapi import takes
from services.gateway.http.routing import routes
from services.gateway.queued import Queued
from shared import subjects
from shared.contracts.commands import ControlRun
from shared.contracts.conversation import Conversation
from shared.contracts.events import ResponseDeleted, RunAccepted, RunEnded
from shared.contracts.ids import Verb
from shared.contracts.message import ChatMessage, Run, Unreadable
from shared.workflows.validation import Problem

router = routes("openai")

CANCELLED_WITHIN_S: Final = 5.0
_LOOK_S: Final = 0.05
_ID: Final = ("response_id", "`resp_` and the id of its run.")


@router.post(
    "/v1/responses",
    summary="Answer, for OpenAI's clients (Responses)",
    responses={**ASKED, 200: EVENTS},
    openapi_extra={**takes(ResponsesBody), **CALLED_BACK},
)
async def create(request: Request) -> Response:
    """Answer as OpenAI's Responses API does.

    With `stream` as typed events; with `background` at once, to be read, followed or cancelled under its id. A
    `Segue-Callback-Url` has the answer POSTed there when it is ready.
    """
    gateway = gateway_of(request)
    body = await parsed(request, ResponsesBody)
    if problems := body.problems():
        raise Refusal(422, problems)
    turns: tuple[ChatMessage, ...] = ()
    if body.previous_response_id is not None:
        turns = await before(request, gateway, body.previous_response_id)
    given = await with_items(request, gateway, body.input)
    with understood():
        conversation = Conversation(
            api="responses",
            model=body.model,
            messages=(*turns, *of_input(given)),
            instructions=body.instructions,
            parameters=body.parameters(),
            store=body.store is not False,
            echo=body.echo() or None,
        )
    birth = await birth_of(request, gateway, body, conversation)
    if body.stream:
        return _streamed(gateway, birth)
    if body.background:
        return await _begun(gateway, birth)
    del body, conversation, given, turns
    heard = await gateway.answered(birth)
    if heard.ended.outcome != "completed":
        return failing(of_run(heard.ended))
    asked = asked_of(birth, heard.ended.run, gateway)
    headers = {SIMULATED: "true"} if heard.ended.spent.simulated else {}
    shown = response(asked, await _lines(gateway, asked), heard.ended)
    return Response(to_json(shown), 200, {**headers, **(REPLAYED if heard.replayed else {})}, JSON)


def _streamed(gateway: Gateway, birth: Birth) -> Response:
    asked = asked_of(birth, birth.run, gateway)
    simulated = offer.simulated(gateway.listings.models, asked.conversation.role)
    headers = {SIMULATED: "true"} if simulated else {}
    return Following(gateway, birth.run, ResponseEvents(asked), birth=birth, steps=asked.shows_steps, headers=headers)


async def _begun(gateway: Gateway, birth: Birth) -> Response:
    """Bear a run, or find it under its key, and answer with it as it is now."""
    past = await gateway.runs.past(birth)
    run = birth.run if past.accepted is None else past.accepted.run
    if past.accepted is None and past.ended is None:
        run = await gateway.runs.bear(birth)
    asked = asked_of(birth, run, gateway)
    lines = await _lines(gateway, asked) if past.ended is not None else []
    return _shown(asked, lines, past.ended, "queued")


@router.get(
    "/v1/responses/{response_id}",
    summary="Read a response",
    responses={**ERRORS, 400: ASKED[400], 200: EVENTS},
    openapi_extra=at(
        *_ID,
        ("stream", "boolean", "Follow it, as it was streamed when it was asked for."),
        ("starting_after", "integer", "Of a stream: go on behind this sequence number."),
    ),
)
async def read(request: Request) -> Response:
    """Return a response as it is now; with `?stream=true` its events, from the beginning or behind `starting_after`."""
    gateway = gateway_of(request)
    found = await find(request, gateway, request.path_params["response_id"])
    if isinstance(found, Queued):
        ended, found = found.ended, _unknown(gateway, found.run)
        if not _streams(request):
            return _shown(found, [], ended, "queued")
    if _streams(request):
        after = _after(request)
        meet = _meeting(gateway, after) if found.model == "" else None
        return Following(gateway, found.run, ResponseEvents(found, after), steps=found.shows_steps, meet=meet)
    lines, ended, begun = await _told(gateway, found)
    return _shown(found, lines, ended, "in_progress" if begun else "queued")


def _unknown(gateway: Gateway, run: Run) -> Asked:
    """Return a response of which nobody knows yet what was asked."""
    return Asked(run, "", Conversation(model=""), None, gateway.listings.version)


def _meeting(gateway: Gateway, after: int) -> Meet:
    """Return who tells a response that still waited when it was asked for."""

    def meet(accepted: RunAccepted) -> tuple[ResponseEvents, bool]:
        asked = Asked.of(accepted, gateway.listings.version)
        if asked is None or not asked.conversation.store:
            raise Unreadable("there is no such response: it was not stored, or is none of OpenAI's clients")
        return ResponseEvents(asked, after), asked.shows_steps

    return meet


@router.get(
    "/v1/responses/{response_id}/input_items",
    summary="Read what a response was asked",
    responses=ERRORS,
    openapi_extra=at(*_ID, ("order", "string", "`asc` or `desc`, which it is without.")),
)
async def asked_items(request: Request) -> Response:
    """List the input's items, those of the turns before included."""
    gateway = gateway_of(request)
    found = await find(request, gateway, request.path_params["response_id"])
    data = input_items(found) if isinstance(found, Asked) else []
    if request.query_params.get("order", "desc") != "asc":
        data.reverse()
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return Response(to_json({"object": "list", "data": data, **ends, "has_more": False}), 200, None, JSON)


@router.post(
    "/v1/responses/{response_id}/cancel",
    summary="Cancel a response",
    responses=ERRORS,
    openapi_extra=at(*_ID),
)
async def cancel(request: Request) -> Response:
    """End a response now, and return it; one that has ended stays as it is."""
    gateway = gateway_of(request)
    found = await find(request, gateway, request.path_params["response_id"])
    if isinstance(found, Queued):
        run, ended = found.run, found.ended
        if ended is None:
            await _cancel(gateway, run)
            ended = await _end_of(gateway, run)
        return _shown(_unknown(gateway, run), [], ended, "queued")
    _, ended, _ = await _told(gateway, found)
    if ended is None:
        await _cancel(gateway, found.run)
        ended = await _end_of(gateway, found.run)
    lines, _, _ = await _told(gateway, found)
    return _shown(found, lines, ended, "in_progress")


@router.delete("/v1/responses/{response_id}", summary="Delete a response", responses=ERRORS, openapi_extra=at(*_ID))
async def delete(request: Request) -> Response:
    """Show a response no more; one that goes on is cancelled. The run stays on the log, for those who run this."""
    gateway = gateway_of(request)
    found = await find(request, gateway, request.path_params["response_id"])
    run = found.run
    facts = subjects.facts(run)
    await gateway.bus.log.write(facts.deleted, ResponseDeleted(run=run))
    if not await gateway.bus.log.exists(facts.ended):
        await _cancel(gateway, run)
    return Response(to_json({"id": id_of(run.run_id), "object": "response", "deleted": True}), 200, None, JSON)


async def _told(gateway: Gateway, asked: Asked) -> tuple[list[str], RunEnded | None, bool]:
    """Return what was done, the end if there is one, and whether anything was done at all; from the log."""
    teller, place = ResponseEvents(asked), Place(asked.shows_steps)
    stored = await gateway.bus.log.facts(asked.run.tenant, asked.run.run_id)
    for one in stored:
        await tell(gateway.bus, teller, place, one)
    return teller.lines, place.ended, len(stored) > 1


async def _lines(gateway: Gateway, asked: Asked) -> list[str]:
    return (await _told(gateway, asked))[0] if asked.shows_steps else []


def _shown(asked: Asked, lines: list[str], ended: RunEnded | None, status: Status) -> Response:
    headers = {SIMULATED: "true"} if ended is not None and ended.spent.simulated else None
    return Response(to_json(response(asked, lines, ended, status)), 200, headers, JSON)


async def _cancel(gateway: Gateway, run: Run) -> None:
    command = ControlRun(run_id=run.run_id, tenant=run.tenant, verb=Verb.CANCEL, by="an API caller")
    await gateway.bus.log.send(subjects.control(run.tenant, run.run_id, Verb.CANCEL), command)


async def _end_of(gateway: Gateway, run: Run) -> RunEnded | None:
    """Return a run's end as soon as it is there; None when it is not soon."""
    loop = asyncio.get_running_loop()
    return await gateway.bus.live.expect(
        subjects.live(run.tenant, run.run_id).ended,
        subjects.facts(run).ended,
        RunEnded,
        ask=None,
        until=loop.time() + CANCELLED_WITHIN_S,
    )


def _streams(request: Request) -> bool:
    return request.query_params.get("stream", "").lower() in ("true", "1", "yes")


def _after(request: Request) -> int:
    said = request.query_params.get("starting_after", "-1").strip()
    if not said.removeprefix("-").isdigit() or not said.isascii() or len(said) > 18:
        raise Refusal(422, (Problem("$.starting_after", "invalid_value", f"{said[:40]!r} is no sequence number"),))
    return int(said)
