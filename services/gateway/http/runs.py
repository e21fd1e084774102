"""`/runs/{id}`: look at a run, steer it."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter
from pydantic import JsonValue
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.chronicle import Chronicle, read_chronicle
from services.gateway.gateway import Gateway, gateway_of
from services.gateway.http.answering import show
from services.gateway.http.bodies import has_none, parsed
from services.gateway.http.errors import JSON, Refusal
from services.gateway.http.identity import who
from services.gateway.http.models import Failure
from services.gateway.http.openapi import takes
from services.gateway.http.queued_view import timeline_of, view_of
from services.gateway.http.run_models import RunView, TimelineView, Wanted
from services.gateway.http.run_view import graph_of, state_of, states_of, timeline, view
from services.gateway.queued import Queued, whereabouts
from shared import subjects
from shared.contracts.commands import ControlRun
from shared.contracts.events import CallSettled, RunEnded
from shared.contracts.ids import Purpose, Verb
from shared.workflows.graph import located
from shared.workflows.mermaid import flowchart
from shared.workflows.outputs import output, sources

router = APIRouter(tags=["runs"])

EFFECT_WITHIN_S = 5.0
_LOOK_S = 0.05
_MISSING: dict[int | str, dict[str, Any]] = {404: {"model": Failure}}
_QUEUED: dict[int | str, dict[str, Any]] = {409: {"model": Failure, "description": "Nobody has taken it up"}}
_STEERED: dict[int | str, dict[str, Any]] = {
    **_MISSING,
    202: {"model": RunView},
    409: {"model": Failure},
    422: {"model": Failure},
}


async def chronicle_of(request: Request, run_id: str) -> Chronicle:
    """Return what the log has of a run. Raises `Refusal`: of one that is queued it has nothing."""
    return taken_up(await run_of(request, run_id))


async def run_of(request: Request, run_id: str) -> Chronicle | Queued:
    """Return what there is of a run. Raises `Refusal`."""
    return await read_run(gateway_of(request), who(request).tenant, run_id)


async def read_run(gateway: Gateway, tenant: str, run_id: str) -> Chronicle | Queued:
    """Return what there is of a run, or refuse with 404."""
    found = await whereabouts(gateway.bus, tenant, run_id, lambda: read_chronicle(gateway.bus, tenant, run_id))
    if found is None:
        raise missing(run_id)
    return found


def missing(run_id: str) -> Refusal:
    return Refusal(404, f"there is no run {run_id[:80]!r}: it never was, or has aged away")


def taken_up(run: Chronicle | Queued) -> Chronicle:
    """Refuse what only a run can be asked that somebody has taken up. Raises `Refusal`."""
    if isinstance(run, Queued):
        raise Refusal(409, run.why_not, headers={"Retry-After": "1"} if run.ended is None else None)
    return run


def seen(run: Chronicle | Queued) -> RunView:
    """Return a run as it is shown."""
    return view_of(run) if isinstance(run, Queued) else view(run)


@router.get("/runs/{run_id}", summary="Look at a run", response_model=RunView, responses=_MISSING)
async def one(request: Request, run_id: str) -> Response:
    """Return where a run is, what it waits for and until when, its tasks with attempts, times, costs and outputs."""
    return show(seen(await run_of(request, run_id)))


@router.get(
    "/runs/{run_id}/timeline", summary="See what took how long", response_model=TimelineView, responses=_MISSING
)
async def times(request: Request, run_id: str) -> Response:
    """Return every attempt with when it began and ended, in seconds from the run's birth."""
    run, now = await run_of(request, run_id), datetime.now(UTC)
    return show(timeline_of(run, now) if isinstance(run, Queued) else timeline(run, now))


@router.get(
    "/runs/{run_id}/graph",
    summary="Draw a run's workflow",
    responses={**_MISSING, **_QUEUED, 200: {"content": {"text/plain": {}}}},
)
async def graph(request: Request, run_id: str) -> Response:
    """Return the workflow as a Mermaid flowchart, coloured by its tasks' states while it runs."""
    run = await chronicle_of(request, run_id)
    found = graph_of(run)
    if found is None:
        raise Refusal(404, f"run {run_id!r} has no workflow")
    drawn = flowchart(found, run.progress.states if run.progress is not None else None)
    return Response(drawn, 200, None, "text/plain; charset=utf-8")


@router.get("/runs/{run_id}/outputs/{name}", summary="Read a task's output", responses={**_MISSING, **_QUEUED})
async def read_output(request: Request, run_id: str, name: str) -> Response:
    """Return what a task put out, whole: a text as it is, anything else as JSON."""
    run = await chronicle_of(request, run_id)
    found: JsonValue = None
    facts = subjects.events(run.accepted.run.tenant, run_id)
    log = gateway_of(request).bus.log
    known = run.ended.result if run.ended is not None else None
    if known is not None and name in known:
        ended = await log.read(facts.ended, RunEnded)
        known = ended.result if ended is not None else None
    if known is not None and name in known and not _only_named(run_id, name, known[name]):
        found = known[name]
    else:
        drawn = graph_of(run)
        place = located(drawn, drawn.root.producers.get(name, "")) if drawn is not None else None
        states, fans = states_of(run, drawn) if drawn is not None else ({}, {})
        if drawn is None or place is None or states.get(place.node.name) not in set("dpcu"):
            raise Refusal(404, f"run {run_id!r} has no output {name[:80]!r} (yet)")
        texts = {}
        for call in sources(drawn, place.node, states, fans):
            settled = await log.read(facts.settled(Purpose.TASK, call), CallSettled)
            if settled is not None:
                texts[call] = settled.text or ""
        found = output(drawn, place.node, states, fans, texts)
    if isinstance(found, str):
        return Response(found, 200, None, "text/plain; charset=utf-8")
    return Response(to_json(found), 200, None, JSON)


