"""Read a request's body: JSON, whole, in time, parsed from its bytes in one go."""

import asyncio
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import from_json
from starlette.requests import Request

from services.gateway.http.errors import Refusal, invalid
from services.gateway.http.models import Body
from shared.workflows.validation import Problem

B = TypeVar("B", bound=Body)

BODY_WITHIN_S = 60.0


async def raw(request: Request) -> bytes:
    """Return the body's bytes. Raises `Refusal` when it is not announced as JSON, is empty, or takes too long.

    Only JSON is taken, and it has to be said: a web page of somebody else cannot send that without being asked first.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        said = f"is {kind!r}" if kind else "is missing"
        raise Refusal(415, f"the Content-Type {said}; send JSON with Content-Type: application/json")
    try:
        async with asyncio.timeout(BODY_WITHIN_S):
            body = b"".join([chunk async for chunk in request.stream()])
    except TimeoutError as error:
        detail = f"the body did not come within {BODY_WITHIN_S:.0f} s"
        raise Refusal(408, detail, headers={"Connection": "close"}) from error
    if not body.strip():
        raise Refusal(422, (Problem("$", "empty_body", "the body is empty; send a JSON object"),))
    return body


def has_none(request: Request) -> bool:
    """Whether there is no body at all."""
    return request.headers.get("content-length", "0") == "0" and "transfer-encoding" not in request.headers


async def parsed(request: Request, kind: type[B]) -> B:
    """Return the body as what it should be, or refuse it with every problem."""
    try:
        return kind.model_validate_json(await raw(request))
    except ValidationError as error:
        raise invalid(error) from error


def read_as(body: dict[str, Any], kind: type[B]) -> B:
    """Return a body that was read as an object as what it should be, or refuse it with every problem."""
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        raise invalid(error) from error


async def document(request: Request) -> dict[str, Any]:
    """Return the body as a JSON object."""
    body = await raw(request)
    try:
        found = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise Refusal(422, (Problem("$", "json_invalid", f"Invalid JSON: {error}"),)) from error
    if not isinstance(found, dict):
        raise Refusal(422, (Problem("$", "dict_type", "the body must be a JSON object"),))
    return found
