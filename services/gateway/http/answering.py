"""From a run's end to a response."""

from collections.abc import Callable

from starlette.responses import Response

from services.gateway.http.answers import Answer
from services.gateway.http.errors import JSON
from services.gateway.http.models import Body
from services.gateway.runs import Heard
from shared.contracts.events import RunEnded

REPLAYED = {"Idempotency-Replayed": "true"}


def respond(heard: Heard, read: Callable[[RunEnded], Answer]) -> Response:
    """Return the response for a run's end; one that had ended before is marked as told again."""
    answer = read(heard.ended)
    return Response(answer.body.to_json(), answer.status, REPLAYED if heard.replayed else None, JSON)


def show(body: Body) -> Response:
    """Return what was asked for."""
    return Response(body.to_json(), 200, None, JSON)
