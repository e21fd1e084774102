"""`POST /workflow` and `POST /template/{name}`"""

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter
from pydantic import JsonValue, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from services.gateway import births
from services.gateway.gateway import Gateway, gateway_of
from services.gateway.http.answering import respond
from services.gateway.http.answers import to_workflow
from services.gateway.http.bodies import document
from services.gateway.http.errors import Refusal
from services.gateway.http.identity import identity_of, who
from services.gateway.http.models import Failure, RunFailure, WorkflowAnswer
from services.gateway.http.openapi import takes
from services.gateway.http.templates import catalogue_with, known
from shared.contracts.ids import Priority
from shared.contracts.workflow import Workflow
from shared.registry.filling import filled
from shared.registry.templates import Offered
from shared.workflows.problems import templates_in
from shared.workflows.validation import Invalid, Problem, Valid, validate

router = APIRouter(tags=["workflows"])

_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"model": WorkflowAnswer},
    409: {"model": RunFailure},
    422: {"model": Failure},
    502: {"model": RunFailure},
    503: {"model": Failure},
    504: {"model": RunFailure},
}
_VARIABLES = {"type": "object", "additionalProperties": True}
_PRIORITY = TypeAdapter(Priority)


@router.post("/workflow", summary="Run a workflow", responses=_ANSWERS, openapi_extra=takes(Workflow))
async def workflow(request: Request) -> Response:
    """Run a workflow of your own. It is checked first: the answer to an invalid one lists everything that is wrong."""
    gateway = gateway_of(request)
    body = await document(request)
    priority = _priority(body.pop("priority", Priority.MEDIUM))
    catalogue = await catalogue_with(gateway, who(request).tenant, body)
    return await _run(request, gateway, validate(body, catalogue), priority=priority)


@router.post(
    "/template/{name}",
    summary="Run a template",
    responses={**_ANSWERS, 404: {"model": Failure}},
    openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": _VARIABLES}}}},
)
async def template(request: Request, name: str) -> Response:
    """Run a template. The body has its parameters; `GET /templates` says which."""
    gateway = gateway_of(request)
    tenant = who(request).tenant
    offered = await known(gateway, tenant, name)
    given: dict[str, JsonValue] = await document(request)
    inner = await gateway.book.closure(tenant, templates_in(offered.template.workflow))
    return await _run(request, gateway, filled(offered.template, given, gateway.catalogue, inner), template=offered)


async def _run(
    request: Request,
    gateway: Gateway,
    checked: Valid | Invalid,
    *,
    template: Offered | None = None,
    priority: Priority = Priority.MEDIUM,
) -> Response:
    if isinstance(checked, Invalid):
        raise Refusal(422, checked.problems)
    birth = births.of_workflow(
        identity_of(request),
        checked.workflow,
        template=template.name if template is not None else None,
        version=template.version if template is not None else None,
        priority=priority,
        now=datetime.now(UTC),
        timeout_s=gateway.listings.timeout_s,
    )
    return respond(await gateway.answered(birth), to_workflow)


def _priority(found: object) -> Priority:
    try:
        return _PRIORITY.validate_python(found)
    except ValidationError as error:
        known = ", ".join(Priority)
        raise Refusal(422, (Problem("$.priority", "enum", f"{found!r} is not a priority; known: {known}"),)) from error
