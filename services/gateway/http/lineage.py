"""`POST /runs/{id}/retry`, `/fork`: new runs that take over what another one has.

A retry answers the question that was asked, so it also calls back whom that one was to call back, unless its body says
otherwise. A fork asks something else: it calls back only whom its own body names.
"""

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from services.gateway import births
from services.gateway.chronicle import Chronicle
from services.gateway.gateway import gateway_of
from services.gateway.http.answering import begun, in_background_by, respond
from services.gateway.http.answers import to_chat, to_workflow
from services.gateway.http.bodies import has_none, parsed
from services.gateway.http.callbacks import callback_of
from services.gateway.http.errors import Refusal
from services.gateway.http.identity import identity_of, who
from services.gateway.http.models import BegunAnswer, ChatAnswer, Failure, RunFailure, WorkflowAnswer
from services.gateway.http.openapi import takes
from services.gateway.http.run_models import ForkBody, RetryBody
from services.gateway.http.run_view import graph_of, state_of
from services.gateway.http.runs import chronicle_of
from shared import subjects
from shared.contracts.callbacks import Callback
from shared.contracts.commands import ChatRequest, Lineage
from shared.contracts.events import RunAccepted

router = APIRouter(tags=["runs"])

_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"model": WorkflowAnswer | ChatAnswer},
    202: {"model": BegunAnswer},
    404: {"model": Failure},
    409: {"model": RunFailure},
    422: {"model": RunFailure},
    502: {"model": RunFailure},
    503: {"model": Failure},
    504: {"model": RunFailure},
}


@router.post("/runs/{run_id}/retry", summary="Do again what failed", responses=_ANSWERS, openapi_extra=takes(RetryBody))
async def retry(request: Request, run_id: str) -> Response:
    """Begin a new run that takes over what succeeded in this one, and pays for nothing of it again.

    Its answer is POSTed to the callback URL of this one, unless `callback_url` says otherwise.
    """
    asked = RetryBody() if has_none(request) else await parsed(request, RetryBody)
    run = await chronicle_of(request, run_id)
    if run.ended is None or run.ended.outcome == "completed":
        raise Refusal(409, f"only a run that ended without success can be retried; this one is {state_of(run)}")
    callback = run.accepted.callback
    if "callback_url" in asked.model_fields_set:
        callback = callback_of(gateway_of(request), who(request).tenant, asked.callback_url)
    return await _again(request, run, Lineage(parent=run_id, kind="retry"), callback)


@router.post(
    "/runs/{run_id}/fork", summary="Do a part again, differently", responses=_ANSWERS, openapi_extra=takes(ForkBody)
)
async def fork(request: Request, run_id: str) -> Response:
    """Begin a new run from any task of this one, with other prompts, models or variables; the rest is taken over."""
    asked = await parsed(request, ForkBody)
    run = await chronicle_of(request, run_id)
    if graph_of(run) is None:
        raise Refusal(409, f"the run has no workflow to fork; it is {state_of(run)}")
    callback = callback_of(gateway_of(request), who(request).tenant, asked.callback_url)
    lineage = Lineage(parent=run_id, kind="fork", start_at=asked.start_at, edits=asked.edits, variables=asked.variables)
    return await _again(request, run, lineage, callback)


async def _again(request: Request, run: Chronicle, lineage: Lineage, callback: Callback | None) -> Response:
    gateway = gateway_of(request)
    was = run.accepted.run
    parent = await gateway.bus.log.read(subjects.facts(was).accepted, RunAccepted)
    birth = births.of_lineage(
        identity_of(request),
        parent or run.accepted,
        lineage,
        planned=graph_of(run) is not None,
        now=datetime.now(UTC),
        timeout_s=gateway.listings.timeout_s,
        callback=callback,
    )
    if in_background_by(request):
        return await begun(gateway, birth)
    chat = isinstance(run.accepted.request, ChatRequest)
    return respond(await gateway.answered(birth), to_chat if chat else to_workflow)
