"""Every answer that is not a success: a status and a `detail` that says what happened and what to do."""

import logging
import math
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from services.gateway.admission import OverLimit
from services.gateway.http.openai import failures
from services.gateway.runs import KeyReused, NoEndInTime
from services.gateway.tenure import CredentialOver
from services.gateway.waiting import Stopping, TooManyWaiting
from shared.bus.buckets import UnreadableValue
from shared.bus.errors import BusError, QueueFull, Unavailable
from shared.bus.payloads import PayloadMissing
from shared.contracts.message import Unreadable
from shared.workflows.validation import Problem, json_path

log = logging.getLogger("segue.gateway")

JSON = "application/json"
REALM = 'Bearer realm="segue"'


class Refusal(HTTPException):
    """A request is answered with an error. `detail` is a sentence, or every problem of the body."""

    def __init__(
        self,
        status: int,
        detail: str | tuple[Problem, ...],
        *,
        headers: Mapping[str, str] | None = None,
        code: str | None = None,
    ) -> None:
        """`code`: what programs tell it by, where the status is not enough."""
        super().__init__(status, detail if isinstance(detail, str) else f"{len(detail)} problems", headers)
        self.code = code
        self.said: Any = detail if isinstance(detail, str) else [_problem(problem) for problem in detail]


def _problem(problem: Problem) -> dict[str, str]:
    return {"path": problem.path, "code": problem.code, "message": problem.message}


def invalid(error: ValidationError) -> Refusal:
    """Return pydantic's findings as ours: every one with its JSON path."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return Refusal(422, tuple(Problem(json_path(item["loc"]), str(item["type"]), item["msg"]) for item in found))


def failure(
    status: int,
    detail: Any,
    *,
    run_id: str | None = None,
    headers: Mapping[str, str] | None = None,
    path: str = "",
    error: Mapping[str, Any] | None = None,
    final: bool = False,
) -> Response:
    """Return the answer of an error: in OpenAI's form where its clients ask (`path`), else with `error` in it.

    `final`: sent again soon it meets the same.
    """
    if failures.is_ours(path):
        failing = failures.of_detail(status, detail, run_id, code=error["code"] if error else None, final=final)
        return Response(failing.body(), failing.status, {**failing.headers(), **(headers or {})}, JSON)
    body = {"detail": detail} if run_id is None else {"detail": detail, "run_id": run_id}
    return Response(to_json(body if error is None else {**body, "error": error}), status, headers, JSON)


def run_of(request: Request) -> str | None:
    """Return the run that a request is about, as far as it has one."""
    run_id: str | None = request.scope["state"].get("run_id")
    return run_id


def said_of(error: Exception) -> tuple[int, str, dict[str, str]]:
    """Return status, detail and headers for an error that a waiting request can meet."""
    match error:
        case QueueFull(of_subject=True):
            return (
                429,
                "too many of your requests of this priority wait already; wait, then send it again: nothing was kept",
                _after(error.retry_after_s),
            )
        case QueueFull():
            return (
                503,
                "the system's queue is full; wait, then send the request again: nothing was kept",
                _after(error.retry_after_s),
            )
        case OverLimit():
            return error.status, str(error), {} if error.retry_after_s is None else _after(error.retry_after_s)
        case TooManyWaiting():
            return 503, f"{error}; send the request again in a moment: nothing was kept", _after(1)
        case Stopping():
            return (
                503,
                "this gateway stops before the answer is there; the run goes on. A request that was sent with an "
                "Idempotency-Key gets its answer when it is sent again",
                _after(1),
            )
        case CredentialOver():
            return 401, f"{error}", {"WWW-Authenticate": f'{REALM}, error="invalid_token"'}
        case KeyReused():
            return 422, f"{error}; send a new key with a new request, or the very same request to get its answer", {}
        case NoEndInTime():
            return 504, f"{error}: the services behind the gateway are late or down; ask again later", {}
        case Unavailable():
            return 503, f"{error} The request may or may not have been kept", _after(2)
        case PayloadMissing():
            return 500, f"{error}", {}
        case BusError():
            return 503, f"{error}", _after(5)
        case UnreadableValue():
            told = (
                f"an entry that the bus keeps is unreadable here: {error}. A newer Segue may have written it: upgrade "
                "this gateway, or write over it (a PUT of the template, schedule, role or provider replaces it)"
            )
            return 500, told, {}
        case Unreadable():
            return 500, f"the log has something that this gateway cannot read: {error}", {}
    return 500, "an error of ours; the log has it under this answer's X-Request-Id", {}


def _after(seconds: float) -> dict[str, str]:
    return {"Retry-After": str(max(1, math.ceil(seconds)))}


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = error.said if isinstance(error, Refusal) else error.detail
    code = error.code if isinstance(error, Refusal) else None
    kept = None if code is None else {"type": "logical", "code": code, "message": detail, "param": None}
    return failure(error.status_code, detail, headers=error.headers, path=request.url.path, error=kept)


async def _not_routed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error, Refusal):
        return await _refused(request, error)
    what = f"{request.method} {request.url.path}"
    if error.status_code == 404:
        return failure(404, f"there is nothing at {what}; /docs lists what there is", path=request.url.path)
    allowed = (error.headers or {}).get("Allow", "")
    return failure(405, f"{what} is not offered; allowed: {allowed}", headers=error.headers, path=request.url.path)


async def _on_bus(request: Request, error: Exception) -> Response:
    status, detail, headers = said_of(error)
    run_id = None if isinstance(error, QueueFull | TooManyWaiting) else run_of(request)
    if run_id is None:
        request.scope["state"].pop("run_id", None)
    if status >= 500:
        log.warning(
            "request.failed", extra={"status": status, "run_id": run_id, "error": str(error) or type(error).__name__}
        )
    return failure(status, detail, run_id=run_id, headers=headers, path=request.url.path)


async def _limited(request: Request, error: Exception) -> Response:
    assert isinstance(error, OverLimit)
    request.scope["state"].pop("run_id", None)  # nothing was begun
    status, detail, headers = said_of(error)
    kept = {"type": "resource", "code": error.code, "message": detail, "param": None}
    final = error.retry_after_s is None or error.code in failures.OURS
    return failure(status, detail, headers=headers, path=request.url.path, error=kept, final=final)


async def _gone(request: Request, __: Exception) -> Response:
    return failure(400, "the connection was closed before the body had come", path=request.url.path)


async def _bug(request: Request, error: Exception) -> Response:
    status, detail, headers = said_of(error)  # the server logs the exception itself: it is raised again after this
    return failure(status, detail, headers=headers, path=request.url.path)


def install(app: FastAPI) -> None:
    """Have the application answer errors in this way."""
    app.add_exception_handler(404, _not_routed)
    app.add_exception_handler(405, _not_routed)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(OverLimit, _limited)
    for kind in (BusError, Unreadable, KeyReused, NoEndInTime, TooManyWaiting, Stopping, CredentialOver):
        app.add_exception_handler(kind, _on_bus)
    app.add_exception_handler(Exception, _bug)
