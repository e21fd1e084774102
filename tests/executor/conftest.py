"""A real server with the real topology, an executor in this process, and a scripted provider."""

import asyncio
import ipaddress
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import nats
import pytest
from nats.aio.msg import Msg
from pydantic import SecretStr

from services.executor.app import Providers
from services.executor.artifacts import Artifacts
from services.executor.attempts import Policy
from services.executor.breaker import Settings
from services.executor.breakers import Breakers
from services.executor.budgets import Budgets
from services.executor.claims import Claims
from services.executor.handlers import Executor
from services.executor.jobs import Jobs
from services.executor.limits import Limit, Permits
from services.executor.reconciling import Reconciliation
from services.executor.roster import Roster
from services.executor.running import Running
from shared import subjects
from shared.bus.connection import Bus, open_bus
from shared.bus.provisioner import provision
from shared.bus.pull import StandingPull
from shared.bus.server import NatsServer
from shared.config.providers import Route
from shared.config.roles import ModelParameters
from shared.contracts.commands import ExecuteCall
from shared.contracts.events import AttemptStarted, CallSettled
from shared.contracts.ids import Lane, Priority, Purpose
from shared.contracts.message import ChatMessage, Message, Run
from shared.outward import Outward
from shared.pool import pool
from shared.prices import PriceBook
from shared.topology import EXECUTOR, EXECUTOR_RECONCILE, Limits
from tests.conftest import eventually
from tests.executor.standin import Standin

TENANT = "acme"
PATIENT_S = 6.0
"""A server that only stands still for a while is not asked again: what is written twice then would be counted twice."""


def run(*, lasts_s: float = 60.0, tenant: str = TENANT, priority: Priority = Priority.MEDIUM) -> Run:
    now = datetime.now(UTC)
    return Run(
        run_id=secrets.token_hex(8),
        tenant=tenant,
        priority=priority,
        born_at=now,
        deadline_at=now + timedelta(seconds=lasts_s),
    )


def call(of: Run | None = None, **fields: Any) -> ExecuteCall:
    given: dict[str, Any] = {
        "run": of or run(),
        "call": "answer",
        "purpose": Purpose.ANSWER,
        "role": "medium_ai",
        "messages": (ChatMessage(role="user", content="how are you?"),),
    }
    return ExecuteCall(**{**given, **fields})


def route(role: str, url: str, **fields: Any) -> Route:
    given: dict[str, Any] = {
        "role": role,
        "provider": "openrouter",
        "base_url": url,
        "api_key": SecretStr("sk-secret-key"),
        "model": f"vendor/{role}",
        "parameters": ModelParameters(temperature=0.5, max_tokens=100),
        "lane": Lane.TEXT,
        "simulated": True,
    }
    return Route(**{**given, **fields})


@dataclass
class World:
    """What a test works with."""

    server: NatsServer
    bus: Bus
    provider: Standin
    pulls: list[StandingPull] = field(default_factory=list)
    breakers: list[Breakers] = field(default_factory=list)
    _executor: Executor | None = None

    @property
    def executor(self) -> Executor:
        """The executor in this process."""
        assert self._executor is not None, "made by `begin`"
        return self._executor

    async def send(self, command: ExecuteCall) -> ExecuteCall:
        await self.bus.log.send(self.subject(command), command)
        return command

    def subject(self, command: ExecuteCall) -> str:
        return subjects.call(command.run, command.lane, command.purpose, command.call)

    async def settled(self, command: ExecuteCall, within_s: float = 40.0) -> CallSettled:
        """Wait for the call's end on the log."""
        subject = subjects.facts(command.run).settled(command.purpose, command.call)
        until_s = time.monotonic() + within_s
        while True:
            late = time.monotonic() > until_s
            if (found := await self.bus.log.read(subject, CallSettled)) is not None:
                return found
            assert not late, f"{command.call} was not settled within {within_s} s"
            await asyncio.sleep(0.02)

    async def do(self, command: ExecuteCall, within_s: float = 40.0) -> CallSettled:
        return await self.settled(await self.send(command), within_s)

    async def attempts(self, command: ExecuteCall) -> list[AttemptStarted]:
        """Return the attempts on the log, in order."""
        prefix = subjects.facts(command.run).attempt(command.purpose, command.call, 0)[:-1]
        stored = await self.bus.log.facts(command.run.tenant, command.run.run_id)
        return [AttemptStarted.decode(one.data) for one in stored if one.subject.startswith(prefix)]

    async def queued(self) -> int:
        """Return how many messages the stream of calls holds, waiting ones included."""
        info = await self.bus.client.jetstream().stream_info("CALLS")
        return int(info.state.messages)

    async def emptied(self) -> None:
        """Wait until no call is left: each is acked after the last thing that its executor does for it."""

        async def empty() -> bool:
            return await self.queued() == 0

        await eventually(empty)

    async def write(self, subject: str, fact: Message) -> None:
        assert (await self.bus.log.write(subject, fact)).mine

    async def claimed(
        self, command: ExecuteCall, number: int, by: str = "dead.claim", *, age_s: float = 0.0
    ) -> AttemptStarted:
        """Write the claim of an executor that is not there."""
        started = AttemptStarted(
            run=command.run,
            call=command.call,
            attempt=number,
            role=command.role,
            provider="openrouter",
            model="vendor/medium_ai",
            reserved_usd=0.5,
            claimed_by=by,
            started_at=datetime.now(UTC) - timedelta(seconds=age_s),
        )
        await self.write(subjects.facts(command.run).attempt(command.purpose, command.call, number), started)
        return started

    async def listen(self, command: ExecuteCall) -> list[dict[str, Any]]:
        """Return a list that the call's deltas come into."""
        heard: list[dict[str, Any]] = []

        async def take(msg: Msg) -> None:
            heard.append(json.loads(msg.data))

        await self.bus.client.subscribe(subjects.token(command.run.tenant, command.run.run_id, command.call), cb=take)
        await self.bus.client.flush()
        return heard


