"""Tenants take turns at a limit, over all executors, on a real server; what one does not want, others use."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import nats
import pytest
from nats.js.api import DiscardPolicy, StorageType, StreamConfig

from services.executor.limits import Limit, Permit, Permits
from shared import subjects
from shared.bus.connection import open_bus
from shared.bus.grants import Full, Granted, Grants
from shared.bus.provisioner import provision
from shared.contracts.ids import Priority
from shared.topology import Limits, Window, stream_of
from tests.conftest import eventually
from tests.executor.conftest import Begin, World, call, route, run
from tests.executor.test_limits import OWNER, Span, most_in, provisioned

WINDOW = Window("minute", 2.0, 8)
LIMIT = Limit("tested", (WINDOW,))
LONG_WINDOW = Window("minute", 60.0, 8)
LONG = Limit("tested", (LONG_WINDOW,))
"""None of its grants is over before a test is."""
TOKENS = Limit("tested", (), tokens_per_minute=1_000, token_window_s=2)
A_WINDOW = 10
"""About how many calls either of them lets through."""
ROUTE = route("medium_ai", "x", limit="tested")


@dataclass
class Crowd:
    """Calls that ask several executors for permits, whichever they come to, as the handler would."""

    executors: Sequence[Permits]
    granted: list[tuple[Span, str]] = field(default_factory=list)
    """When, and to which tenant."""
    tasks: list["asyncio.Task[None]"] = field(default_factory=list)
    waited: int = 0

    def ask(self, tenant: str, count: int = 1, tokens: int = 90, priority: Priority = Priority.MEDIUM) -> None:
        self.tasks += [asyncio.create_task(self.one(tenant, tokens, priority)) for _ in range(count)]

    async def one(self, tenant: str, tokens: int = 90, priority: Priority = Priority.MEDIUM) -> None:
        """Ask until there is a permit."""
        command = call(run(tenant=tenant, priority=priority, lasts_s=300), max_tokens=tokens)
        while True:
            permits = random.choice(self.executors)
            found = await permits.take(ROUTE, command)
            if isinstance(found, Permit):
                self.granted.append(((found.granted.at, time.monotonic()), tenant))
                return
            await permits.waits(ROUTE, command, found)
            self.waited += 1
            await asyncio.sleep(found.seconds)

    def times(self, tenant: str) -> list[Span]:
        return [at for at, of in self.granted if of == tenant] or [(0.0, 0.0)]

    def of(self, tenant: str) -> int:
        return sum(1 for _, of in self.granted if of == tenant)


@asynccontextmanager
async def crowd(world: World, limit: Limit, executors: int = 4, replicas: int = 1) -> AsyncIterator[Crowd]:
    await provision(world.bus.client, Limits(grants={limit.name: limit.windows}, replicas=replicas))
    clients = [await nats.connect(world.server.url) for _ in range(executors)]
    permits = [Permits(await open_bus(client), {limit.name: limit}) for client in clients]
    for one in permits:
        await one.start()
    found = Crowd(permits)
    try:
        yield found
    finally:
        for task in found.tasks:
            task.cancel()
        await asyncio.gather(*found.tasks, return_exceptions=True)
        for client in clients:
            await client.close()


@pytest.mark.parametrize("limit", [LIMIT, TOKENS], ids=["requests", "tokens"])
async def test_a_tenant_that_floods_leaves_the_others_their_share(world: World, limit: Limit) -> None:
    """Two hundred calls of one wait: three of another are through within about two windows, not after most of them."""
    async with crowd(world, limit) as calls:
        calls.ask("flood", 200)
        await eventually(lambda: calls.waited >= 190, within_s=30)
        before = calls.of("flood")
        await asyncio.wait_for(asyncio.gather(*(calls.one("small") for _ in range(3))), 60)
        assert calls.of("flood") - before <= 4 * A_WINDOW


async def test_two_that_flood_have_about_as_much(world: World) -> None:
    """However many more calls one of them has; and the limit holds."""
    async with crowd(world, LIMIT) as calls:
        calls.ask("more", 200)
        calls.ask("less", 40)
        await eventually(lambda: len(calls.granted) >= 8)
        first = len(calls.granted)
        await eventually(lambda: len(calls.granted) >= first + 32, within_s=40)
        shares = [sum(1 for _, of in calls.granted[first:] if of == tenant) for tenant in ("more", "less")]
        assert min(shares) >= 10
        assert most_in([at for at, _ in calls.granted], WINDOW.seconds) <= WINDOW.most


async def test_whoever_is_alone_uses_all_of_a_limit(world: World) -> None:
    """Of one tenant's low priority, with others that have been there and have gone."""
    async with crowd(world, LIMIT) as calls:
        await asyncio.gather(*(calls.one(tenant) for tenant in ("b", "c", "d", "e")))
        calls.ask("alone", 100, priority=Priority.LOW)
        await eventually(lambda: most_in(calls.times("alone"), WINDOW.seconds) >= WINDOW.most, within_s=40)


