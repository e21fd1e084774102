"""`POST /plan`"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from services.gateway import births
from services.gateway.figures import figures
from services.gateway.gateway import Gateway, gateway_of
from services.gateway.http.answering import respond, show
from services.gateway.http.answers import to_estimate, to_plan
from services.gateway.http.bodies import document, read_as
from services.gateway.http.errors import Refusal
from services.gateway.http.identity import identity_of, who
from services.gateway.http.models import Failure, PlanAnswer, PlanBody, RunFailure
from services.gateway.http.openapi import takes
from services.gateway.http.routing import routes
from services.gateway.http.templates import catalogue_with, filled_by, known
from shared.contracts.commands import ChatRequest
from shared.history.queries import Typical
from shared.history.store import HistoryUnavailable
from shared.moments import us_of
from shared.workflows.estimate import Figures, estimate
from shared.workflows.graph import compiled
from shared.workflows.mermaid import flowchart
from shared.workflows.validation import Invalid, Problem, validate

router = routes("workflows")

LOOKS_BACK_DAYS: Final = 7


@router.post(
    "/plan",
    summary="Plan without carrying out",
    responses={
        200: {"model": PlanAnswer},
        404: {"model": Failure},
        409: {"model": RunFailure},
        422: {"model": Failure},
        502: {"model": RunFailure},
        503: {"model": Failure},
        504: {"model": RunFailure},
    },
    openapi_extra=takes(PlanBody),
)
async def plan(request: Request) -> Response:
    """Show a workflow with its critical path and what it will probably take; nothing of it is carried out.

    For a message the master AI writes it, which is all that is paid for; a workflow of your own, or a template, is
    checked and shown as it is.
    """
    gateway = gateway_of(request)
    body = await document(request)
    given = [name for name in ("message", "workflow", "template") if body.get(name) is not None]
    if len(given) != 1:
        said = f"give one of message, workflow and template, not {' and '.join(given) or 'none of them'}"
        raise Refusal(422, (Problem("$", "one_of", said),))
    if given != ["message"]:
        return await _as_it_is(request, gateway, body)
    asked = read_as(body, PlanBody)
    assert asked.message is not None
    birth = births.of_plan(
        identity_of(request),
        ChatRequest(message=asked.message, images=asked.images, new_session=True),
        priority=asked.priority,
        now=datetime.now(UTC),
        timeout_s=gateway.listings.timeout_s,
    )
    heard = await gateway.answered(birth)
    usual = await figures_of(gateway, birth.run.tenant)
    return respond(heard, lambda ended: to_plan(ended, usual))


async def _as_it_is(request: Request, gateway: Gateway, body: dict[str, Any]) -> Response:
    """Check a workflow that is there already, and show it."""
    began, tenant = monotonic(), who(request).tenant
    asked = read_as(body, PlanBody)
    if asked.template is not None:
        offered = await known(gateway, tenant, asked.template)
        checked = await filled_by(gateway, tenant, offered, asked.variables)
    else:
        given = {"workflow": asked.workflow, "variables": asked.variables}
        checked = validate(given, await catalogue_with(gateway, tenant, given))
    if isinstance(checked, Invalid):
        raise Refusal(422, checked.problems)
    graph = compiled(checked.workflow)
    written = checked.workflow.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    return show(
        PlanAnswer(
            run_id=None,
            workflow=written["workflow"],
            variables=written.get("variables", {}),
            note=None,
            mermaid=flowchart(graph),
            estimate=to_estimate(estimate(graph, await figures_of(gateway, tenant))),
            cost_usd=0.0,
            cost_known=True,
            took_s=round(monotonic() - began, 6),
            simulated=False,
        )
    )


async def figures_of(gateway: Gateway, tenant: str) -> Mapping[str, Figures]:
    """Return what calls probably take: by the history of the last week, as far as there is one."""
    typical: Mapping[str, Typical] = {}
    if gateway.projector is not None:
        since_us = us_of(datetime.now(UTC) - timedelta(days=LOOKS_BACK_DAYS))
        with suppress(HistoryUnavailable):
            typical = await asyncio.to_thread(gateway.projector.history.typical, tenant, from_us=since_us)
    models = gateway.listings.models
    prices = await asyncio.to_thread(
        lambda: {one.name: gateway.prices.price(one.provider, one.model) for one in models}
    )
    return figures(models, typical, prices)
