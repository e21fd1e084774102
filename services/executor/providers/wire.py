"""HTTP as every adapter uses it: one connection pool a provider, phases with limits of their own, bodies with a bound.

httpx's requests and answers over the aiohttp transport, called without httpx's client around it: half the CPU a request
(ADR 0008). No redirects, no proxies or certificates from the environment, no cookies, no retries.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from services.executor.providers import Failed
from services.executor.taxonomy import (
    CONNECTION_LOST,
    MALFORMED,
    NOT_SENT,
    OVERSIZED,
    SILENCE,
    TIMEOUT,
    TLS,
    UNREACHABLE,
    Verdict,
)

MAX_BODY_BYTES: Final = 16 * 1024 * 1024
MAX_MEDIA_BYTES: Final = 96 * 1024 * 1024
"""Of an answer with images or a video in it; in base64 they are a third longer."""
CONNECT_WITHIN_S: Final = 5.0
STREAM_SILENCE_S: Final = 90.0
"""A stream that says nothing for so long, not even a comment, is dead. An answer in one piece may take its budget."""
KEEP_ALIVE_S: Final = 30.0


class BodyTooLarge(Exception):
    """An answer is longer than it may be: `MAX_BODY_BYTES`, or `MAX_MEDIA_BYTES` of what has media in it."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the answer is longer than {limit >> 20} MB")


class Encoded(Exception):
    """An answer is compressed although it was asked for plain."""


@dataclass(frozen=True, slots=True)
class Phases:
    """Limits in seconds: of connecting, and of silence while reading."""

    connect_s: float = CONNECT_WITHIN_S
    read_s: float | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    data: bytes


class Wire:
    """The connections to one provider, for the life of the process."""

    def __init__(self) -> None:
        self._transport = AiohttpTransport(client=_session, trust_env=False)

    def post(
        self, url: httpx.URL, headers: Mapping[str, str], body: bytes, phases: Phases
    ) -> AbstractAsyncContextManager[httpx.Response]:
        """Send one request. Leaving before the answer is read to its end aborts the connection."""
        return self._send("POST", url, headers, body, phases)

    async def exchange(
        self,
        method: str,
        url: httpx.URL,
        headers: Mapping[str, str],
        body: bytes | None = None,
        *,
        phases: Phases = Phases(),
        limit: int = MAX_BODY_BYTES,
    ) -> Reply | Failed:
        """Send one request and read its whole answer, whatever its status. Never raises for what a server does."""
        began = False
        try:
            async with self._send(method, url, headers, body, phases) as response:
                began = True
                return Reply(response.status_code, response.headers, await whole(response, limit=limit))
        except Exception as error:
            failed = explain(error, began=began)
            if failed is None:
                raise
            return failed

    @asynccontextmanager
    async def _send(
        self, method: str, url: httpx.URL, headers: Mapping[str, str], body: bytes | None, phases: Phases
    ) -> AsyncIterator[httpx.Response]:
        request = httpx.Request(
            method,
            url,
            headers=headers,
            content=body,
            extensions={
                "timeout": {"connect": phases.connect_s, "pool": phases.connect_s * 2, "read": phases.read_s},
            },
        )
        response = await self._transport.handle_async_request(request)
        try:
            if response.headers.get("content-encoding", "identity") != "identity":
                raise Encoded(response.headers["content-encoding"])
            yield response
        finally:
            assert isinstance(response.stream, httpx.AsyncByteStream)
            await response.stream.aclose()

    async def close(self) -> None:
        await self._transport.aclose()


def _session() -> aiohttp.ClientSession:
    # No limit on connections: the executor's places are the limit. Cookies of one tenant are never another's.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S, ttl_dns_cache=60)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)


async def chunks(response: httpx.Response, *, limit: int = MAX_BODY_BYTES) -> AsyncIterator[bytes]:
    """Return the body as it comes. Raises `BodyTooLarge`."""
    assert isinstance(response.stream, httpx.AsyncByteStream)
    got = 0
    async for chunk in response.stream:
        got += len(chunk)
        if got > limit:
            raise BodyTooLarge(limit)
        yield chunk


async def whole(response: httpx.Response, *, limit: int = MAX_BODY_BYTES) -> bytes:
    """Return the whole body. Raises `BodyTooLarge`, at once when its length is announced."""
    announced = response.headers.get("content-length", "")
    if announced.isascii() and announced.isdigit() and int(announced) > limit:
        raise BodyTooLarge(limit)
    return b"".join([chunk async for chunk in chunks(response, limit=limit)])


def explain(error: Exception, *, began: bool) -> Failed | None:
    """Return the failure that an exception of the wire is, None when it is none. `began`: an answer had begun.

    The transport's own mapping calls a lost connection a connect time-out, so what aiohttp raised decides.
    """
    cause = error.__cause__ if isinstance(error, httpx.TransportError) and error.__cause__ is not None else error
    match cause:
        case BodyTooLarge():
            return _failed(OVERSIZED, str(cause))
        case Encoded():
            return _failed(MALFORMED, f"the answer is encoded as {cause}, although it was asked for plain")
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError() | ssl.SSLError():
            return _failed(TLS, f"no secure connection: {_said(cause)}", sent=False)
        case aiohttp.ConnectionTimeoutError():
            return _failed(UNREACHABLE, f"no connection within {CONNECT_WITHIN_S:.0f} s", sent=False)
        case aiohttp.ClientConnectorError():
            return _failed(UNREACHABLE, f"no connection: {_said(cause)}", sent=False)
        case aiohttp.ClientOSError() if "Can not write request body" in str(cause):
            return _failed(NOT_SENT, "the connection broke before the request was sent", sent=False)
        case aiohttp.SocketTimeoutError():
            return _failed(SILENCE, "the provider fell silent")
        case aiohttp.InvalidURL() | httpx.UnsupportedProtocol() | httpx.InvalidURL():
            return _failed(UNREACHABLE, f"not a URL that can be asked: {_said(cause)}", sent=False)
        case (
            aiohttp.ClientPayloadError()
            | aiohttp.ServerDisconnectedError()
            | ConnectionError()
            | aiohttp.ClientOSError()
        ):
            where = "in the middle of the answer" if began else "before the answer began"
            return _failed(CONNECTION_LOST, f"the connection broke {where}: {_said(cause)}")
        case aiohttp.ClientResponseError() | ValueError():
            return _failed(MALFORMED, f"the answer is not HTTP: {_said(cause)}")
        case TimeoutError():
            return _failed(SILENCE, "the provider fell silent")
        case aiohttp.ClientError() | httpx.TransportError() | asyncio.IncompleteReadError():
            return _failed(CONNECTION_LOST, f"the connection broke: {_said(cause)}")
    return None


def out_of_time(budget_s: float) -> Failed:
    """Return the failure of an attempt whose budget is used up."""
    return _failed(TIMEOUT, f"no complete answer within {budget_s:.1f} s")


def _failed(verdict: Verdict, message: str, *, sent: bool = True) -> Failed:
    return Failed(verdict, message, cost_usd=None if sent else 0.0)


def _said(error: BaseException) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:200]
