"""How an answer gets to the client: whole or as a stream, at the profile's pace, up to where a fault ends it."""

from collections.abc import Sequence
from typing import Final

from simulator.answers import MARK, Answer, answer, measured
from simulator.chat_request import CHARS_PER_TOKEN, tokens_of
from simulator.exchange import JSON
from simulator.faults import (
    CutStream,
    Empty,
    ErrorIn200,
    ErrorInStream,
    Fault,
    InvalidPlan,
    Oversized,
    Refusal,
    Scripted,
    Stall,
    WrongLetter,
)
from simulator.latency import NONE, Delays, delays
from simulator.openrouter import wire
from simulator.openrouter.failures import fail
from simulator.openrouter.turn import Turn

COMMENT_EVERY_S: Final = 1.0
SMALLEST_WAIT_S: Final = 0.002
"""Pieces that would follow each other faster than this are sent together."""


def at_once(turn: Turn) -> bytes | None:
    """Return the whole answer of a request that nothing delays and nothing hits: the short way; None for any other."""
    request = turn.request
    if turn.fault is not None or request.stream or turn.simulation.profile.waits:
        return None
    if request.prompt_tokens > turn.price.context:
        return None
    made = answer(request, turn.chance, reasons=turn.price.reasons)
    used = turn.bill(made.completion_tokens, made.reasoning_tokens)
    turn.entry.finish_reason = made.finish_reason
    turn.settle("answered", 200)
    return wire.completion(turn.id, turn.created, turn.entry.model, made, used)


async def serve(turn: Turn) -> None:
    """Answer a request, or do what its fault does instead."""
    fault = turn.fault
    if fault is not None:
        if fault.delay_s and not await turn.exchange.wait(fault.delay_s):
            return
        if await fail(turn, fault):
            return
    if turn.request.prompt_tokens > turn.price.context:
        await turn.refuse(400, _too_long(turn), "context_length_exceeded")
        return
    made = made_of(turn)
    profile = turn.simulation.profile
    waits = delays(profile, made.completion_tokens, (turn.chance >> 8) / 2**24) if profile.waits else NONE
    if turn.request.stream:
        await _stream(turn, made, waits)
    else:
        await _whole(turn, made, waits)


def made_of(turn: Turn) -> Answer:
    """Return what is said, as the fault changes it."""
    request, fault = turn.request, turn.fault
    match fault:
        case None:
            return answer(request, turn.chance, reasons=turn.price.reasons)
        case Scripted():
            return measured(Answer(fault.text, fault.finish_reason), request.max_tokens)
        case WrongLetter():
            return measured(Answer(fault.text), request.max_tokens)
        case Empty():
            return Answer(None if fault.what in ("null", "choices") else "")
        case Oversized():
            return measured(Answer(f"{MARK}{'lorem ipsum ' * (fault.bytes // 12 + 1)}"[: fault.bytes]), None)
        case Refusal():
            return measured(Answer(fault.message, "content_filter", refusal=fault.message), request.max_tokens)
        case InvalidPlan():
            return answer(request, turn.chance, reasons=turn.price.reasons, broken_plan=fault.how)
    return answer(request, turn.chance, reasons=turn.price.reasons)


def _too_long(turn: Turn) -> str:
    return (
        f"{MARK}this model's maximum context length is {turn.price.context} tokens; the messages are about "
        f"{turn.request.prompt_tokens}"
    )


async def _whole(turn: Turn, made: Answer, waits: Delays) -> None:
    exchange, fault, model = turn.exchange, turn.fault, turn.entry.model
    used = turn.bill(made.completion_tokens, made.reasoning_tokens)  # all of it, even when the client goes
    if waits is not NONE and not await exchange.wait(waits.total_s(made.completion_tokens)):
        return
    match fault:
        case Empty(what="choices"):
            body = wire.without_choices(turn.id, turn.created, model, used)
        case ErrorIn200() | ErrorInStream():
            error = wire.error(fault.code, fault.message, fault.error_type)
            body = wire.completion(turn.id, turn.created, model, made._replace(text=""), used, error)
            turn.settle("error", 200)
        case CutStream():
            await _cut_whole(turn, wire.completion(turn.id, turn.created, model, made, used), fault)
            return
        case Stall() if not await exchange.wait(fault.for_s):
            turn.entry.disconnected = True
            turn.settle("hung")
            return
        case _:
            body = wire.completion(turn.id, turn.created, model, made, used)
    turn.entry.finish_reason = made.finish_reason
    turn.settle("answered", 200)
    await exchange.respond(200, body, JSON, turn.id_header)


