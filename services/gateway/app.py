"""The only place of the gateway that constructs things."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic

from fastapi import FastAPI
from starlette.types import ASGIApp

from services.gateway.draining import on_signal
from services.gateway.gateway import Gateway
from services.gateway.http import catalogue, chat, errors, probes, sessions, workflows
from services.gateway.http.body_cap import BodyCap
from services.gateway.http.envelope import Envelope
from services.gateway.listings import Listings
from services.gateway.runs import Runs
from services.gateway.waiting import Waiting
from shared.bus.connection import Bus
from shared.service import DRAIN_S, Service, Work

NAME = "gateway"

ANSWERED_BEFORE_END_S = 2.0
"""Whoever still waits this long before the server cuts connections is told so instead."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What this process takes at most."""

    body_bytes: int = 16 * 1024 * 1024
    waiting: int = 4_000

    @classmethod
    def read(cls, variables: Mapping[str, str]) -> "Bounds":
        """Read SEGUE_MAX_BODY_BYTES and SEGUE_MAX_WAITING. Raises `ValueError` that names the variable."""
        return cls(
            body_bytes=_positive(variables, "SEGUE_MAX_BODY_BYTES", cls().body_bytes),
            waiting=_positive(variables, "SEGUE_MAX_WAITING", cls().waiting),
        )


def _positive(variables: Mapping[str, str], name: str, default: int) -> int:
    value = variables.get(name, "")
    if not value:
        return default
    if not value.isascii() or not value.isdigit() or int(value) < 1:
        raise ValueError(f"{name} is {value!r}; it must be a whole number of at least 1")
    return int(value)


def application(nats_url: str, listings: Listings, bounds: Bounds) -> ASGIApp:
    """Return the ASGI application. Its lifespan connects, serves and drains."""
    waiting = Waiting(bounds.waiting)

    async def assemble(bus: Bus) -> Work:
        runs = Runs(bus=bus, now=lambda: datetime.now(UTC))
        app.state.gateway = Gateway(
            bus=bus,
            runs=runs,
            waiting=waiting,
            listings=listings,
            catalogue=listings.catalogue(),
            health=service.health,
            started_at=monotonic(),
        )
        return Work()

    service = Service(NAME, nats_url, assemble)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()

        def drain() -> None:
            service.health.draining = True
            waiting.stop_at(loop.time() + DRAIN_S - ANSWERED_BEFORE_END_S)

        await service.broker.connect()
        await service.start()
        try:
            with on_signal(drain):
                yield
        finally:
            await service.stop()
            await service.broker.stop()

    app = FastAPI(
        title=listings.name,
        version=listings.version,
        description="Durable AI orchestration over NATS: categorised, planned, executed and answered exactly once.",
        lifespan=lifespan,
    )
    errors.install(app)
    for part in (chat, workflows, sessions, catalogue, probes):
        app.include_router(part.router)
    return Envelope(BodyCap(app, bounds.body_bytes))
