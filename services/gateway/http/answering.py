"""From a run's end to a response."""

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from services.gateway.births import Birth
from services.gateway.gateway import Gateway
from services.gateway.http.answers import Answer
from services.gateway.http.errors import JSON
from services.gateway.http.models import BegunAnswer, Body
from services.gateway.runs import Heard
from shared.contracts.events import RunEnded

REPLAYED = {"Idempotency-Replayed": "true"}


def respond(heard: Heard, read: Callable[[RunEnded], Answer]) -> Response:
    """Return the response for a run's end; one that had ended before is marked as told again."""
    answer = read(heard.ended)
    return Response(answer.body.to_json(), answer.status, REPLAYED if heard.replayed else None, JSON)


async def begun(gateway: Gateway, birth: Birth) -> Response:
    """Bear a run, or find it under its key, and answer at once with where it can be seen. Raises what `bear` does."""
    past = await gateway.runs.past(birth)
    run = birth.run if past.accepted is None else past.accepted.run
    if past.accepted is None and past.ended is None:
        await gateway.runs.bear(birth)
        await gateway.runs.soon_accepted(run)
    href = f"/runs/{run.run_id}"
    body = BegunAnswer(run_id=run.run_id, session_id=run.session_id, status_url=href, events_url=f"{href}/events")
    return Response(body.to_json(), 202, {"Location": href}, JSON)


def show(body: Body) -> Response:
    """Return what was asked for."""
    return Response(body.to_json(), 200, None, JSON)


def in_background_by(request: Request) -> bool:
    """Whether a caller does not wait: `?wait=false`."""
    return request.query_params.get("wait", "").lower() in ("false", "0", "no")