async def _cut_whole(turn: Turn, body: bytes, fault: CutStream) -> None:
    exchange = turn.exchange
    turn.settle("cut", 200)
    await exchange.start(200, [JSON, turn.id_header, (b"content-length", b"%d" % len(body))])
    await exchange.write(body[: len(body) // 2])
    await (exchange.reset() if fault.how == "reset" else exchange.cut())


async def _stream(turn: Turn, made: Answer, waits: Delays) -> None:
    exchange, fault = turn.exchange, turn.fault
    chunks = wire.Chunks(turn.id, turn.created, turn.entry.model)
    says_nothing = isinstance(fault, Empty) and fault.what == "choices"
    text = "" if says_nothing else made.text or ""
    pieces = wire.pieces(text, turn.simulation.profile.tokens_per_chunk * CHARS_PER_TOKEN)
    turn.entry.status = 200
    await exchange.start(200, [*wire.EVENTS, turn.id_header])
    if fault is None and waits is NONE:
        texts = [chunks.text(piece) for piece in pieces]
        await exchange.write(b"".join([wire.PROCESSING, *texts, _ending(turn, chunks, made)]), last=True)
        return
    if not await _first_token(turn, waits):
        return
    before = _ends_after(fault, len(pieces))
    if not await _text(turn, chunks, pieces, 0, before, waits):
        return
    match fault:
        case CutStream() | ErrorInStream() | ErrorIn200():
            if before or isinstance(fault, CutStream):  # an error before the first piece costs nothing
                turn.bill(_tokens(pieces[:before]))
            await _broken(turn, chunks, fault)
            return
        case Stall():
            if not await exchange.wait(fault.for_s):
                turn.bill(_tokens(pieces[:before]))
                turn.entry.disconnected = True
                turn.settle("hung")
                return
            if not await _text(turn, chunks, pieces, before, len(pieces), waits):
                return
    await exchange.write(_ending(turn, chunks, made, says_nothing=says_nothing), last=True)


def _ending(turn: Turn, chunks: wire.Chunks, made: Answer, *, says_nothing: bool = False) -> bytes:
    """Bill and settle; return the events that end a stream."""
    used = turn.bill(made.completion_tokens, made.reasoning_tokens)
    turn.entry.finish_reason = made.finish_reason
    turn.settle("answered", 200)
    finish = b"" if says_nothing else chunks.text("", made.finish_reason)
    return finish + (chunks.usage(used) if used else b"") + wire.DONE


def _ends_after(fault: Fault | None, pieces: int) -> int:
    """Return how many pieces go out before a fault in mid-stream."""
    match fault:
        case CutStream() | ErrorInStream() | Stall():
            return min(fault.after_chunks, pieces)
        case ErrorIn200():
            return 0
    return pieces


def _tokens(pieces: Sequence[str]) -> int:
    return sum(map(tokens_of, pieces))


async def _broken(turn: Turn, chunks: wire.Chunks, fault: CutStream | ErrorInStream | ErrorIn200) -> None:
    """End a stream as the fault says."""
    exchange = turn.exchange
    if not isinstance(fault, CutStream):
        turn.settle("error")
        error = wire.error(fault.code, fault.message, fault.error_type)
        await exchange.write(chunks.error(error), last=True)
        return
    turn.settle("cut")
    match fault.how:
        case "clean":
            await exchange.write(b"", last=True)
        case "close":
            await exchange.cut()
        case "reset":
            await exchange.reset()


async def _first_token(turn: Turn, waits: Delays) -> bool:
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


async def _text(turn: Turn, chunks: wire.Chunks, pieces: Sequence[str], start: int, end: int, waits: Delays) -> bool:
    """Send pieces at the profile's pace; return False, with what went out billed, when the client goes."""
    exchange = turn.exchange
    pause = waits.per_token_s * turn.simulation.profile.tokens_per_chunk
    together = max(1, end - start) if pause < SMALLEST_WAIT_S else 1
    for place in range(start, end, together):
        if not await exchange.wait(pause * together):
            turn.bill(_tokens(pieces[:place]))
            return False
        await exchange.write(b"".join([chunks.text(piece) for piece in pieces[place : min(place + together, end)]]))
    return True
