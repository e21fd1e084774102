"""What every stream to a caller holds: a place among those who wait, as long as its credential counts."""

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from starlette.requests import HTTPConnection
from starlette.types import Scope

from services.gateway.gateway import Gateway
from services.gateway.http.identity import asker_of, who
from services.gateway.http.wire import Gone, Wire
from services.gateway.tenure import CredentialOver
from services.gateway.waiting import Stopping

log = logging.getLogger("segue.gateway")

FAREWELL_S: Final = 2.0
"""A caller that takes nothing for this long is not told why its stream ends."""


@asynccontextmanager
async def held(gateway: Gateway, connection: HTTPConnection) -> AsyncIterator[None]:
    """Hold a place for as long as a connection's credential counts.

    Raises `TooManyWaiting`; inside, `Stopping` or `CredentialOver` may be raised.
    """
    async with gateway.waiting.place(who(connection).tenant) as place:
        with gateway.tenures.holding(place, asker_of(connection)):
            yield


@asynccontextmanager
async def streaming(
    gateway: Gateway, scope: Scope, wire: Wire, farewell: Callable[[Exception], Awaitable[None]]
) -> AsyncIterator[None]:
    """Hold a place for a stream. One that ends before its story does is told why by `farewell`, if it has begun.

    Raises `TooManyWaiting`, and before the stream has begun `Stopping` and `CredentialOver`. That the caller has gone
    ends it quietly.
    """
    try:
        async with held(gateway, HTTPConnection(scope)):
            yield
    except (Stopping, CredentialOver) as error:
        if not wire.begun:
            raise
        if isinstance(error, CredentialOver):
            log.info("stream.credential_over", extra={"path": scope.get("path"), "reason": str(error)})
        wire.patience_s = FAREWELL_S
        with contextlib.suppress(Gone):
            await farewell(error)
    except Gone:
        log.info("stream.left", extra={"path": scope.get("path")})
