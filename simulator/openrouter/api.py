"""The paths under `/api/v1`: which request is which."""

import time
from typing import Final
from urllib.parse import parse_qs

from simulator.chat_request import Unreadable, read
from simulator.exchange import JSON, Exchange, Gone, TooLarge
from simulator.openrouter import catalogue, wire
from simulator.openrouter.delivery import at_once, serve
from simulator.openrouter.media import Media
from simulator.openrouter.turn import CHAT, PREFIX, begin
from simulator.simulation import Simulation

_READABLE: Final = {f"{PREFIX}/models", f"{PREFIX}/key", f"{PREFIX}/generation", f"{PREFIX}/generations"}


class OpenRouter:
    """Answers requests under `/api/v1`."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self._media = Media(simulation)

    @staticmethod
    def handles(path: str) -> bool:
        return path.startswith(PREFIX)

    async def handle(self, exchange: Exchange, path: str) -> None:
        method = exchange.method
        if path == CHAT and method == "POST":
            await self._chat(exchange)
        elif self._media.handles(path):
            await self._media.handle(exchange, path)
        elif path in _READABLE and method == "GET":
            await self._shown(exchange, path)
        elif path == CHAT or path in _READABLE:
            allowed = b"POST" if path == CHAT else b"GET"
            body = wire.error_body(405, f"use {allowed.decode()}", "method_not_allowed")
            await exchange.respond(405, body, JSON, (b"allow", allowed))
        else:
            await exchange.respond(404, wire.error_body(404, f"nothing at {method} {path}"), JSON)

    async def _shown(self, exchange: Exchange, path: str) -> None:
        match path.removeprefix(PREFIX):
            case "/models":
                await exchange.respond(200, catalogue.models(self.simulation.day(time.time())), JSON)
            case "/key":
                await exchange.respond(200, catalogue.key(self.simulation.ledger.cost_usd), JSON)
            case "/generations":
                await self._tagged(exchange)
            case _:
                wanted = parse_qs(exchange.query.decode("latin-1")).get("id", [""])[0]
                entry = self.simulation.ledger.find(wanted)
                if entry is None:
                    await exchange.respond(404, wire.error_body(404, f"generation {wanted!r} not found"), JSON)
                else:
                    await exchange.respond(200, catalogue.generation(entry), JSON)

    async def _tagged(self, exchange: Exchange) -> None:
        """Say what became of an attempt: of the requests whose tags name it."""
        given = {name: values[-1] for name, values in parse_qs(exchange.query.decode("latin-1")).items()}
        if given.keys() != {"run", "call", "attempt"}:
            message = "generations are asked for by ?run=, &call= and &attempt=, as the request's X-Segue headers said"
            await exchange.respond(400, wire.error_body(400, message), JSON)
            return
        ledger = self.simulation.ledger
        found = ledger.tagged(given["run"], given["call"], given["attempt"])
        await exchange.respond(200, catalogue.generations(found, ledger.complete_since), JSON)

    async def _chat(self, exchange: Exchange) -> None:
        try:
            body = await exchange.body()
        except Gone:
            return
        except TooLarge:
            await exchange.respond(413, wire.error_body(413, "the request body is too large"), JSON)
            return
        request = read(body)
        if isinstance(request, Unreadable):
            await exchange.respond(400, wire.error_body(400, request.message), JSON)
            return
        turn = begin(self.simulation, exchange, request)
        whole = at_once(turn)
        if whole is not None:
            await exchange.respond(200, whole, JSON, turn.id_header)
            return
        try:
            await serve(turn)
        finally:  # the client went before a delay, a first token or a piece
            turn.settle("disconnected")
