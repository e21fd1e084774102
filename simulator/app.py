"""The composition root: one bare ASGI application out of the protocols and the admin API."""

from typing import Final

from simulator.admin import Admin
from simulator.exchange import JSON, Exchange, Receive, Scope, Send
from simulator.google.api import Google
from simulator.latency import PROFILES
from simulator.openrouter.api import OpenRouter
from simulator.simulation import Simulation

HEALTHY: Final = b'{"status":"ok","simulated":true}'
NOTHING: Final = b'{"detail":"nothing here; there are /api/v1, /v1beta, /__sim/ and /healthz"}'


class App:
    """Routes by path, the chat first. A framework would cost more than the answer."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self._rooms = (OpenRouter(simulation), Google(simulation), Admin(simulation))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        exchange = Exchange(scope, receive, send)
        path: str = scope["path"]
        for room in self._rooms:
            if room.handles(path):
                await room.handle(exchange, path)
                return
        if path == "/healthz":
            await exchange.respond(200, HEALTHY, JSON)
        else:
            await exchange.respond(404, NOTHING, JSON)


def build(*, profile: str = "fast", seed: int = 1) -> App:
    """Return the application, to be served by uvicorn with `simulator.transport.ReachableProtocol`.

    Raises `KeyError` for a profile that is not known.
    """
    return App(Simulation(seed=seed, profile=PROFILES[profile], profile_name=profile))