async def _wanted(request: Request) -> Wanted:
    """Return the body; none at all says as much as an empty one."""
    return Wanted() if has_none(request) else await parsed(request, Wanted)


def _only_named(run_id: str, name: str, value: JsonValue) -> bool:
    """Whether a result was too large to travel, so that this value of it only says where it is."""
    return isinstance(value, dict) and value.get("href") == f"/runs/{run_id}/outputs/{name}"


def _steering(verb: Verb, doing: str) -> Callable[[Request, str], Awaitable[Response]]:
    async def steer(request: Request, run_id: str) -> Response:
        wanted = await _wanted(request)
        return await steered(gateway_of(request), who(request).tenant, run_id, verb, wanted)

    steer.__doc__ = doing
    return steer


async def steered(gateway: Gateway, tenant: str, run_id: str, verb: Verb, wanted: Wanted) -> Response:
    """Do to a run what is wanted; answers with the run once the effect is on the log. Raises `Refusal`."""
    run = await read_run(gateway, tenant, run_id)
    fits(run, verb, wanted)
    command = ControlRun(
        run_id=run_id, tenant=tenant, verb=verb, by="an API caller", reason=wanted.reason, task=wanted.task
    )
    await gateway.bus.log.send(subjects.control(tenant, run_id, verb), command)
    return await _effect(gateway, tenant, run_id, run, verb)


def fits(run: Chronicle | Queued, verb: Verb, wanted: Wanted) -> None:
    """Refuse what a run is in no state for. Raises `Refusal`."""
    if run.ended is not None:
        raise Refusal(409, f"the run has ended ({run.ended.outcome}): there is nothing to {verb}")
    if verb is Verb.CANCEL:
        return
    run = taken_up(run)
    state = state_of(run)
    if graph_of(run) is None:
        raise Refusal(409, f"the run has no workflow (yet) that could be {verb}d; its state is {state}")
    if verb in (Verb.APPROVE, Verb.REJECT):
        states = run.progress.states if run.progress is not None else {}
        asked = [fact.output for name, fact in run.asked.items() if states.get(name) == "a"]
        if not asked or (wanted.task is not None and wanted.task not in asked):
            raise Refusal(
                409, f"nobody is asked about {wanted.task or 'anything'}; waiting: {', '.join(asked) or 'none'}"
            )
        if wanted.task is None and len(asked) > 1:
            raise Refusal(409, f"several tasks wait for a person, say which with `task`: {', '.join(asked)}")


async def _effect(gateway: Gateway, tenant: str, run_id: str, before: Chronicle | Queued, verb: Verb) -> Response:
    """Answer with the run as soon as the log shows the effect; 202 when it does not yet."""
    loop = asyncio.get_running_loop()
    until = loop.time() + EFFECT_WITHIN_S
    while True:
        now = await read_run(gateway, tenant, run_id)
        if now.ended is not None or _has(before, now, verb):
            return show(seen(now))
        if loop.time() > until:
            return Response(seen(now).to_json(), 202, None, JSON)
        await asyncio.sleep(_LOOK_S)


def _has(before: Chronicle | Queued, now: Chronicle | Queued, verb: Verb) -> bool:
    """Whether what was wanted is on the log."""
    if isinstance(before, Queued) or isinstance(now, Queued):
        return False  # it can only be cancelled, and that is its end
    match verb:
        case Verb.CANCEL:
            return False
        case Verb.PAUSE | Verb.RESUME:
            return now.progress is not None and now.progress.held is (verb is Verb.PAUSE)
        case Verb.APPROVE | Verb.REJECT:
            return len(now.decided) > len(before.decided)


for _verb, _summary, _doing in (
    (Verb.CANCEL, "Cancel a run", "End a run now: what is asked of models is dropped, its cost stays booked."),
    (Verb.PAUSE, "Pause a run", "Start nothing more until the run is resumed; what runs is finished and kept."),
    (Verb.RESUME, "Resume a run", "Go on with a paused run."),
    (Verb.APPROVE, "Approve a task", "Let a task that waits for a person go on."),
    (Verb.REJECT, "Reject a task", "Let a task that waits for a person fail."),
):
    router.add_api_route(
        f"/runs/{{run_id}}/{_verb}",
        _steering(_verb, _doing),
        methods=["POST"],
        summary=_summary,
        name=f"{_verb}_run",
        response_model=RunView,
        responses=_STEERED,
        openapi_extra=takes(Wanted),
    )
