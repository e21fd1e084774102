"""OpenRouter's images and videos, and OpenAI-compatible servers' images."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import quote

import httpx
from pydantic_core import to_json

from services.executor.providers import Answered, Asked, Failed, Media, OnDelta, Pending, Submitted, in_trouble
from services.executor.providers.amounts import MOST_USD, amount, shown, word
from services.executor.providers.downloads import downloaded
from services.executor.providers.failures import read_failure, read_fault
from services.executor.providers.google import POLL_S, POLL_SIMULATED_S, made_video
from services.executor.providers.google_wire import media_of, prompt_of
from services.executor.providers.objects import object_in
from services.executor.providers.openai_wire import usage_of
from services.executor.providers.tags import bearing, head, without_key
from services.executor.providers.wire import MAX_BODY_BYTES, MAX_MEDIA_BYTES, Reply, Wire, out_of_time
from services.executor.taxonomy import EMPTY, MALFORMED, PROVIDER_ERROR, SAFETY
from shared.config.providers import OPENROUTER, Route
from shared.outward import Outward

_OURS: Final = frozenset({"temperature", "max_tokens", "top_p", "safety_filter", "enhance_prompt", "num_images"})
"""Settings that say nothing to these, or go by another name."""


@dataclass(slots=True)
class OpenRouterMedia:
    """One server's `/images` and `/videos`; `/images/generations` where it is not OpenRouter's protocol."""

    outward: Outward
    wire: Wire = field(default_factory=Wire)
    now_s: Callable[[], float] = time.time

    async def ask(self, asked: Asked, route: Route, *, budget_s: float, on_delta: OnDelta | None) -> Answered | Failed:
        """Ask for images, once."""
        settings = _settings(asked, route)
        fields = {"model": route.model, "prompt": prompt_of(asked), **settings}
        if isinstance(count := {**route.parameters.extra, **asked.call.settings}.get("num_images"), int) and count > 1:
            fields["n"] = count
        path = "images" if route.protocol == OPENROUTER else "images/generations"
        try:
            async with asyncio.timeout(budget_s):
                reply = await self._send("POST", path, asked, route, to_json(fields), MAX_MEDIA_BYTES * 4 // 3)
                outcome = reply if isinstance(reply, Failed) else await self._images(reply.data, route)
        except TimeoutError:
            return out_of_time(budget_s)
        return without_key(outcome, route)

    async def submit(self, asked: Asked, route: Route, *, budget_s: float) -> Submitted | Failed:
        """Have a video begun."""
        fields = {"model": route.model, "prompt": prompt_of(asked), **_settings(asked, route)}
        try:
            async with asyncio.timeout(budget_s):
                reply = await self._send("POST", "videos", asked, route, to_json(fields))
        except TimeoutError:
            return out_of_time(budget_s)
        if isinstance(reply, Failed):
            return without_key(reply, route)
        body = object_in(reply.data) or {}
        name = word(body.get("id"))
        if body.get("error"):
            return without_key(read_fault(200, body["error"], self.now_s()), route)
        if name is None:
            return Failed(MALFORMED, f"the answer names no job: {shown(reply.data)}", 200, cost_usd=None)
        return Submitted(name)

    async def poll(self, asked: Asked, route: Route, operation: str, *, budget_s: float) -> Pending | Answered | Failed:
        """Ask how far a video is, and fetch it once it is there."""
        try:
            async with asyncio.timeout(budget_s):
                reply = await self._send("GET", f"videos/{quote(operation, safe='')}", asked, route, None)
                if isinstance(reply, Failed):
                    return in_trouble(without_key(reply, route), POLL_S)
                outcome = await self._video(reply.data, asked, route)
        except TimeoutError:
            return in_trouble(out_of_time(budget_s), POLL_S)
        return without_key(outcome, route) if isinstance(outcome, Failed) else outcome

    async def close(self) -> None:
        await self.wire.close()

    async def _images(self, data: bytes, route: Route) -> Answered | Failed:
        body = object_in(data) or {}
        usage, cost = usage_of(body.get("usage"))
        if body.get("error"):
            return read_fault(200, body["error"], self.now_s(), usage=usage, cost_usd=cost)
        found = body.get("data")
        made = list[Media]()
        for one in found if isinstance(found, list) else ():
            if not isinstance(one, dict):
                continue
            image = media_of(one.get("b64_json"), one.get("media_type") or one.get("mime_type"))
            if image is None and isinstance(one.get("url"), str):
                fetched = await downloaded(one["url"], route, self.wire, self.outward, {}, fallback="image/png")
                if isinstance(fetched, Failed):
                    return replace(fetched, usage=usage, cost_usd=cost)
                image = fetched
            if image is None:
                return Failed(MALFORMED, "an image of the answer is not base64", 200, usage=usage, cost_usd=cost)
            made.append(image)
        if not made:
            return Failed(EMPTY, f"the answer has no images: {shown(data)}", 200, usage=usage, cost_usd=cost)
        usage = usage.model_copy(update={"images": len(made)})
        return Answered("", "stop", word(body.get("model")), usage, cost, media=tuple(made))

    async def _video(self, data: bytes, asked: Asked, route: Route) -> Pending | Answered | Failed:
        body = object_in(data) or {}
        used = body.get("usage")
        cost = amount(used.get("cost"), MOST_USD) if isinstance(used, dict) else None
        match body.get("status"):
            case "pending" | "queued" | "in_progress":
                return Pending(POLL_SIMULATED_S if route.simulated else POLL_S)
            case "completed":
                urls = body.get("unsigned_urls")
                address = urls[0] if isinstance(urls, list) and urls and isinstance(urls[0], str) else None
                if address is None:
                    return Failed(EMPTY, "the job is completed and has no video", 200, cost_usd=cost)
                found = await downloaded(address, route, self.wire, self.outward, bearing(route), fallback="video/mp4")
                if isinstance(found, Failed):
                    return in_trouble(without_key(found, route), POLL_S)
                return replace(made_video(found, asked, route), cost_usd=cost)
            case "failed":
                fault = body.get("error") or {"message": "the job failed, and its provider did not say why"}
                failed = read_fault(200, fault, self.now_s(), cost_usd=cost or 0.0)
                said = str(fault).lower()
                filtered = failed.verdict == PROVIDER_ERROR and ("safety" in said or "moderation" in said)
                return replace(failed, verdict=SAFETY) if filtered else failed
            case other:
                return Failed(MALFORMED, f"the job is in a state that is not known: {shown(other)}", 200, cost_usd=None)

    async def _send(
        self, method: str, path: str, asked: Asked, route: Route, body: bytes | None, limit: int = MAX_BODY_BYTES
    ) -> Reply | Failed:
        headers = {**head(asked, route, accept="application/json"), **bearing(route)}
        url = httpx.URL(f"{route.base_url.rstrip('/')}/{path}")
        reply = await self.wire.exchange(method, url, headers, body, limit=limit)
        if isinstance(reply, Failed) or reply.status in (200, 201, 202):
            return reply
        return read_failure(reply.status, reply.headers, reply.data, self.now_s())


def _settings(asked: Asked, route: Route) -> dict[str, Any]:
    said = {**route.parameters.extra, **asked.call.settings}
    return {name: value for name, value in said.items() if name not in _OURS and value is not None}
