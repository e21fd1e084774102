"""The shell that every service runs in: FastStream around its work, health, metrics, a graceful end.

A service's `app.py` says what to build once the bus is there (`Assemble`); this module connects, serves
`/healthz`, `/readyz` and `/metrics`, and drains on SIGTERM.
"""

import asyncio
import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from faststream.asgi import AsgiFastStream, AsgiResponse, get
from faststream.asgi.types import Scope
from faststream.nats import NatsBroker
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from shared import subjects, version
from shared.bus.connection import Bus, open_bus, options
from shared.bus.delivery import Delivery
from shared.bus.pull import StandingPull
from shared.config import ConfigInvalid, Configuration, load
from shared.config.environment import Environment
from shared.observe import logs, metrics
from shared.topology import Feed

log = logging.getLogger("segue.service")

DRAIN_S = 15.0
WATCH_S = 5.0
CANARY_MAX_AGE_S = 2.0
CANARY_TTL = {"Nats-TTL": "60s"}
KEEP_ALIVE_S = 75
"""How long an idle connection is kept. Longer than clients and proxies keep theirs (httpx and uvicorn 5 s, nginx 60 s):
when both sides let go at the same moment, a request that is just being sent is lost without an answer."""

MOST_SOCKET_BYTES = 4 * 1024 * 1024
"""Of a WebSocket's message: a larger one ends the connection with 1009 before it is read."""


@dataclass(slots=True)
class Work:
    """What a service does, as its `app.py` assembled it."""

    pulls: Sequence[StandingPull] = ()
    feeds: Sequence[Feed] = ()
    """For the pending gauges."""
    close: Sequence[Callable[[], Awaitable[None]]] = ()


Assemble = Callable[[Bus], Awaitable[Work]]


@dataclass(slots=True)
class Health:
    """Whether this process does its work: connected, its consumers there, and the log takes a write."""

    service: str
    bus: Bus | None = None
    work: Work = field(default_factory=Work)
    draining: bool = False
    _checked_at: float = 0.0
    _problem: str | None = "starting"

    async def problem(self) -> str | None:
        """Return what keeps this process from working, None when nothing does. One canary write in 2 s at most."""
        if self.draining:
            return "draining"
        if self.bus is None:
            return "not connected to NATS yet"
        if not self.bus.client.is_connected:
            return "not connected to NATS"
        for pull in self.work.pulls:
            if not pull.healthy:
                return f"pull {pull.name!r} has not heard from its consumers"
        if time.monotonic() - self._checked_at > CANARY_MAX_AGE_S:
            self._problem = await self._canary()
            self._checked_at = time.monotonic()
        return self._problem

    async def _canary(self) -> str | None:
        assert self.bus is not None
        try:
            answer = await self.bus.jetstream.request(
                subjects.canary(self.service), b"", headers=CANARY_TTL, timeout_s=1.5
            )
        except TimeoutError:
            return "the log did not take a write within 1.5 s"
        error = json.loads(answer.data or b'{"error": {"description": "stream EVENTS is not there"}}').get("error")
        return None if error is None else f"the log refused a write: {error.get('description')}"


