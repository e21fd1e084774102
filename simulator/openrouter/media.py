"""`POST /images`, `POST /videos`, `GET /videos/{id}` and the videos themselves."""

import base64
import json
import time
from typing import Any, Final

from simulator.exchange import JSON, Exchange, Gone, TooLarge
from simulator.faults import Empty
from simulator.made import MOST_IMAGES, asked_for, begin_video, bill_images
from simulator.media import mp4, png
from simulator.openrouter import wire
from simulator.openrouter.failures import fail
from simulator.openrouter.turn import PREFIX, Turn, begin
from simulator.simulation import Simulation

IMAGES: Final = f"{PREFIX}/images"
VIDEOS: Final = f"{PREFIX}/videos"
CONTENT: Final = "/content"
MP4: Final = (b"content-type", b"video/mp4")


class Media:
    """Answers requests for images and videos."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation

    @staticmethod
    def handles(path: str) -> bool:
        return path in (IMAGES, VIDEOS) or path.startswith(f"{VIDEOS}/")

    async def handle(self, exchange: Exchange, path: str) -> None:
        match exchange.method, path:
            case "POST", "/api/v1/images" | "/api/v1/videos":
                await self._make(exchange, path)
            case "GET", _ if path.startswith(f"{VIDEOS}/"):
                name = path.removeprefix(f"{VIDEOS}/")
                await self._content(exchange, name) if name.endswith(CONTENT) else await self._job(exchange, name)
            case _:
                await exchange.respond(405, wire.error_body(405, "use another method", "method_not_allowed"), JSON)

    async def _make(self, exchange: Exchange, path: str) -> None:
        try:
            fields = json.loads(await exchange.body())
        except Gone:
            return
        except TooLarge:
            await exchange.respond(413, wire.error_body(413, "the request body is too large"), JSON)
            return
        except ValueError as error:
            await exchange.respond(400, wire.error_body(400, f"the body is not valid JSON: {error}"), JSON)
            return
        model, prompt = (fields.get("model"), fields.get("prompt")) if isinstance(fields, dict) else (None, None)
        if not isinstance(model, str) or not isinstance(prompt, str) or not prompt:
            await exchange.respond(400, wire.error_body(400, "'model' and 'prompt' must be strings"), JSON)
            return
        kind: Any = "image" if path == IMAGES else "video"
        turn = begin(self.simulation, exchange, asked_for(kind, model, prompt), path)
        try:
            if turn.fault is not None:
                if turn.fault.delay_s and not await exchange.wait(turn.fault.delay_s):
                    return
                if await fail(turn, turn.fault):
                    return
            await (self._images(turn, fields) if kind == "image" else self._begin(turn, fields))
        finally:
            turn.settle("disconnected")

    async def _images(self, turn: Turn, fields: dict[str, Any]) -> None:
        if not await turn.exchange.wait(self.simulation.profile.image_ms / 1000):
            return
        wanted = fields.get("n", 1)
        count = wanted if isinstance(wanted, int) and 1 <= wanted <= MOST_IMAGES else 1
        if isinstance(turn.fault, Empty):
            count = 0
        bill_images(turn, count)
        shape = str(fields.get("aspect_ratio", "1:1"))
        made = [png(turn.chance + number, turn.request.text, shape) for number in range(count)]
        turn.settle("answered", 200)
        body = {
            "created": turn.created,
            "model": turn.entry.model,
            "data": [{"b64_json": base64.b64encode(one).decode(), "media_type": "image/png"} for one in made],
            "usage": {
                "prompt_tokens": turn.entry.prompt_tokens,
                "completion_tokens": turn.entry.completion_tokens,
                "total_tokens": turn.entry.prompt_tokens + turn.entry.completion_tokens,
                "cost": turn.entry.cost_usd,
            },
        }
        await turn.exchange.respond(200, json.dumps(body).encode(), JSON, turn.id_header)

    async def _begin(self, turn: Turn, fields: dict[str, Any]) -> None:
        job = begin_video(turn, turn.id.replace("gen-", "vid-"), fields)
        body = {"id": job.name, "polling_url": f"{VIDEOS}/{job.name}", "status": "pending"}
        await turn.exchange.respond(202, json.dumps(body).encode(), JSON, turn.id_header)

    async def _job(self, exchange: Exchange, name: str) -> None:
        job = self.simulation.jobs.get(name)
        if job is None or job.fails == "lost":
            await exchange.respond(404, wire.error_body(404, f"job {name!r} not found"), JSON)
            return
        body: dict[str, Any] = {"id": name, "polling_url": f"{VIDEOS}/{name}"}
        if time.time() < job.ready_at:
            body["status"] = "in_progress"
        elif job.fails is not None:
            why = "safety: the video was filtered" if job.fails == "filtered" else "[simulated] the video broke"
            body |= {"status": "failed", "error": {"code": 500, "message": why}}
        else:
            host = exchange.headers.get("host", "127.0.0.1")
            address = f"http://{host}{VIDEOS}/{name}{CONTENT}"
            body |= {"status": "completed", "unsigned_urls": [address], "usage": {"cost": job.cost_usd}}
        await exchange.respond(200, json.dumps(body).encode(), JSON)

    async def _content(self, exchange: Exchange, name: str) -> None:
        job = self.simulation.jobs.get(name.removesuffix(CONTENT))
        if job is None or job.fails is not None or time.time() < job.ready_at:
            await exchange.respond(404, wire.error_body(404, "no such video"), JSON)
            return
        await exchange.respond(200, mp4(job.chance, job.prompt, job.seconds), MP4)
