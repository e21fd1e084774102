"""`/schedules`: templates that are started again and again."""

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.gateway import gateway_of
from services.gateway.http.answering import show
from services.gateway.http.bodies import parsed
from services.gateway.http.callbacks import callback_of
from services.gateway.http.errors import JSON, Refusal
from services.gateway.http.identity import may_ask, who
from services.gateway.http.models import Failure
from services.gateway.http.openapi import takes
from services.gateway.http.template_models import ScheduleBody, ScheduleDeleted, SchedulesAnswer, ScheduleWritten
from services.gateway.http.templates import SHOWN, filled_by, known, named
from services.gateway.principal import at_most
from shared.contracts.ids import is_token
from shared.contracts.registry import Schedule, ScheduleState
from shared.registry.schedules import BadSchedule, TooManySchedules
from shared.workflows.problems import roles_of
from shared.workflows.validation import Invalid, Problem

router = APIRouter(tags=["schedules"])

_MISSING: dict[int | str, dict[str, Any]] = {404: {"model": Failure}}


@router.get("/schedules", summary="Schedules", response_model=SchedulesAnswer)
async def schedules(request: Request) -> Response:
    """List the schedules, with what has become of them."""
    found = await gateway_of(request).schedules.all(who(request).tenant)
    return show(SchedulesAnswer(schedules=[_body(*one) for one in found], count=len(found)))


@router.get("/schedules/{name}", summary="Read a schedule", response_model=ScheduleBody, responses=_MISSING)
async def read(request: Request, name: str) -> Response:
    """Return a schedule, with what has become of it."""
    found = await _known(request, name)
    state = await gateway_of(request).schedules.state(found.tenant, name)
    return show(_body(found, state))


@router.put(
    "/schedules/{name}",
    summary="Write a schedule",
    response_model=ScheduleBody,
    responses={201: {"model": ScheduleBody}, 409: {"model": Failure}, 422: {"model": Failure}, **_MISSING},
    openapi_extra=takes(ScheduleWritten),
)
async def write(request: Request, name: str) -> Response:
    """Have a template started by the clock; written again it changes, and counts at once."""
    gateway, tenant = gateway_of(request), who(request).tenant
    named(name)
    asked = await parsed(request, ScheduleWritten)
    offered = await known(gateway, tenant, asked.template)
    checked = await filled_by(gateway, tenant, offered, asked.variables)
    if isinstance(checked, Invalid):
        problems = [Problem(f"$.variables{one.path[1:]}", one.code, one.message) for one in checked.problems]
        raise Refusal(422, tuple(problems))
    may_ask(request, roles_of(checked.workflow.workflow))
    principal = who(request)
    callback = callback_of(gateway, tenant, asked.callback_url)

    def make(version: int) -> Schedule:
        return Schedule(
            tenant=tenant,
            name=name,
            version=version,
            written_at=datetime.now(UTC),
            by=principal.name,
            key=principal.key,
            template=asked.template,
            variables=asked.variables,
            cron=asked.cron,
            every=asked.every,
            timezone=asked.timezone,
            priority=at_most(asked.priority, principal.most_priority),
            overlap=asked.overlap,
            callback=callback,
            paused=asked.paused,
        )

    try:
        written, is_new = await gateway.schedules.write(tenant, name, make)
    except BadSchedule as bad:
        raise Refusal(422, (Problem(f"$.{bad.field}", "bad_schedule", str(bad)),)) from bad
    except TooManySchedules as full:
        raise Refusal(409, str(full)) from full
    state = await gateway.schedules.state(tenant, name)
    return Response(_body(written, state).to_json(), 201 if is_new else 200, None, JSON)


@router.delete("/schedules/{name}", summary="Delete a schedule", response_model=ScheduleDeleted, responses=_MISSING)
async def delete(request: Request, name: str) -> Response:
    """Stop and forget a schedule. Runs that it began go on."""
    found = await _known(request, name)
    await gateway_of(request).schedules.delete(found, by=who(request).name)
    return show(ScheduleDeleted(name=name))


async def _known(request: Request, name: str) -> Schedule:
    found = await gateway_of(request).schedules.get(who(request).tenant, name) if is_token(name) else None
    if found is None:
        raise Refusal(404, f"there is no schedule {name[:SHOWN]!r}")
    return found


def _body(schedule: Schedule, state: ScheduleState) -> ScheduleBody:
    return ScheduleBody(
        name=schedule.name,
        template=schedule.template,
        variables=schedule.variables,
        cron=schedule.cron,
        every=schedule.every,
        timezone=schedule.timezone,
        priority=schedule.priority,
        overlap=schedule.overlap,
        callback_url=None if schedule.callback is None else schedule.callback.url,
        paused=schedule.paused,
        version=schedule.version,
        written_at=schedule.written_at,
        by=schedule.by,
        started=state.started,
        skipped=state.skipped,
        last_run=state.last_run,
        last_at=state.last_at,
        next_at=None if schedule.paused else state.next_at,
        problem=state.problem,
    )
