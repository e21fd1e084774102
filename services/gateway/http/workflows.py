"""`POST /workflow` and `POST /template/{name}`"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter
from pydantic import Field, JsonValue, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from services.gateway import births
from services.gateway.gateway import Gateway, gateway_of
from services.gateway.http.answering import begun, in_background_by, respond
from services.gateway.http.answers import to_workflow
from services.gateway.http.bodies import document
from services.gateway.http.callbacks import callback_of
from services.gateway.http.errors import Refusal
from services.gateway.http.identity import identity_of, may_ask, who
from services.gateway.http.models import BegunAnswer, Failure, RunFailure, WorkflowAnswer
from services.gateway.http.openapi import takes
from services.gateway.http.templates import catalogue_with, filled_by, known
from shared.contracts.callbacks import Callback
from shared.contracts.ids import Priority
from shared.contracts.workflow import Workflow
from shared.registry.templates import Offered
from shared.workflows.problems import roles_of
from shared.workflows.validation import Invalid, Problem, Valid, validate

router = APIRouter(tags=["workflows"])

_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"model": WorkflowAnswer},
    202: {"model": BegunAnswer},
    409: {"model": RunFailure},
    422: {"model": Failure},
    502: {"model": RunFailure},
    503: {"model": Failure},
    504: {"model": RunFailure},
}
_VARIABLES = {"type": "object", "additionalProperties": True}
_PRIORITY: TypeAdapter[Priority] = TypeAdapter(Priority)
_SECONDS: TypeAdapter[float | None] = TypeAdapter(Annotated[float, Field(gt=0, le=86_400)] | None)
_TRUTH: TypeAdapter[bool] = TypeAdapter(bool)
_TEXT: TypeAdapter[str | None] = TypeAdapter(str | None)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _How:
    """What a caller says beside the workflow."""

    priority: Priority
    timeout_s: float | None
    in_background: bool
    callback: Callback | None


@router.post("/workflow", summary="Run a workflow", responses=_ANSWERS, openapi_extra=takes(Workflow))
async def workflow(request: Request) -> Response:
    """Run a workflow of your own. It is checked first: the answer to an invalid one lists everything that is wrong."""
    gateway = gateway_of(request)
    body = await document(request)
    how = _How(
        priority=_read(_PRIORITY, "priority", body.pop("priority", Priority.MEDIUM)),
        timeout_s=_read(_SECONDS, "timeout_s", body.pop("timeout_s", None)),
        in_background=_read(_TRUTH, "async", body.pop("async", False)) or in_background_by(request),
        callback=_callback(request, gateway, body.pop("callback_url", None)),
    )
    catalogue = await catalogue_with(gateway, who(request).tenant, body)
    return await _run(request, gateway, validate(body, catalogue), how)


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
    checked = await filled_by(gateway, tenant, offered, given)
    asked = request.query_params
    how = _How(
        priority=_read(_PRIORITY, "priority", asked.get("priority", Priority.MEDIUM)),
        timeout_s=_read(_SECONDS, "timeout_s", asked.get("timeout_s")),
        in_background=in_background_by(request),
        callback=_callback(request, gateway, asked.get("callback_url")),
    )
    return await _run(request, gateway, checked, how, template=offered)


async def _run(
    request: Request,
    gateway: Gateway,
    checked: Valid | Invalid,
    how: _How,
    *,
    template: Offered | None = None,
) -> Response:
    if isinstance(checked, Invalid):
        raise Refusal(422, checked.problems)
    may_ask(request, roles_of(checked.workflow.workflow))
    birth = births.of_workflow(
        identity_of(request),
        checked.workflow,
        template=template.name if template is not None else None,
        version=template.version if template is not None else None,
        priority=how.priority,
        now=datetime.now(UTC),
        timeout_s=how.timeout_s or gateway.listings.timeout_s,
        callback=how.callback,
    )
    if how.in_background:
        return await begun(gateway, birth)
    return respond(await gateway.answered(birth), to_workflow)


def _callback(request: Request, gateway: Gateway, url: object) -> Callback | None:
    return callback_of(gateway, who(request).tenant, _read(_TEXT, "callback_url", url))


def _read(kind: TypeAdapter[T], name: str, found: object) -> T:
    try:
        return kind.validate_python(found)
    except ValidationError as error:
        said = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise Refusal(422, (Problem(f"$.{name}", str(said["type"]), f"{found!r}: {said['msg']}"),)) from error