Begin = Callable[..., Awaitable[World]]


@pytest.fixture
async def world(own_nats_server: NatsServer) -> AsyncIterator[World]:
    """Everything but an executor: for those that run as processes."""
    async with Standin() as provider:
        client = await nats.connect(own_nats_server.url, max_reconnect_attempts=-1, reconnect_time_wait=0.1)
        await provision(client, Limits())
        bus = await open_bus(client)
        bus.jetstream._timeout_s = PATIENT_S
        yield World(own_nats_server, bus, provider)
        await client.close()


@pytest.fixture
async def begin(world: World) -> AsyncIterator[Begin]:
    """`world = await begin(roles=[...], fallbacks={...}, policy=...)`: everything in place, the executor at work.

    With `takes=False` it takes nothing by itself: a test hands it deliveries.
    """
    outward = Outward((ipaddress.ip_network("127.0.0.0/8"),))
    providers = Providers(outward)
    bus, provider = world.bus, world.provider

    async def started(
        roles: Sequence[str] = ("medium_ai", "fast_ai"),
        fallbacks: Mapping[str, Sequence[str]] | None = None,
        policy: Policy | None = None,
        breaker: Settings | None = None,
        limits: Mapping[str, Limit] | None = None,
        takes: bool = True,
        routes: Mapping[str, Route] | None = None,
        **fields: Any,
    ) -> World:
        there = {**{role: route(role, provider.url) for role in roles}, **(routes or {})}
        breakers = Breakers(bus, breaker or Settings(threshold=10_000), lambda: datetime.now(UTC))
        await breakers.start()
        roster = Roster(there, fallbacks or {}, breakers, lambda: datetime.now(UTC))
        world.breakers.append(breakers)
        permits = Permits(bus, limits or {})
        await permits.start()
        running = Running()
        claims = Claims(bus, running, lambda: datetime.now(UTC))
        bus.on_reconnect.append(claims.reconnected)
        world._executor = executor = Executor(
            bus=bus,
            breakers=breakers,
            permits=permits,
            roster=roster,
            reconciliation=Reconciliation(
                bus,
                roster,
                providers.generations.for_route,
                claims,
                PriceBook(),
                lambda: datetime.now(UTC),
                Budgets().correct,
            ),
            policy=policy or Policy(base_s=0.05),
            provider=providers.answering,
            jobs=Jobs(bus, providers.taking_jobs, PriceBook(), lambda: datetime.now(UTC)),
            artifacts=Artifacts(bus, outward, timedelta(days=7)),
            running=running,
            claims=claims,
            now=lambda: datetime.now(UTC),
            jitter=lambda: 0.5,
            **fields,
        )
        pulls = [pool(bus, "executor", EXECUTOR[lane], executor.execute, places=16) for lane in Lane]
        pulls.append(pool(bus, "executor", [EXECUTOR_RECONCILE], executor.reconciliation.reconcile, places=8))
        world.pulls.extend(pulls)
        for pull in pulls if takes else ():
            bus.on_reconnect.append(pull.on_reconnect)
            await pull.start()
        return world

    yield started
    for pull in world.pulls:
        await pull.drain(0.1)
    for one in world.breakers:
        await one.stop()
    await providers.close()
