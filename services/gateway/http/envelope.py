"""What every request gets: an id, the run's id in the answer's head, a count and a log line."""

import logging
import re
import secrets
import time
from functools import cache
from itertools import count

from prometheus_client import Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.observe import metrics
from shared.observe.logs import bound

log = logging.getLogger("segue.gateway")

_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
_KINDS = {"chat": "chat", "workflow": "workflow", "template": "template", "session": "session", "v1": "openai"}
_BOOT = secrets.token_hex(6)
_NUMBERS = count(1)
_UNCOUNTED = frozenset({"/healthz", "/readyz", "/metrics"})


def kind_of(path: str) -> str:
    """Return what was asked for, as the metrics name it."""
    return _KINDS.get(path[1:].partition("/")[0], "catalogue")


@cache
def _counters(kind: str, status: int) -> tuple[Counter, Histogram]:
    return metrics.REQUESTS.labels(kind, str(status)), metrics.REQUEST_SECONDS.labels(kind)


class Envelope:
    """ASGI middleware around everything, errors included."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _UNCOUNTED:
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        request_id = _given(scope) or f"{_BOOT}-{next(_NUMBERS):x}".encode()
        state = scope.setdefault("state", {})
        status = 0

        async def labelled(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message["headers"], (b"x-request-id", request_id)]
                if (run_id := state.get("run_id")) is not None:
                    headers.append((b"x-segue-run-id", run_id.encode()))
                message = {**message, "headers": headers}
            await send(message)

        with bound(request_id=request_id.decode()):
            try:
                await self._app(scope, receive, labelled)
            finally:
                took_s = time.perf_counter() - began
                kind = kind_of(scope["path"])
                answered, seconds = _counters(kind, status or 499)  # 499: the caller went before the answer
                answered.inc()
                seconds.observe(took_s)
                if kind != "catalogue" and log.isEnabledFor(logging.DEBUG if 0 < status < 400 else logging.INFO):
                    _log(scope, state.get("run_id"), status, took_s)


def _log(scope: Scope, run_id: str | None, status: int, took_s: float) -> None:
    """Log an answer: those that went well only when asked for, the metrics count them."""
    log.log(
        logging.DEBUG if 0 < status < 400 else logging.INFO,
        "request.answered",
        extra={
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "took_s": round(took_s, 6),
            "run_id": run_id,
        },
    )


def _given(scope: Scope) -> bytes | None:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _ID.fullmatch(value):
            found: bytes = value
            return found
    return None
