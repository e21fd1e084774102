"""One connection to NATS and everything that a service does over it."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from nats.aio.client import Client

from shared.bus.buckets import Bucket
from shared.bus.hearing import Switchboard
from shared.bus.jetstream import JetStream
from shared.bus.live import Live
from shared.bus.log import Log
from shared.bus.objects import Objects
from shared.bus.payloads import Payloads
from shared.permissions import INBOX
from shared.topology import ARTIFACTS, BREAKERS, BUDGETS, CACHE, KEYS, LIMITS, REGISTRY, RUNS, SESSIONS

log = logging.getLogger("segue.bus")


def options(url: str, name: str, *, reconnected: Callable[[], Awaitable[None]]) -> dict[str, Any]:
    """Return what every connection of ours is made with, for nats-py and for FastStream's broker alike.

    It never stops reconnecting: with attempts exhausted nats-py leaves a spinning event loop behind.
    """

    async def on_error(error: Exception) -> None:
        # Permissions that deny a publish are only ever said here: the caller sees a time-out.
        log.warning("bus.error", extra={"error": str(error) or type(error).__name__})

    async def on_disconnect() -> None:
        log.warning("bus.disconnected")

    async def on_reconnect() -> None:
        log.info("bus.reconnected")
        await reconnected()

    return {
        "servers": [part.strip() for part in url.split(",")],
        "name": name,
        "inbox_prefix": f"{INBOX}{name.removeprefix('segue-')}",
        "max_reconnect_attempts": -1,
        "reconnect_time_wait": 0.1,
        "connect_timeout": 2,
        "ping_interval": 3,
        "max_outstanding_pings": 2,
        "error_cb": on_error,
        "disconnected_cb": on_disconnect,
        "reconnected_cb": on_reconnect,
    }


@dataclass(slots=True)
class Bus:
    """What handlers get. Made by `open_bus`."""

    client: Client
    jetstream: JetStream
    payloads: Payloads
    log: Log
    live: Live
    hearing: Switchboard
    sessions: Bucket
    runs: Bucket
    registry: Bucket
    breakers: Bucket
    limits: Bucket
    cache: Bucket
    keys: Bucket
    budgets: Bucket
    artifacts: Objects
    on_reconnect: list[Callable[[], Awaitable[None]]] = field(default_factory=list)

    async def reconnected(self) -> None:
        self.jetstream.reconnected()
        self.live.reconnected()
        self.hearing.reconnected()
        for hook in self.on_reconnect:
            await hook()


async def open_bus(client: Client) -> Bus:
    """Wrap a connected client."""
    jetstream = JetStream(client)
    await jetstream.start()
    payloads = Payloads(jetstream)
    log_of_runs = Log(jetstream, payloads)
    return Bus(
        client=client,
        jetstream=jetstream,
        payloads=payloads,
        log=log_of_runs,
        live=Live(client, log_of_runs),
        hearing=Switchboard(client),
        sessions=Bucket(SESSIONS, jetstream, payloads),
        runs=Bucket(RUNS, jetstream, payloads),
        registry=Bucket(REGISTRY, jetstream, payloads),
        breakers=Bucket(BREAKERS, jetstream, payloads),
        limits=Bucket(LIMITS, jetstream, payloads),
        cache=Bucket(CACHE, jetstream, payloads),
        keys=Bucket(KEYS, jetstream, payloads),
        budgets=Bucket(BUDGETS, jetstream, payloads),
        artifacts=Objects(ARTIFACTS, jetstream),
    )