class Service:
    """One process of one service."""

    def __init__(self, name: str, nats_url: str, assemble: Assemble) -> None:
        self.name = name
        self.health = Health(name)
        self.broker = NatsBroker(
            **options(nats_url, f"segue-{name}", reconnected=self._reconnected), logger=None, graceful_timeout=DRAIN_S
        )
        self._assemble = assemble
        self._watcher: asyncio.Task[None] | None = None
        metrics.BUILD.labels(name, version()).set(1)

    def asgi(self) -> AsgiFastStream:
        """Return the ASGI application: FastStream with the health routes, starting and draining the work."""
        return AsgiFastStream(
            self.broker,
            asgi_routes=[("/healthz", self._healthz()), ("/readyz", self._readyz()), ("/metrics", _metrics())],
            after_startup=[self.start],
            on_shutdown=[self.stop],
            logger=None,
        )

    async def start(self) -> None:
        """Bind to the bus and begin. The broker is connected."""
        bus = await open_bus(self.broker.connection)
        self.health.bus = bus
        self.health.work = await self._assemble(bus)
        for pull in self.health.work.pulls:
            bus.on_reconnect.append(pull.on_reconnect)
            await pull.start()
        self._watcher = asyncio.create_task(self._watch(bus))
        log.info("service.started", extra={"pid": os.getpid(), "version": version()})

    async def stop(self) -> None:
        """Take nothing more, finish what runs, give back what has not begun."""
        self.health.draining = True
        log.info("service.draining")
        await asyncio.gather(*(pull.drain(DRAIN_S) for pull in self.health.work.pulls))
        for close in self.health.work.close:
            await close()
        if self._watcher is not None:
            self._watcher.cancel()
        log.info("service.stopped")

    async def _reconnected(self) -> None:
        metrics.RECONNECTS.labels(self.name).inc()
        if self.health.bus is not None:
            await self.health.bus.reconnected()

    async def _watch(self, bus: Bus) -> None:
        """Keep the gauges of connection, backlog and loop lag."""
        loop = asyncio.get_running_loop()
        jetstream = bus.client.jetstream(timeout=2)
        written = 0
        while True:
            due = loop.time() + WATCH_S
            await asyncio.sleep(WATCH_S)
            metrics.LOOP_LAG_SECONDS.labels(self.name).set(max(0.0, loop.time() - due))
            metrics.CONNECTED.labels(self.name).set(1 if bus.client.is_connected else 0)
            metrics.DURABLE_WRITES.labels(self.name).inc(bus.jetstream.publishes - written)
            written = bus.jetstream.publishes
            for pull in self.health.work.pulls:
                metrics.RUNNING.labels(self.name, pull.name).set(pull.running)
                metrics.PLACES.labels(self.name, pull.name).set(pull.places)
            for feed in self.health.work.feeds:
                with contextlib.suppress(Exception):  # a gauge: the next round tries again, readiness reports the fault
                    info = await jetstream.consumer_info(feed.stream, feed.durable)
                    metrics.PENDING.labels(self.name, feed.durable).set(info.num_pending or 0)
                    metrics.ACK_PENDING.labels(self.name, feed.durable).set(info.num_ack_pending or 0)

    def _healthz(self) -> Any:
        @get
        async def healthz(scope: Scope) -> AsgiResponse:
            return _json(200, {"status": "alive", "service": self.name, "version": version()})

        return healthz

    def _readyz(self) -> Any:
        @get
        async def readyz(scope: Scope) -> AsgiResponse:
            problem = await self.health.problem()
            status = {"status": "ready" if problem is None else "not ready", "service": self.name}
            return _json(200 if problem is None else 503, status if problem is None else {**status, "problem": problem})

        return readyz


def _metrics() -> Any:
    @get
    async def metrics_page(scope: Scope) -> AsgiResponse:
        return AsgiResponse(generate_latest(), 200, headers={"content-type": CONTENT_TYPE_LATEST})

    return metrics_page


def _json(status: int, body: dict[str, Any]) -> AsgiResponse:
    return AsgiResponse(json.dumps(body).encode(), status, headers={"content-type": "application/json"})


async def bury(bus: Bus, service: str, delivery: Delivery, reason: str) -> None:
    """Store a message that cannot be dealt with, whole, with why and where it came from."""
    headers = {
        **(delivery.headers or {}),
        "Segue-Reason": " ".join(reason.split())[:2000],
        "Segue-Subject": delivery.subject,
        "Segue-Stream-Seq": str(delivery.stream_seq),
    }
    kept = {name: value for name, value in headers.items() if not name.startswith("Nats-")}
    await bus.jetstream.publish(subjects.dead(service), delivery.data, headers=kept)
    metrics.DEAD_LETTERS.labels(service, "buried").inc()
    log.error("message.buried", extra={"subject": delivery.subject, "reason": reason})


def run(name: str, port: int, build: Callable[[Environment, Configuration], "Service"]) -> None:
    """Run a service until SIGTERM, or say what is wrong with its environment or configuration and exit with 1."""
    try:
        environment = Environment.read(os.environ)
        configuration = load().configuration
        service = build(environment, configuration)
    except ConfigInvalid as invalid:
        sys.exit(f"{name} does not start: {invalid}")
    serve(
        service.asgi(),
        service=name,
        host=environment.host,
        port=environment.health_port or port,
        log_level=environment.level(configuration.log_level),
    )


def serve(
    app: Any, *, service: str, host: str, port: int, log_level: str, http: type[asyncio.Protocol] | None = None
) -> None:
    """Run an ASGI application until SIGTERM or Ctrl-C, on uvloop where there is one. `http`: reads connections."""
    logs.configure(service, log_level)
    try:
        uvicorn.run(
            app,
            host=host,
            port=port,
            http=http or "auto",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            ws_max_size=MOST_SOCKET_BYTES,
            ws_per_message_deflate=False,  # 300 KB a connection, and more time than it saves for small pieces of text
            timeout_graceful_shutdown=int(DRAIN_S),
        )
    except KeyboardInterrupt:
        log.info("service.interrupted")