async def test_within_a_tenant_priorities_have_their_weights(world: World) -> None:
    """Its high priority gets more than its low one, which gets some all the same."""
    async with crowd(world, LIMIT) as calls:
        for one in calls.executors:
            one.weights = {"high": 0.75, "medium": 0.1, "low": 0.25}
        calls.ask("flood", 100, priority=Priority.LOW)
        await eventually(lambda: calls.waited >= 90, within_s=30)
        before = calls.of("flood")
        await asyncio.wait_for(asyncio.gather(*(calls.one("flood", priority=Priority.HIGH) for _ in range(6))), 60)
        low = calls.of("flood") - before - 6
        assert low <= 4 * A_WINDOW
        await eventually(lambda: calls.of("flood") - before - 6 > low, within_s=30)


async def test_who_waits_no_more_keeps_nothing(world: World) -> None:
    """A call that went elsewhere says so, and its place is another's at once."""
    async with crowd(world, LONG, executors=2) as calls:
        one, other = calls.executors
        for _ in range(7):
            await calls.one("a")
        gone = call(run(tenant="b"))
        await calls.one("a")
        refused = await one.take(ROUTE, gone)
        assert not isinstance(refused, Permit)
        await one.waits(ROUTE, gone, refused)
        await eventually(lambda: bool(other._waiting["tested"].calls))
        await one.leaves(ROUTE, gone)
        await eventually(lambda: not other._waiting["tested"].calls)


async def test_as_long_as_nobody_else_waits_a_grant_is_one_message(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody asks who holds what, and nobody is told anything."""
    await provisioned(world, LONG)
    permits = Permits(world.bus, {"tested": LONG})
    await permits.start()
    before, sent, publish = world.bus.jetstream.publishes, set[str](), world.bus.client.publish

    async def noted(subject: str, *given: Any, **named: Any) -> None:
        sent.add(subject)
        await publish(subject, *given, **named)

    monkeypatch.setattr(world.bus.client, "publish", noted)
    for _ in range(4):
        assert isinstance(await permits.take(ROUTE, call()), Permit)
    assert world.bus.jetstream.publishes - before == 4
    assert sent == {subjects.grant("tested", "minute", *OWNER)}


async def test_a_stream_of_an_older_version_keeps_its_grants_and_its_limit(world: World) -> None:
    """Before grants said whose they are, a window had one subject, and its bound was the subject's."""
    jetstream = world.bus.client.jetstream()
    older = StreamConfig(
        name=stream_of("tested", LONG_WINDOW),
        subjects=["segue.grant.tested.minute"],
        storage=StorageType.FILE,
        max_msgs_per_subject=LONG_WINDOW.most,
        discard=DiscardPolicy.NEW,
        discard_new_per_subject=True,
        max_msgs=LONG_WINDOW.most,
        max_age=LONG_WINDOW.lives_s,
        duplicate_window=LONG_WINDOW.lives_s,
        allow_direct=True,
    )
    await jetstream.add_stream(older)
    for _ in range(3):
        await jetstream.publish("segue.grant.tested.minute", b"")
    await provisioned(world, LONG)
    grants = Grants(world.bus.jetstream)
    found = [await grants.take("tested", [LONG_WINDOW], OWNER) for _ in range(6)]
    assert [type(one) for one in found] == [Granted] * 5 + [Full]
    assert (await grants.held("tested", LONG_WINDOW)).by == {OWNER: 5}
    await jetstream.purge_stream(stream_of("tested", LONG_WINDOW))
    await jetstream.publish("segue.grant.tested.minute", b"")
    found = [await grants.take("tested", [LONG_WINDOW], OWNER) for _ in range(8)]
    assert [type(one) for one in found] == [Granted] * 7 + [Full], "an old executor's still count while it is replaced"


async def test_calls_of_another_tenant_do_not_wait_behind_a_flood(begin: Begin, world: World) -> None:
    """Through the handler: fifty calls of one are put back again and again, two of another are answered soon."""
    await provisioned(world, LIMIT)
    await begin(limits={"tested": LIMIT}, routes={"medium_ai": route("medium_ai", world.provider.url, limit="tested")})
    flood = [await world.send(call(run(tenant="flood"))) for _ in range(50)]
    waiting = world.executor.permits._waiting["tested"]
    await eventually(lambda: waiting.of(("flood", "medium"), now_s=time.monotonic()) >= 20)
    small = await asyncio.gather(*(world.do(call(run(tenant="small")), within_s=60) for _ in range(2)))
    assert {one.outcome for one in small} == {"answered"}
    assert len(world.provider.seen) <= 4 * A_WINDOW
    assert (await world.settled(flood[0], within_s=30)).outcome == "answered"
