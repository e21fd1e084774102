"""The paths under `/v1beta`: which request is which, and its answer."""

import base64
import json
import time
from typing import Any, Final
from urllib.parse import unquote

from simulator.answers import MARK, Answer, answer
from simulator.exchange import JSON, Exchange, Gone, TooLarge
from simulator.faults import (
    CutStream,
    Empty,
    ErrorIn200,
    ErrorInStream,
    Fault,
    Malformed,
    RateLimit,
    Refusal,
    Reset,
    Scripted,
    Status,
    Timeout,
)
from simulator.google import wire
from simulator.latency import NONE, delays
from simulator.made import MOST_IMAGES, asked_for, begin_video, bill_images
from simulator.media import mp4, png
from simulator.openrouter.turn import Turn, begin
from simulator.openrouter.wire import EVENTS
from simulator.simulation import Simulation

PREFIX: Final = "/v1beta/"
MP4: Final = (b"content-type", b"video/mp4")
PIECE_CHARS: Final = 48
_METHODS: Final = frozenset({"generateContent", "streamGenerateContent", "predict", "predictLongRunning"})


class Google:
    """Answers requests under `/v1beta/`."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation

    @staticmethod
    def handles(path: str) -> bool:
        return path.startswith(PREFIX)

    async def handle(self, exchange: Exchange, path: str) -> None:
        what = path.removeprefix(PREFIX)
        model, _, method = what.removeprefix("models/").partition(":")
        if exchange.method == "POST" and what.startswith("models/") and method in _METHODS:
            await self._post(exchange, path, unquote(model), method)
        elif exchange.method == "GET" and "/operations/" in what:
            await self._operation(exchange, what)
        elif exchange.method == "GET" and what.startswith("files/"):
            await self._file(exchange, what.removeprefix("files/").partition(":")[0])
        else:
            await exchange.respond(404, wire.error(404, f"nothing at {exchange.method} {path}"), JSON)

    async def _post(self, exchange: Exchange, path: str, model: str, method: str) -> None:
        try:
            body = json.loads(await exchange.body())
        except Gone:
            return
        except TooLarge:
            await exchange.respond(400, wire.error(400, "the request payload is too large"), JSON)
            return
        except ValueError as wrong:
            await exchange.respond(400, wire.error(400, f"invalid JSON payload received: {wrong}"), JSON)
            return
        stream = method == "streamGenerateContent"
        read = _read(model, body, method, stream=stream)
        if isinstance(read, str):
            await exchange.respond(400, wire.error(400, read), JSON)
            return
        request, makes_images = read
        turn = begin(self.simulation, exchange, request, path)
        try:
            if turn.fault is not None:
                if turn.fault.delay_s and not await exchange.wait(turn.fault.delay_s):
                    return
                if await _fail(turn, turn.fault):
                    return
            match method:
                case "predict":
                    await self._predict(turn, body)
                case "predictLongRunning":
                    job = begin_video(turn, f"models/{model}/operations/{turn.id}", body.get("parameters") or {})
                    await exchange.respond(200, json.dumps({"name": job.name}).encode(), JSON)
                case _ if makes_images:
                    await self._image(turn, body)
                case _:
                    await self._text(turn)
        finally:
            turn.settle("disconnected")

    async def _text(self, turn: Turn) -> None:
        made = answer(turn.request, turn.chance, reasons=turn.price.reasons)
        if isinstance(turn.fault, Scripted):
            made = made._replace(text=turn.fault.text, finish_reason=turn.fault.finish_reason)
        elif isinstance(turn.fault, Refusal):
            made = made._replace(text="", finish_reason="content_filter")
        elif isinstance(turn.fault, Empty):
            made = made._replace(text="")
        turn.bill(made.completion_tokens, made.reasoning_tokens)
        model, told, exchange = turn.entry.model, turn.entry.prompt_tokens, turn.exchange
        profile = self.simulation.profile
        waits = delays(profile, made.completion_tokens, (turn.chance >> 8) / 2**24) if profile.waits else NONE
        text = made.text or ""
        if not turn.request.stream:
            if not await exchange.wait(waits.total_s(made.completion_tokens)):
                return
            turn.settle("answered", 200)
            body = wire.piece(model, [{"text": text}], prompt_tokens=told, answer=made)
            await exchange.respond(200, json.dumps(body).encode(), JSON)
            return
        if not await exchange.wait(waits.first_s):
            return
        await exchange.start(200, EVENTS)
        pieces = [text[at : at + PIECE_CHARS] for at in range(0, len(text), PIECE_CHARS)] or [""]
        for number, one in enumerate(pieces):
            if isinstance(turn.fault, CutStream | ErrorInStream) and number >= turn.fault.after_chunks:
                await _break(turn, turn.fault)
                return
            last = number == len(pieces) - 1
            body = wire.piece(model, [{"text": one}], prompt_tokens=told, answer=made if last else None)
            if last:
                turn.settle("answered", 200)
            await exchange.write(b"data: " + json.dumps(body).encode() + b"\r\n\r\n", last=last)
            if not last and not await exchange.wait(waits.per_token_s * PIECE_CHARS / 4):
                return

    async def _image(self, turn: Turn, body: dict[str, Any]) -> None:
        if not await turn.exchange.wait(self.simulation.profile.image_ms / 1000):
            return
        if isinstance(turn.fault, Refusal):
            turn.settle("answered", 200)
            blocked = Answer("", "content_filter")
            found = wire.piece(turn.entry.model, [], prompt_tokens=turn.entry.prompt_tokens, answer=blocked)
            await turn.exchange.respond(200, json.dumps(found).encode(), JSON)
            return
        config = (body.get("generationConfig") or {}).get("imageConfig") or {}
        tokens = bill_images(turn, 1)
        parts = [
            {"text": MARK.strip()},
            wire.inline(png(turn.chance, turn.request.text, str(config.get("aspectRatio")))),
        ]
        found = wire.piece(
            turn.entry.model,
            parts if not isinstance(turn.fault, Empty) else [],
            prompt_tokens=turn.entry.prompt_tokens,
            answer=Answer("", "stop", tokens),
            image_tokens=tokens,
        )
        turn.settle("answered", 200)
        await turn.exchange.respond(200, json.dumps(found).encode(), JSON)

    async def _predict(self, turn: Turn, body: dict[str, Any]) -> None:
        if not await turn.exchange.wait(self.simulation.profile.image_ms / 1000):
            return
        wanted = body.get("parameters") or {}
        count = wanted.get("sampleCount", 1)
        count = count if isinstance(count, int) and 1 <= count <= MOST_IMAGES else 1
        if isinstance(turn.fault, Refusal):
            turn.settle("answered", 200)
            reason = {"raiFilteredReason": "[simulated] the image was filtered"}
            await turn.exchange.respond(200, json.dumps({"predictions": [reason]}).encode(), JSON)
            return
        if isinstance(turn.fault, Empty):
            count = 0
        bill_images(turn, count)
        shape = str(wanted.get("aspectRatio", "1:1"))
        made = [png(turn.chance + number, turn.request.text, shape) for number in range(count)]
        turn.settle("answered", 200)
        predictions = [{"bytesBase64Encoded": base64.b64encode(one).decode(), "mimeType": "image/png"} for one in made]
        await turn.exchange.respond(200, json.dumps({"predictions": predictions} if made else {}).encode(), JSON)

    async def _operation(self, exchange: Exchange, name: str) -> None:
        job = self.simulation.jobs.get(name)
        if job is None or job.fails == "lost":
            await exchange.respond(404, wire.error(404, f"operation {name} not found"), JSON)
            return
        body: dict[str, Any] = {"name": name}
        if time.time() >= job.ready_at:
            body["done"] = True
            if job.fails == "error":
                body["error"] = {"code": 13, "message": "[simulated] the video broke", "status": "INTERNAL"}
            elif job.fails == "filtered":
                reasons = ["[simulated] the video was filtered"]
                found: dict[str, Any] = {"raiMediaFilteredCount": 1, "raiMediaFilteredReasons": reasons}
                body["response"] = {"generateVideoResponse": found}
            else:
                host = exchange.headers.get("host", "127.0.0.1")
                uri = f"http://{host}{PREFIX}files/{name.rpartition('/')[2]}:download?alt=media"
                body["response"] = {"generateVideoResponse": {"generatedSamples": [{"video": {"uri": uri}}]}}
        await exchange.respond(200, json.dumps(body).encode(), JSON)

    async def _file(self, exchange: Exchange, name: str) -> None:
        job = next((one for one in self.simulation.jobs.values() if one.name.endswith(f"/{name}")), None)
        if job is None or job.fails is not None or time.time() < job.ready_at:
            await exchange.respond(404, wire.error(404, "no such file"), JSON)
            return
        await exchange.respond(200, mp4(job.chance, job.prompt, job.seconds), MP4)


def _read(model: str, body: Any, method: str, *, stream: bool) -> Any:
    if not isinstance(body, dict):
        return "the body must be a JSON object"
    if not method.startswith("predict"):
        return wire.read(model, body, stream=stream)
    instances = body.get("instances")
    first = instances[0] if isinstance(instances, list) and instances else None
    prompt = first.get("prompt") if isinstance(first, dict) else None
    if not isinstance(prompt, str) or not prompt:
        return "instances[0].prompt is not specified"
    return asked_for("image" if method == "predict" else "video", model, prompt), False


async def _fail(turn: Turn, fault: Fault) -> bool:
    """Do what a fault does instead of an answer; return False for those that only change the answer."""
    exchange = turn.exchange
    match fault:
        case Status():
            turn.settle("error", fault.status)
            body = wire.error(fault.status, fault.message or f"{MARK}scripted {fault.status}", fault.retry_after_s)
            await exchange.respond(fault.status, body, JSON)
        case RateLimit():
            turn.settle("error", 429)
            await exchange.respond(429, wire.error(429, f"{MARK}quota exceeded", fault.retry_after_s), JSON)
        case Timeout():
            stayed = await exchange.wait(fault.for_s)
            turn.entry.disconnected = not stayed
            turn.settle("hung")
            if stayed:
                await exchange.cut()
        case Reset():
            turn.settle("cut")
            await exchange.reset()
        case Malformed():
            turn.settle("error", 200)
            await exchange.respond(200, b'{"candidates": [{"content"', JSON)
        case ErrorIn200():
            turn.settle("error", 200)
            code = fault.code if isinstance(fault.code, int) else 500
            await exchange.respond(200, wire.error(code, fault.message), JSON)
        case _:
            return False
    return True


async def _break(turn: Turn, fault: CutStream | ErrorInStream) -> None:
    """End a stream in the middle."""
    if isinstance(fault, ErrorInStream):
        turn.settle("error", 200)
        code = fault.code if isinstance(fault.code, int) else 500
        await turn.exchange.write(b"data: " + wire.error(code, fault.message) + b"\r\n\r\n", last=True)
        return
    turn.settle("cut", 200)
    match fault.how:
        case "clean":
            await turn.exchange.write(b"", last=True)
        case "close":
            await turn.exchange.cut()
        case "reset":
            await turn.exchange.reset()
