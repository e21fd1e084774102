"""`POST /runs/{id}/callback`, and what of a request's `callback_url` is taken."""

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.callbacks import BadCallback
from services.gateway.chronicle import Chronicle
from services.gateway.gateway import Gateway, gateway_of
from services.gateway.http.errors import JSON, Refusal
from services.gateway.http.models import Failure
from services.gateway.http.run_models import RunView
from services.gateway.http.run_view import view
from services.gateway.http.runs import chronicle_of
from shared import subjects
from shared.contracts.answer import delivery_of
from shared.contracts.callbacks import Callback, DeliverCallback
from shared.contracts.ids import TenantId
from shared.workflows.validation import Problem

router = APIRouter(tags=["runs"])

_ANSWERS: dict[int | str, dict[str, Any]] = {
    202: {"model": RunView},
    404: {"model": Failure},
    409: {"model": Failure},
}


def callback_of(gateway: Gateway, tenant: TenantId, url: str | None, *, named: str = "callback_url") -> Callback | None:
    """Return what is called back; None: nothing. `named`: as what the caller gave it. Raises `Refusal`."""
    try:
        return gateway.callbacks.read(tenant, url)
    except BadCallback as bad:
        raise Refusal(422, (Problem(f"$.{named}", "callback_url", str(bad)),)) from bad


@router.post("/runs/{run_id}/callback", status_code=202, summary="Send a run's answer again", responses=_ANSWERS)
async def send_again(request: Request, run_id: str) -> Response:
    """POST the answer to the run's callback URL again, or at once when it waits for its next attempt."""
    gateway = gateway_of(request)
    run = await chronicle_of(request, run_id)
    command = _command(run)
    await gateway.bus.log.send(subjects.callback(command.run.tenant, run_id), command)
    return Response(view(await chronicle_of(request, run_id)).to_json(), 202, None, JSON)


def _command(run: Chronicle) -> DeliverCallback:
    again = delivery_of(run.accepted, datetime.now(UTC), max(run.callbacks, default=0) + 1)
    if again is None:
        raise Refusal(409, "the run has no callback: its request had no callback_url")
    if run.ended is None:
        raise Refusal(409, "the run has not ended: its answer is sent by itself when it has")
    if run.calling_back is not None and run.calling_back.number not in run.callbacks:
        return run.calling_back.model_copy(update={"hurried": True})
    return again
