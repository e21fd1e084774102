"""What can go wrong, as exceptions: each says what to do, and carries what a program needs."""

import json
from collections.abc import Mapping, Sequence
from typing import Any


class SegueError(Exception):
    """Whatever this client raises."""


class WrongAddress(SegueError):
    """The address is none."""


class Unreachable(SegueError):
    """Nobody answers at the address. Nothing was sent."""

    def __init__(self, url: str) -> None:
        super().__init__(f"no Segue answers at {url}: start one with ./start.sh (or `segue up`), or name it with --url")
        self.url = url


class RequestFailed(SegueError):
    """There is no answer to a request."""

    status = 0
    """HTTP; 0: none came."""
    run_id: str | None = None
    """Of the run that was begun, as far as that is known."""


class ConnectionCut(RequestFailed):
    """The answer did not come, or not whole. What was begun goes on: ask again with the same Idempotency-Key."""

    def __init__(self, message: str, run_id: str | None = None) -> None:
        super().__init__(message)
        self.run_id = run_id


class ApiError(RequestFailed):
    """The gateway said no. `str(error)` is its `detail`, a line for each problem."""

    def __init__(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        said = body if isinstance(body, dict) else {"detail": body}
        detail = said.get("detail", said)
        super().__init__(text_of(detail))
        self.status = status
        self.detail = detail
        self.body: Mapping[str, Any] = said
        self.run_id = said.get("run_id")
        self.problems: Sequence[Mapping[str, str]] = detail if isinstance(detail, list) else ()
        """Of a request that is not valid: {path, code, message} each."""
        self.retry_after_s = _seconds((headers or {}).get("retry-after"))


class Invalid(ApiError):
    """422, 413, 415: the request says something that cannot be; `problems` says where."""


class Unauthorized(ApiError):
    """401: who are you?"""


class Forbidden(ApiError):
    """403: you may not."""


class NotFound(ApiError):
    """404: it is not there, or not yours."""


class Busy(ApiError):
    """429, 503: full, or over a limit; nothing was kept. Come back after `retry_after_s`."""


class RunFailed(ApiError):
    """The run ended without a success: `code`, `cost_usd` and what is kept (`result`) are said."""

    @property
    def code(self) -> str | None:
        error = self.body.get("error")
        return error.get("code") if isinstance(error, dict) else None

    @property
    def cost_usd(self) -> float:
        return float(self.body.get("cost_usd", 0.0))

    @property
    def result(self) -> Mapping[str, Any] | None:
        return self.body.get("result")


def error_of(status: int, body: Any, headers: Mapping[str, str]) -> ApiError:
    """Return the exception for an answer that is no success."""
    kind: type[ApiError] = ApiError
    if isinstance(body, dict) and isinstance(body.get("error"), dict) and body.get("run_id"):
        kind = RunFailed
    else:
        match status:
            case 401:
                kind = Unauthorized
            case 403:
                kind = Forbidden
            case 404:
                kind = NotFound
            case 413 | 415 | 422:
                kind = Invalid
            case 429 | 503:
                kind = Busy
    return kind(status, body, headers)


def text_of(detail: object) -> str:
    """Return a `detail` as a person reads it: a text, or a line for every problem."""
    if isinstance(detail, str):
        return detail
    if isinstance(detail, list) and all(isinstance(one, dict) and "message" in one for one in detail):
        return "\n".join(f"{one['path']}: {one['message']}" if one.get("path") else one["message"] for one in detail)
    return json.dumps(detail, indent=2, ensure_ascii=False)


def _seconds(value: str | None) -> float | None:
    if value is None or not value.strip().isdigit():
        return None
    return float(value)
