"""Who are you, may you: before anything else of a request is looked at, its body least of all."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Final

from pydantic_core import to_json
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from services.gateway.bearers import NoKeys
from services.gateway.guard import Guard, NotKnown, TooManyTries
from services.gateway.http.errors import JSON, REALM, failure, said_of
from services.gateway.http.scopes import needed
from services.gateway.principal import Principal
from services.gateway.tenure import Asker
from shared.bus.errors import BusError
from shared.observe import metrics

SUBPROTOCOL: Final = "bearer."
"""Browsers cannot set a WebSocket's headers: `new WebSocket(url, ["segue", "bearer." + key])`."""
_CLOSE_OVER: Final = 65_536


class Access:
    """ASGI middleware: 401 without a credential that counts, 403 without the scope; else `who(request)` knows."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app = app
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        wanted = needed(scope.get("method", "POST"), scope["path"])
        authenticator = self._guard.authenticator
        if wanted is None:
            await self._app(scope, receive, send)
            return
        if authenticator is None:
            await self._refuse(
                failure(503, "starting", headers={"Retry-After": "1"}, path=scope["path"]), scope, receive, send
            )
            return
        credential = credential_of(scope["headers"])
        try:
            principal = await authenticator.principal_of(credential)
        except (NotKnown, TooManyTries, NoKeys, BusError) as error:
            await self._refuse(_said(error, given=credential is not None, path=scope["path"]), scope, receive, send)
            return
        if wanted not in principal.scopes:
            await self._refuse(_forbidden(principal, wanted.value), scope, receive, send)
            return
        scope.setdefault("state", {})["principal"] = principal
        if credential is not None:
            scope["state"]["asker"] = Asker(principal, credential, partial(authenticator.principal_of, credential))
        await self._app(scope, receive, send)

    async def _refuse(self, answer: Response, scope: Scope, receive: Receive, send: Send) -> None:
        metrics.REFUSED_AT_DOOR.labels(str(answer.status_code)).inc()
        if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008, "reason": "not allowed"})
            return
        if scope["type"] == "http" and _is_large(scope["headers"]):
            answer.headers["connection"] = "close"  # its body is never read
        await answer(scope, receive, send)


def credential_of(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return what a request says about who it is from."""
    found: dict[bytes, bytes] = {name: value for name, value in headers if name in _WHERE}
    if (said := found.get(b"authorization")) is not None:
        scheme, _, rest = said.decode("latin-1").strip().partition(" ")
        if scheme.lower() == "bearer" and rest.strip():
            return rest.strip()
    if (said := found.get(b"x-api-key")) is not None:
        return said.decode("latin-1").strip() or None
    for part in found.get(b"sec-websocket-protocol", b"").decode("latin-1").split(","):
        if part.strip().startswith(SUBPROTOCOL):
            return part.strip().removeprefix(SUBPROTOCOL)
    return None


_WHERE: Final = frozenset({b"authorization", b"x-api-key", b"sec-websocket-protocol"})


def _answer(status: int, code: str, detail: str, headers: Mapping[str, str]) -> Response:
    """Return an answer that clients of either API can read: `detail`, and OpenAI's `error`."""
    error = {"type": "authentication_error", "code": code, "message": detail, "param": None}
    return Response(to_json({"detail": detail, "error": error}), status, headers, JSON)


def _said(error: Exception, *, given: bool, path: str) -> Response:
    """Return the answer to a credential that does not count, or that was not given at all. (RFC 6750)"""
    match error:
        case NotKnown():
            challenge = {"WWW-Authenticate": f'{REALM}, error="invalid_token"' if given else REALM}
            return _answer(401, "invalid_api_key" if given else "missing_api_key", str(error), challenge)
        case TooManyTries():
            told = "too many unknown keys are tried at the moment; send the request again"
            return _answer(429, "too_many_tries", told, {"Retry-After": "1"})
        case NoKeys():
            told = "the identity provider's keys cannot be had (SEGUE_JWT_JWKS); the log says why"
            return _answer(503, "no_keys", told, {"Retry-After": "10"})
    status, detail, headers = said_of(error)
    return failure(status, detail, headers=headers, path=path)


def _forbidden(principal: Principal, wanted: str) -> Response:
    has = ", ".join(sorted(principal.scopes)) or "none"
    headers: Mapping[str, str] = {"WWW-Authenticate": f'{REALM}, error="insufficient_scope", scope="{wanted}"'}
    return _answer(403, "missing_scope", f"this needs the scope {wanted!r}; the credential has: {has}", headers)


def _is_large(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    for name, value in headers:
        if name == b"transfer-encoding" or (name == b"content-length" and value.isdigit() and int(value) > _CLOSE_OVER):
            return True
    return False
