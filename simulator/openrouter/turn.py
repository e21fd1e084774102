"""One chat request on its way to its answer: who takes it, what it costs, what the ledger says of it."""

import time
from typing import Final

from simulator.answers import chance_of
from simulator.chat_request import ChatRequest
from simulator.exchange import JSON, Exchange, Header
from simulator.faults import Fault, RateLimit, ServedBy, Status, Usage
from simulator.ledger import SHOWN_CHARS, Entry, Outcome
from simulator.openrouter import wire
from simulator.prices import Price, cost_usd, price_of
from simulator.simulation import Simulation

PREFIX: Final = "/api/v1"
CHAT: Final = f"{PREFIX}/chat/completions"
FALLS_OVER: Final = frozenset({404, 408, 429, 500, 502, 503, 504})
"""Statuses at which OpenRouter goes on to the next of `models` by itself."""


class Turn:
    """A chat request, its entry in the ledger, the fault that hits it, the price it has."""

    __slots__ = ("chance", "created", "entry", "exchange", "fault", "price", "request", "simulation")

    def __init__(
        self,
        simulation: Simulation,
        exchange: Exchange,
        request: ChatRequest,
        entry: Entry,
        fault: Fault | None,
        price: Price,
    ) -> None:
        self.simulation, self.exchange, self.request = simulation, exchange, request
        self.entry, self.fault, self.price = entry, fault, price
        self.created = int(entry.at)
        self.chance = chance_of(request, simulation.seed)

    @property
    def id(self) -> str:
        return self.entry.generation_id

    @property
    def id_header(self) -> Header:
        return (b"x-generation-id", self.entry.generation_id.encode())

    def bill(self, completion_tokens: int, reasoning_tokens: int = 0) -> str | None:
        """Put what was made on the ledger; return the usage object, None where the fault leaves it out."""
        entry = self.entry
        prompt_usd, completion_usd = cost_usd(self.price, entry.prompt_tokens, completion_tokens)
        entry.completion_tokens, entry.reasoning_tokens = completion_tokens, reasoning_tokens
        entry.cost_usd = round(prompt_usd + completion_usd, 12)
        cached_tokens, with_cost = 0, True
        if isinstance(self.fault, Usage):
            if self.fault.missing:
                return None
            cached_tokens, with_cost = min(self.fault.cached_tokens, entry.prompt_tokens), not self.fault.without_cost
        return wire.usage(
            entry.prompt_tokens,
            completion_tokens,
            reasoning_tokens,
            prompt_usd,
            completion_usd,
            cached_tokens=cached_tokens,
            with_cost=with_cost,
        )

    def settle(self, outcome: Outcome, status: int | None = None) -> None:
        """Give the entry its end; the first end stays. A client that is gone by then has not got an answer."""
        entry = self.entry
        if entry.outcome != "open":
            return
        if status is not None:
            entry.status = status
        if outcome == "answered" and self.exchange.closed:
            outcome = "disconnected"
        if outcome == "disconnected":
            entry.disconnected = True
        self.simulation.ledger.settle(entry, outcome, time.time())

    async def refuse(
        self,
        status: int,
        message: str,
        error_type: str | None = None,
        *headers: Header,
        code: int | str | None = None,
        **more: object,
    ) -> None:
        """Answer with an error status."""
        self.settle("error", status)
        body = wire.error_body(status, message, error_type, code, **more)
        await self.exchange.respond(status, body, JSON, self.id_header, *headers)


def begin(simulation: Simulation, exchange: Exchange, request: ChatRequest, path: str = CHAT) -> Turn:
    """Put a request on the ledger, find the model that takes it and the fault that hits it there."""
    now = time.time()
    fault: Fault | None = None
    if simulation.script.scheduled:
        request, fault = _routed(simulation, exchange, request)
    run, call, attempt = _tags(exchange)
    number = simulation.next_number()
    entry = Entry(
        number=number,
        at=now,
        path=path,
        model=fault.model if isinstance(fault, ServedBy) else request.model,
        kind=request.kind,
        stream=request.stream,
        run=run,
        call=call,
        attempt=attempt,
        asked=request.text[:SHOWN_CHARS],
        generation_id=simulation.generation_id(number, int(now)),
        prompt_tokens=request.prompt_tokens,
        fault=fault.kind if fault is not None else None,
    )
    simulation.ledger.add(entry)
    return Turn(simulation, exchange, request, entry, fault, price_of(entry.model, simulation.day(now)))


def _routed(simulation: Simulation, exchange: Exchange, request: ChatRequest) -> tuple[ChatRequest, Fault | None]:
    headers = exchange.headers
    fault = simulation.script.take(request, headers, simulation.seed)
    for model in request.fallbacks:
        if not _falls_over(fault):
            break
        request = request._replace(model=model)
        fault = simulation.script.take(request, headers, simulation.seed)
    return request, fault


def _falls_over(fault: Fault | None) -> bool:
    return isinstance(fault, RateLimit) or (isinstance(fault, Status) and fault.status in FALLS_OVER)


def _tags(exchange: Exchange) -> tuple[str | None, str | None, str | None]:
    """Return the caller's own names for this: run, call, attempt."""
    headers = dict(exchange.raw_headers)
    run, call, attempt = headers.get(b"x-segue-run"), headers.get(b"x-segue-call"), headers.get(b"x-segue-attempt")
    return (
        run.decode("latin-1") if run is not None else None,
        call.decode("latin-1") if call is not None else None,
        attempt.decode("latin-1") if attempt is not None else None,
    )
