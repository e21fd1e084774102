"""OpenRouter's API: chat completions, models, generation, key. The only module that knows its paths and headers.

Another provider's API gets a module of its own with the same shape: `handles(path)` and `handle(exchange, path)`.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Final
from urllib.parse import parse_qs

from simulator import catalogue, wire
from simulator.answers import MARK, Answer, answer, chance_of, measured
from simulator.chat_request import CHARS_PER_TOKEN, ChatRequest, Unreadable, read, tokens_of
from simulator.exchange import Exchange, Gone, Header, TooLarge
from simulator.faults import (
    CutStream,
    Empty,
    ErrorIn200,
    ErrorInStream,
    Fault,
    InvalidPlan,
    Malformed,
    Oversized,
    RateLimit,
    Refusal,
    Reset,
    Scripted,
    ServedBy,
    Stall,
    Status,
    Timeout,
    Usage,
    WrongLetter,
)
from simulator.latency import NONE, Delays, delays
from simulator.ledger import SHOWN_CHARS, Entry, Outcome
from simulator.prices import Price, cost_usd, price_of
from simulator.simulation import Simulation

PREFIX: Final = "/api/v1"
CHAT: Final = f"{PREFIX}/chat/completions"
FALLS_OVER: Final = frozenset({404, 408, 429, 500, 502, 503, 504})
"""Statuses at which OpenRouter goes on to the next of `models`."""
COMMENT_EVERY_S: Final = 1.0
SMALLEST_WAIT_S: Final = 0.002
"""Chunks that would follow each other faster than this are sent together."""


@dataclass(frozen=True, slots=True)
class _Turn:
    """One request on its way to its answer."""

    exchange: Exchange
    request: ChatRequest
    entry: Entry
    fault: Fault | None
    created: int
    price: Price
    chance: int

    @property
    def id(self) -> str:
        return self.entry.generation_id

    @property
    def id_header(self) -> Header:
        return (b"x-generation-id", self.entry.generation_id.encode())


class OpenRouter:
    """Answers requests under `/api/v1`."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self._today = date.min
        self._tomorrow = 0.0

    @staticmethod
    def handles(path: str) -> bool:
        return path.startswith(PREFIX)

    async def handle(self, exchange: Exchange, path: str) -> None:
        method = exchange.scope["method"]
        if path == CHAT:
            if method == "POST":
                return await self.chat(exchange)
            return await exchange.respond(405, wire.error_body(405, "use POST"), wire.JSON, (b"allow", b"POST"))
        if method == "GET":
            found = self._read_only(path, exchange.query)
            if found is not None:
                return await exchange.respond(200, found, wire.JSON)
        return await exchange.respond(404, wire.error_body(404, f"nothing at {method} {path}"), wire.JSON)

    def _read_only(self, path: str, query: bytes) -> bytes | None:
        match path.removeprefix(PREFIX):
            case "/models":
                return catalogue.models(self._day(time.time()))
            case "/key":
                return catalogue.key(self.simulation.ledger.cost_usd)
            case "/generation":
                wanted = parse_qs(query.decode("latin-1")).get("id", [""])[0]
                entry = self.simulation.ledger.find(wanted)
                return catalogue.generation(entry) if entry is not None else None
        return None

    async def chat(self, exchange: Exchange) -> None:
        try:
            body = await exchange.body()
        except Gone:
            return
        except TooLarge:
            await exchange.respond(413, wire.error_body(413, "the request body is too large"), wire.JSON)
            return
        request = read(body)
        if isinstance(request, Unreadable):
            await exchange.respond(400, wire.error_body(400, request.message), wire.JSON)
            return
        request, fault = self._routed(exchange, request)
        turn = self._begun(exchange, request, fault)
        try:
            await self._serve(turn)
        finally:
            self._settle(turn, "disconnected" if exchange.closed else "error")

    def _routed(self, exchange: Exchange, request: ChatRequest) -> tuple[ChatRequest, Fault | None]:
        """Return the request as the model gets it that takes it, and the fault that hits it there."""
        script, seed = self.simulation.script, self.simulation.seed
        if not script.scheduled:
            return request, None
        fault = script.take(request, exchange.headers, seed)
        for model in request.fallbacks:
            if not _falls_over(fault):
                break
            request = replace(request, model=model)
            fault = script.take(request, exchange.headers, seed)
        return request, fault

    def _begun(self, exchange: Exchange, request: ChatRequest, fault: Fault | None) -> _Turn:
        simulation, headers = self.simulation, exchange.headers
        now = time.time()
        created = int(now)
        number = simulation.next_number()
        entry = Entry(
            number=number,
            at=now,
            path=CHAT,
            model=fault.model if isinstance(fault, ServedBy) else request.model,
            kind=request.kind,
            stream=request.stream,
            run=headers.get("x-segue-run"),
            call=headers.get("x-segue-call"),
            attempt=headers.get("x-segue-attempt"),
            asked=request.text[:SHOWN_CHARS],
            generation_id=simulation.generation_id(number, created),
            prompt_tokens=request.prompt_tokens,
            fault=fault.kind if fault is not None else None,
        )
        simulation.ledger.add(entry)
        price = price_of(entry.model, self._day(now))
        return _Turn(exchange, request, entry, fault, created, price, chance_of(request, simulation.seed))

    def _day(self, now: float) -> date:
        """Return today's date; a new one is made only when the day is over."""
        if now >= self._tomorrow:
            self._today = datetime.fromtimestamp(now, UTC).date()
            self._tomorrow = (now // 86_400 + 1) * 86_400
        return self._today

    async def _serve(self, turn: _Turn) -> None:
        fault = turn.fault
        if fault is not None:
            if fault.delay_s and not await turn.exchange.wait(fault.delay_s):
                return
            if await self._failed(turn, fault):
                return
        if turn.request.prompt_tokens > turn.price.context:
            await self._refuse(turn, 400, _too_long(turn), "context_length_exceeded")
            return
        made = _answer(turn)
        waits = NONE
        if self.simulation.profile_name != "zero":
            waits = delays(self.simulation.profile, made.completion_tokens, (turn.chance >> 8) / 2**24)
        if turn.request.stream:
            await self._stream(turn, made, waits)
        else:
            await self._whole(turn, made, waits)

    async def _refuse(
        self, turn: _Turn, status: int, message: str, error_type: str | None = None, *headers: Header, **more: object
    ) -> None:
        code = more.pop("code", None)
        body = wire.error_body(status, message, error_type, code if isinstance(code, int | str) else None, **more)
        turn.entry.status = status
        self._settle(turn, "error")
        await turn.exchange.respond(status, body, wire.JSON, turn.id_header, *headers)

    async def _failed(self, turn: _Turn, fault: Fault) -> bool:
        """Do what a fault does instead of an answer; return False for those that only change the answer."""
        exchange = turn.exchange
        match fault:
            case Status():
                retry = _retry_after(fault.retry_after_s)
                given = [(name.encode(), value.encode()) for name, value in fault.headers.items()]
                message = fault.message or f"{MARK}scripted {fault.status}"
                more: dict[str, object] = {"code": fault.code}
                if fault.fallback_models:
                    more["availability"] = _availability(fault)
                await self._refuse(turn, fault.status, message, fault.error_type, *retry, *given, **more)
            case RateLimit():
                limits = _platform_limits(fault.retry_after_s) if fault.platform else []
                message = f"{MARK}rate limit exceeded"
                await self._refuse(turn, 429, message, None, *_retry_after(fault.retry_after_s), *limits)
            case Timeout():
                stayed = await exchange.wait(fault.for_s)
                turn.entry.disconnected = not stayed
                self._settle(turn, "hung")
                if stayed:
                    await exchange.cut()
            case Reset():
                self._settle(turn, "cut")
                await exchange.reset()
            case Refusal() if fault.how == "status":
                await self._refuse(turn, 400, fault.message, "refusal")
            case Malformed():
                await self._malformed(turn, fault)
            case Empty() if fault.what == "body":
                self._settle(turn, "error", status=200)
                await exchange.respond(200, b"", wire.JSON, turn.id_header)
            case _:
                return False
        return True

    async def _malformed(self, turn: _Turn, fault: Malformed) -> None:
        exchange = turn.exchange
        self._settle(turn, "error", status=200)
        match fault.what:
            case "html":
                page = b"<!doctype html><title>502 Bad Gateway</title><h1>502 Bad Gateway</h1>"
                await exchange.respond(200, page, wire.HTML, turn.id_header)
            case "json" | "event":
                whole = wire.completion(turn.id, turn.created, turn.entry.model, _answer(turn), None)
                if turn.request.stream:
                    event = wire.Chunks(turn.id, turn.created, turn.entry.model).text(f"{MARK}half")
                    garbled = event[: len(event) // 2] + b"\n\n" if fault.what == "json" else b"data: {not json}\n\n"
                    await exchange.start(200, [*wire.EVENTS, turn.id_header])
                    await exchange.write(wire.PROCESSING + garbled + wire.DONE, last=True)
                else:
                    await exchange.respond(200, whole[: len(whole) // 2], wire.JSON, turn.id_header)

    async def _whole(self, turn: _Turn, made: Answer, waits: Delays) -> None:
        exchange, fault, entry = turn.exchange, turn.fault, turn.entry
        used = self._bill(turn, made.completion_tokens, made.reasoning_tokens)
        if waits is not NONE and not await exchange.wait(waits.total_s(made.completion_tokens)):
            return  # the upstream goes on to the end: all of it is billed
        if isinstance(fault, Empty) and fault.what == "choices":
            body = wire.without_choices(turn.id, turn.created, entry.model, used)
        else:
            error = ""
            if isinstance(fault, ErrorIn200 | ErrorInStream):
                error = wire.error(fault.code, fault.message, fault.error_type)
                made = replace(made, text="")
                self._settle(turn, "error", status=200)
            body = wire.completion(turn.id, turn.created, entry.model, made, used, error)
        if isinstance(fault, CutStream):
            await self._cut_whole(turn, body, fault)
            return
        if isinstance(fault, Stall) and not await exchange.wait(fault.for_s):
            entry.disconnected = True
            self._settle(turn, "hung")
            return
        entry.finish_reason = made.finish_reason
        self._settle(turn, "disconnected" if exchange.closed else "answered", status=200)
        await exchange.respond(200, body, wire.JSON, turn.id_header)

    async def _cut_whole(self, turn: _Turn, body: bytes, fault: CutStream) -> None:
        exchange = turn.exchange
        self._settle(turn, "cut", status=200)
        await exchange.start(200, [wire.JSON, turn.id_header, (b"content-length", b"%d" % len(body))])
        await exchange.write(body[: len(body) // 2])
        await (exchange.reset() if fault.how == "reset" else exchange.cut())

    async def _stream(self, turn: _Turn, made: Answer, waits: Delays) -> None:
        exchange, fault, entry = turn.exchange, turn.fault, turn.entry
        chunks = wire.Chunks(turn.id, turn.created, entry.model)
        pieces = wire.pieces(made.text or "", self.simulation.profile.tokens_per_chunk * CHARS_PER_TOKEN)
        ends_at = _ends_after(fault, len(pieces))
        entry.status = 200
        await exchange.start(200, [*wire.EVENTS, turn.id_header])
        if not await self._first_token(turn, waits):
            return
        sent = await self._text(turn, chunks, pieces[:ends_at], waits)
        if sent < min(ends_at, len(pieces)):
            return
        match fault:
            case CutStream():
                self._bill(turn, sum(map(tokens_of, pieces[:sent])), 0)
                await self._cut_stream(turn, fault)
                return
            case ErrorInStream() | ErrorIn200():
                self._bill(turn, sum(map(tokens_of, pieces[:sent])), 0)
                self._settle(turn, "error")
                await exchange.write(chunks.error(wire.error(fault.code, fault.message, fault.error_type)), last=True)
                return
            case Stall():
                if not await exchange.wait(fault.for_s):
                    self._bill(turn, sum(map(tokens_of, pieces[:sent])), 0)
                    entry.disconnected = True
                    self._settle(turn, "hung")
                    return
                if await self._text(turn, chunks, pieces[sent:], waits) < len(pieces) - sent:
                    return
        used = self._bill(turn, made.completion_tokens, made.reasoning_tokens)
        entry.finish_reason = made.finish_reason
        self._settle(turn, "disconnected" if exchange.closed else "answered")
        ending = chunks.text("", made.finish_reason) if not _says_nothing(fault) else b""
        await exchange.write(ending + (chunks.usage(used) if used else b"") + wire.DONE, last=True)

    async def _first_token(self, turn: _Turn, waits: Delays) -> bool:
        """Wait for the first token the way OpenRouter does, with comments; return whether the client does too."""
        exchange = turn.exchange
        left = waits.first_s
        await exchange.write(wire.PROCESSING)
        while left > 0:
            if not await exchange.wait(min(left, COMMENT_EVERY_S)):
                return False
            left -= COMMENT_EVERY_S
            if left > 0:
                await exchange.write(wire.PROCESSING)
        return True

    async def _text(self, turn: _Turn, chunks: wire.Chunks, pieces: Sequence[str], waits: Delays) -> int:
        """Send pieces at the profile's pace; return how many went out before the client went."""
        exchange = turn.exchange
        if not pieces or _says_nothing(turn.fault):
            return len(pieces)
        pause = waits.per_token_s * self.simulation.profile.tokens_per_chunk
        if pause < SMALLEST_WAIT_S:
            if not await exchange.wait(pause * len(pieces)):
                return 0
            await exchange.write(b"".join([chunks.text(piece) for piece in pieces]))
            return len(pieces)
        for place, piece in enumerate(pieces):
            if not await exchange.wait(pause):
                self._bill(turn, sum(map(tokens_of, pieces[:place])), 0)
                return place
            await exchange.write(chunks.text(piece))
        return len(pieces)

    async def _cut_stream(self, turn: _Turn, fault: CutStream) -> None:
        self._settle(turn, "cut")
        match fault.how:
            case "clean":
                await turn.exchange.write(b"", last=True)
            case "close":
                await turn.exchange.cut()
            case "reset":
                await turn.exchange.reset()

    def _bill(self, turn: _Turn, completion_tokens: int, reasoning_tokens: int) -> str | None:
        """Put what was made on the ledger; return the usage object, None where the fault leaves it out."""
        entry, fault = turn.entry, turn.fault
        prompt_usd, completion_usd = cost_usd(turn.price, entry.prompt_tokens, completion_tokens)
        entry.completion_tokens, entry.reasoning_tokens = completion_tokens, reasoning_tokens
        entry.cost_usd = round(prompt_usd + completion_usd, 12)
        special = fault if isinstance(fault, Usage) else None
        if special is not None and special.missing:
            return None
        return wire.usage(
            entry.prompt_tokens,
            completion_tokens,
            reasoning_tokens,
            prompt_usd,
            completion_usd,
            cached_tokens=min(special.cached_tokens, entry.prompt_tokens) if special is not None else 0,
            with_cost=special is None or not special.without_cost,
        )

    def _settle(self, turn: _Turn, outcome: Outcome, status: int | None = None) -> None:
        entry = turn.entry
        if status is not None:
            entry.status = status
        if outcome == "disconnected" and entry.outcome == "open":
            entry.disconnected = True
        self.simulation.ledger.settle(entry, outcome, time.time())


def _answer(turn: _Turn) -> Answer:
    """Return what is said, as the fault changes it."""
    request, fault = turn.request, turn.fault
    match fault:
        case Scripted():
            return measured(Answer(fault.text, fault.finish_reason), request.max_tokens)
        case WrongLetter():
            return measured(Answer(fault.text), request.max_tokens)
        case Empty():
            return Answer(None if fault.what in ("null", "choices") else "")
        case Oversized():
            filler = f"{MARK}{'lorem ipsum ' * (fault.bytes // 12 + 1)}"[: fault.bytes]
            return measured(Answer(filler), None)
        case Refusal():
            return measured(Answer(fault.message, "content_filter", refusal=fault.message), request.max_tokens)
        case InvalidPlan():
            return answer(request, turn.chance, reasons=turn.price.reasons, broken_plan=fault.how)
    return answer(request, turn.chance, reasons=turn.price.reasons)


def _ends_after(fault: Fault | None, pieces: int) -> int:
    """Return how many pieces go out before a fault in mid-stream."""
    match fault:
        case CutStream() | ErrorInStream() | Stall():
            return min(fault.after_chunks, pieces)
        case ErrorIn200():
            return 0
    return pieces


def _says_nothing(fault: Fault | None) -> bool:
    return isinstance(fault, Empty) and fault.what == "choices"


def _falls_over(fault: Fault | None) -> bool:
    return isinstance(fault, RateLimit) or (isinstance(fault, Status) and fault.status in FALLS_OVER)


def _retry_after(seconds: float | None) -> list[Header]:
    return [] if seconds is None else [(b"retry-after", f"{seconds:g}".encode())]


def _platform_limits(seconds: float | None) -> list[Header]:
    reset_ms = int((time.time() + (seconds or 60)) * 1000)
    return [(b"x-ratelimit-limit", b"60"), (b"x-ratelimit-remaining", b"0"), (b"x-ratelimit-reset", b"%d" % reset_ms)]


def _availability(fault: Status) -> dict[str, object]:
    return {
        "code": fault.error_type or wire.ERROR_TYPES.get(fault.status, "server"),
        "retryable": fault.status in FALLS_OVER,
        "retry_after": fault.retry_after_s,
        "fallback_models": list(fault.fallback_models),
    }


def _too_long(turn: _Turn) -> str:
    return (
        f"{MARK}this model's maximum context length is {turn.price.context} tokens; the messages are about "
        f"{turn.request.prompt_tokens}"
    )
