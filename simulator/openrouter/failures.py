"""What happens instead of an answer when a fault says so."""

import time
from typing import Final

from simulator.answers import MARK, Answer
from simulator.exchange import JSON, Header
from simulator.faults import Empty, Fault, Malformed, RateLimit, Refusal, Reset, Status, Timeout
from simulator.openrouter import wire
from simulator.openrouter.turn import FALLS_OVER, Turn

HTML: Final = (b"content-type", b"text/html; charset=utf-8")
PAGE: Final = b"<!doctype html><title>502 Bad Gateway</title><h1>502 Bad Gateway</h1>"


async def fail(turn: Turn, fault: Fault) -> bool:
    """Do what a fault does instead of an answer; return False for those that only change the answer."""
    match fault:
        case Status():
            await _status(turn, fault)
        case RateLimit():
            limits = _platform_limits(fault.retry_after_s) if fault.platform else []
            await turn.refuse(429, f"{MARK}rate limit exceeded", None, *_retry_after(fault.retry_after_s), *limits)
        case Timeout():
            await _hang(turn, fault)
        case Reset():
            turn.settle("cut")
            await turn.exchange.reset()
        case Refusal() if fault.how == "status":
            await turn.refuse(400, fault.message, "refusal")
        case Malformed():
            await _malformed(turn, fault)
        case Empty() if fault.what == "body":
            turn.settle("error", 200)
            await turn.exchange.respond(200, b"", JSON, turn.id_header)
        case _:
            return False
    return True


async def _status(turn: Turn, fault: Status) -> None:
    given = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in fault.headers.items()]
    more: dict[str, object] = {"availability": _availability(fault)} if fault.fallback_models else {}
    await turn.refuse(
        fault.status,
        fault.message or f"{MARK}scripted {fault.status}",
        fault.error_type,
        *_retry_after(fault.retry_after_s),
        *given,
        code=fault.code,
        **more,
    )


def _availability(fault: Status) -> dict[str, object]:
    return {
        "code": fault.error_type or wire.error_type_of(fault.status),
        "retryable": fault.status in FALLS_OVER,
        "retry_after": fault.retry_after_s,
        "fallback_models": list(fault.fallback_models),
    }


async def _hang(turn: Turn, fault: Timeout) -> None:
    stayed = await turn.exchange.wait(fault.for_s)
    turn.entry.disconnected = not stayed
    turn.settle("hung")
    if stayed:
        await turn.exchange.cut()


async def _malformed(turn: Turn, fault: Malformed) -> None:
    turn.settle("error", 200)
    exchange, model = turn.exchange, turn.entry.model
    if fault.what == "html":
        await exchange.respond(200, PAGE, HTML, turn.id_header)
    elif turn.request.stream:
        event = wire.Chunks(turn.id, turn.created, model).text(f"{MARK}half of an event")
        garbled = event[: len(event) // 2] + b"\n\n" if fault.what == "json" else b"data: {not json}\n\n"
        await exchange.start(200, [*wire.EVENTS, turn.id_header])
        await exchange.write(wire.PROCESSING + garbled + wire.DONE, last=True)
    else:
        whole = wire.completion(turn.id, turn.created, model, Answer(f"{MARK}half of an answer"), None)
        await exchange.respond(200, whole[: len(whole) // 2], JSON, turn.id_header)


def _retry_after(seconds: float | None) -> list[Header]:
    return [] if seconds is None else [(b"retry-after", f"{seconds:g}".encode())]


def _platform_limits(seconds: float | None) -> list[Header]:
    reset_ms = int((time.time() + (seconds if seconds is not None else 60)) * 1000)
    return [(b"x-ratelimit-limit", b"60"), (b"x-ratelimit-remaining", b"0"), (b"x-ratelimit-reset", b"%d" % reset_ms)]
