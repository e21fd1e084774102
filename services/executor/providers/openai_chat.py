"""Any OpenAI-compatible server, and OpenRouter: `POST <base_url>/chat/completions`."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
from pydantic_core import to_json

from services.executor.providers import Answered, Asked, Failed, OnDelta
from services.executor.providers.embedding_wire import embedding_fields, read_embeddings
from services.executor.providers.failures import read_failure
from services.executor.providers.openai_wire import StreamReader, read_completion, request_fields
from services.executor.providers.refusals import of_the_schema, refused_parameter
from services.executor.providers.sse import SseReader, TooLong
from services.executor.providers.tags import bearing, head, without_key
from services.executor.providers.wire import (
    MAX_MEDIA_BYTES,
    STREAM_SILENCE_S,
    Phases,
    Wire,
    chunks,
    explain,
    out_of_time,
    whole,
)
from services.executor.taxonomy import CONNECTION_LOST, CUT, OVERSIZED
from shared.config.providers import Route

log = logging.getLogger("segue.executor")

MAX_REFUSED = 4
"""Parameters that one request gives up before the refusal is the answer."""

READ_OFF_WITHIN_S = 0.05
_KEPT = frozenset({"tools", "tool_choice", "response_format"})
"""Where a caller himself asks for these, an answer without them is not what he asked for: the refusal is the answer."""


@dataclass(slots=True)
class OpenAiChat:
    """One server. Remembers by model which parameters it refused, so that it is told only once a process."""

    wire: Wire = field(default_factory=Wire)
    now_s: Callable[[], float] = time.time
    _omitted: dict[str, dict[str, str]] = field(default_factory=dict)
    _urls: dict[tuple[str, str], httpx.URL] = field(default_factory=dict)

    async def ask(self, asked: Asked, route: Route, *, budget_s: float, on_delta: OnDelta | None) -> Answered | Failed:
        """Ask once; again at once only without a parameter that the server has just refused to know."""
        try:
            async with asyncio.timeout(budget_s):
                if asked.call.embed is not None:
                    outcome = await self._embed(asked, route)
                else:
                    outcome = await self._patiently(asked, route, on_delta)
        except TimeoutError:
            return out_of_time(budget_s)
        return without_key(outcome, route)

    async def close(self) -> None:
        await self.wire.close()

    async def _patiently(self, asked: Asked, route: Route, on_delta: OnDelta | None) -> Answered | Failed:
        parameters = route.parameters.model_dump(mode="json", exclude_none=True)
        kept = _KEPT if asked.call.parameters is not None else frozenset[str]()
        omit = {name: instead for name, instead in self._omitted.get(route.model, {}).items() if name not in kept}
        for tried in range(MAX_REFUSED):
            if tried:
                await asked.once_more()
            fields = request_fields(asked, route.model, parameters, stream=on_delta is not None, omit=omit)
            outcome = await self._once(asked, route, fields, on_delta)
            if not isinstance(outcome, Failed) or outcome.status is None or outcome.text_sent:
                return outcome
            refused = refused_parameter(outcome.status, outcome.message, fields)
            if refused is None or refused[0] in kept:
                return outcome
            name, instead = refused
            log.warning(
                "provider.parameter_refused",
                extra={"model": route.model, "parameter": name, "instead": instead, "said": outcome.message},
            )
            omit[name] = instead
            if not (name == "response_format" and of_the_schema(outcome.message)):
                self._omitted.setdefault(route.model, {})[name] = instead
        return outcome

    async def _embed(self, asked: Asked, route: Route) -> Answered | Failed:
        """Ask for embeddings."""
        url, body = self._url(route, "embeddings"), to_json(embedding_fields(asked, route.model))
        reply = await self.wire.exchange("POST", url, _headers(asked, route), body, limit=MAX_MEDIA_BYTES)
        if isinstance(reply, Failed):
            return reply
        if reply.status != 200:
            return read_failure(reply.status, reply.headers, reply.data, self.now_s())
        return read_embeddings(reply.data, len(asked.call.embed or ()), self.now_s())

    async def _once(
        self, asked: Asked, route: Route, fields: dict[str, Any], on_delta: OnDelta | None
    ) -> Answered | Failed:
        """Send one request and read its answer."""
        stream = StreamReader() if on_delta is not None else None
        began = False
        phases = Phases(read_s=STREAM_SILENCE_S if stream is not None else None)
        try:
            async with self.wire.post(
                self._url(route), _headers(asked, route), to_json(fields, exclude_none=True), phases
            ) as response:
                began = True
                asked.trace.generation_id = response.headers.get("x-generation-id")
                status = response.status_code
                if status != 200:
                    return read_failure(status, response.headers, await whole(response), self.now_s())
                kind = response.headers.get("content-type", "")
                if stream is None or on_delta is None or "application/json" in kind:
                    outcome = read_completion(await whole(response), self.now_s())
                    if on_delta is not None and isinstance(outcome, Answered) and outcome.text:
                        await on_delta(outcome.text)  # a server that cannot stream answers in one piece
                    return outcome
                return await self._stream(response, stream, on_delta)
        except TooLong as error:
            assert stream is not None
            return stream.broken(OVERSIZED, f"the stream has {error}")
        except Exception as error:
            failed = explain(error, began=began)
            if failed is None:
                raise
            if stream is not None and began:
                return stream.broken(CUT if failed.verdict == CONNECTION_LOST else failed.verdict, failed.message)
            return failed

    async def _stream(self, response: httpx.Response, stream: StreamReader, on_delta: OnDelta) -> Answered | Failed:
        events = SseReader()
        incoming = chunks(response)
        async for chunk in incoming:
            pieces = []
            for event in events.feed(chunk):
                if text := stream.take(event, self.now_s()):
                    pieces.append(text)
                if stream.done or stream.failed is not None:
                    break
            if pieces:  # what came in together goes out together: a publish a read, not one a token
                await on_delta("".join(pieces))
            if stream.done or stream.failed is not None:
                await _read_off(incoming)
                return stream.conclude()
        return stream.conclude()

    def _url(self, route: Route, what: str = "chat/completions") -> httpx.URL:
        url = self._urls.get((route.base_url, what))
        if url is None:
            url = self._urls[route.base_url, what] = httpx.URL(f"{route.base_url.rstrip('/')}/{what}")
        return url


async def _read_off(incoming: AsyncIterator[bytes]) -> None:
    """Read the end of the body after the last event, mostly here already, so that the connection can be used again."""
    with suppress(TimeoutError):
        async with asyncio.timeout(READ_OFF_WITHIN_S):
            async for _ in incoming:
                pass


def _headers(asked: Asked, route: Route) -> dict[str, str]:
    return {**head(asked, route), **bearing(route)}
