"""Google's Gemini API: texts and images by `generateContent`, images by Imagen's `predict`, videos by Veo."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

import httpx
from pydantic_core import to_json

from services.executor.providers import Answered, Asked, Failed, Media, OnDelta, Pending, Submitted, in_trouble
from services.executor.providers.downloads import downloaded
from services.executor.providers.durations import seconds_of
from services.executor.providers.failures import read_failure
from services.executor.providers.google_wire import (
    ContentReader,
    content_fields,
    imagen_fields,
    read_operation,
    read_operation_name,
    read_predictions,
    veo_fields,
)
from services.executor.providers.refusals import refused_parameter
from services.executor.providers.sse import SseReader, TooLong
from services.executor.providers.tags import head, key_of, without_key
from services.executor.providers.wire import (
    MAX_BODY_BYTES,
    MAX_MEDIA_BYTES,
    STREAM_SILENCE_S,
    Phases,
    Reply,
    Wire,
    chunks,
    explain,
    out_of_time,
    whole,
)
from services.executor.taxonomy import CONNECTION_LOST, CUT, INVALID, OVERSIZED
from shared.config.providers import Route
from shared.contracts.ids import Lane
from shared.contracts.message import Usage
from shared.outward import Outward

log = logging.getLogger("segue.executor")

POLL_S: Final = 5.0
POLL_SIMULATED_S: Final = 0.2
MOST_REFUSED: Final = 3


@dataclass(slots=True)
class Google:
    """One server. Remembers by model which settings it refused."""

    outward: Outward
    wire: Wire = field(default_factory=Wire)
    now_s: Callable[[], float] = time.time
    _omitted: dict[str, frozenset[str]] = field(default_factory=dict)

    async def ask(self, asked: Asked, route: Route, *, budget_s: float, on_delta: OnDelta | None) -> Answered | Failed:
        """Ask for a text or for images, once; again at once only without a setting that was just refused."""
        if asked.call.embed is not None:
            return Failed(INVALID, "embeddings are asked of OpenAI-compatible servers only: this role's is Google's")
        try:
            async with asyncio.timeout(budget_s):
                if route.lane is Lane.IMAGE and route.model.startswith("imagen"):
                    outcome = await self._imagen(asked, route)
                else:
                    outcome = await self._content(asked, route, on_delta)
        except TimeoutError:
            return out_of_time(budget_s)
        return without_key(outcome, route)

    async def submit(self, asked: Asked, route: Route, *, budget_s: float) -> Submitted | Failed:
        """Have Veo begin a video."""
        parameters = route.parameters.model_dump(mode="json", exclude_none=True)
        body = to_json(veo_fields(asked, parameters))
        try:
            async with asyncio.timeout(budget_s):
                reply = await self._post(asked, route, "predictLongRunning", body)
        except TimeoutError:
            return out_of_time(budget_s)
        if isinstance(reply, Failed):
            return without_key(reply, route)
        name = read_operation_name(reply.data)
        return without_key(name, route) if isinstance(name, Failed) else Submitted(name)

    async def poll(self, asked: Asked, route: Route, operation: str, *, budget_s: float) -> Pending | Answered | Failed:
        """Ask how far a video is, and fetch it once it is there."""
        url = httpx.URL(f"{route.base_url.rstrip('/')}/{operation}")
        try:
            async with asyncio.timeout(budget_s):
                reply = await self.wire.exchange("GET", url, _headers(asked, route), limit=MAX_MEDIA_BYTES * 2)
                if isinstance(reply, Reply) and reply.status != 200:
                    reply = read_failure(reply.status, reply.headers, reply.data, self.now_s())
                if isinstance(reply, Failed):
                    return in_trouble(without_key(reply, route), POLL_S)
                found = read_operation(reply.data, self.now_s())
                if found is None:
                    return Pending(POLL_SIMULATED_S if route.simulated else POLL_S)
                if isinstance(found, str):
                    headers = {"x-goog-api-key": key_of(route) or ""}
                    fetched = await downloaded(found, route, self.wire, self.outward, headers, fallback="video/mp4")
                    if isinstance(fetched, Failed):
                        return in_trouble(without_key(fetched, route), POLL_S)
                    found = fetched
        except TimeoutError:
            return in_trouble(out_of_time(budget_s), POLL_S)
        if isinstance(found, Failed):
            return without_key(found, route)
        return made_video(found, asked, route)

    async def close(self) -> None:
        await self.wire.close()

    async def _imagen(self, asked: Asked, route: Route) -> Answered | Failed:
        parameters = route.parameters.model_dump(mode="json", exclude_none=True)
        reply = await self._post(asked, route, "predict", to_json(imagen_fields(asked, parameters)), MAX_MEDIA_BYTES)
        return reply if isinstance(reply, Failed) else read_predictions(reply.data, self.now_s())

    async def _content(self, asked: Asked, route: Route, on_delta: OnDelta | None) -> Answered | Failed:
        parameters = route.parameters.model_dump(mode="json", exclude_none=True)
        images = route.lane is Lane.IMAGE
        omit = self._omitted.get(route.model, frozenset())
        for tried in range(MOST_REFUSED):
            if tried:
                await asked.once_more()
            fields = content_fields(asked, parameters, images=images, omit=omit)
            if on_delta is not None and not images:
                outcome = await self._stream(asked, route, to_json(fields), on_delta)
            else:
                outcome = await self._whole(
                    asked, route, to_json(fields), MAX_MEDIA_BYTES if images else MAX_BODY_BYTES
                )
            if not isinstance(outcome, Failed) or outcome.status is None or outcome.text_sent:
                return outcome
            refused = refused_parameter(outcome.status, outcome.message, fields.get("generationConfig", {}))
            if refused is None:
                return outcome
            log.warning(
                "provider.parameter_refused",
                extra={"model": route.model, "parameter": refused[0], "said": outcome.message},
            )
            omit |= {refused[0]}
            self._omitted[route.model] = omit
        return outcome

    async def _whole(self, asked: Asked, route: Route, body: bytes, limit: int) -> Answered | Failed:
        reply = await self._post(asked, route, "generateContent", body, limit)
        if isinstance(reply, Failed):
            return reply
        reader = ContentReader()
        reader.take(reply.data, self.now_s())
        return reader.conclude()

    async def _stream(self, asked: Asked, route: Route, body: bytes, on_delta: OnDelta) -> Answered | Failed:
        reader, events, began = ContentReader(), SseReader(), False
        url = _url(route, "streamGenerateContent", "alt=sse")
        try:
            async with self.wire.post(url, _headers(asked, route), body, Phases(read_s=STREAM_SILENCE_S)) as response:
                began = True
                if response.status_code != 200:
                    data = await whole(response)
                    return read_failure(response.status_code, response.headers, data, self.now_s())
                async for chunk in chunks(response):
                    text = "".join([reader.take(event, self.now_s()) for event in events.feed(chunk)])
                    if text:
                        await on_delta(text)
                    if reader.failed is not None:
                        break
            return reader.conclude()
        except TooLong as error:
            return reader.broken(OVERSIZED, f"the stream has {error}")
        except Exception as error:
            failed = explain(error, began=began)
            if failed is None:
                raise
            if began:
                return reader.broken(CUT if failed.verdict == CONNECTION_LOST else failed.verdict, failed.message)
            return failed

    async def _post(
        self, asked: Asked, route: Route, method: str, body: bytes, limit: int = MAX_BODY_BYTES
    ) -> Reply | Failed:
        reply = await self.wire.exchange("POST", _url(route, method), _headers(asked, route), body, limit=limit)
        if isinstance(reply, Failed) or reply.status == 200:
            return reply
        return read_failure(reply.status, reply.headers, reply.data, self.now_s())


def made_video(video: Media, asked: Asked, route: Route) -> Answered:
    """Return a video as an answer; its seconds are those that were asked for, as providers bill them."""
    seconds = seconds_of({**route.parameters.extra, **asked.call.settings})
    return Answered("", "stop", route.model, Usage(video_s=seconds), media=(video,))


def _url(route: Route, method: str, query: str = "") -> httpx.URL:
    model = quote(route.model.removeprefix("models/"), safe="-._~")
    return httpx.URL(f"{route.base_url.rstrip('/')}/models/{model}:{method}{'?' + query if query else ''}")


def _headers(asked: Asked, route: Route) -> dict[str, str]:
    headers = head(asked, route)
    if (key := key_of(route)) is not None:
        headers["x-goog-api-key"] = key
    return headers
