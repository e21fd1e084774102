"""`POST /plan`"""

from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response

from services.gateway import births
from services.gateway.gateway import gateway_of
from services.gateway.http.answering import respond
from services.gateway.http.answers import to_plan
from services.gateway.http.bodies import parsed
from services.gateway.http.identity import identity_of
from services.gateway.http.models import Failure, PlanAnswer, PlanBody, RunFailure
from services.gateway.http.openapi import takes
from services.gateway.http.routing import routes
from shared.contracts.commands import ChatRequest

router = routes("workflows")


@router.post(
    "/plan",
    summary="Plan without carrying out",
    responses={
        200: {"model": PlanAnswer},
        409: {"model": RunFailure},
        422: {"model": Failure},
        502: {"model": RunFailure},
        503: {"model": Failure},
        504: {"model": RunFailure},
    },
    openapi_extra=takes(PlanBody),
)
async def plan(request: Request) -> Response:
    """Have the master AI write a workflow for a message, and return it: nothing of it is carried out or paid for."""
    gateway = gateway_of(request)
    asked = await parsed(request, PlanBody)
    birth = births.of_plan(
        identity_of(request),
        ChatRequest(message=asked.message, images=asked.images, new_session=True),
        priority=asked.priority,
        now=datetime.now(UTC),
        timeout_s=gateway.listings.timeout_s,
    )
    return respond(await gateway.answered(birth), to_plan)
