"""On three replicas, where a copy of a message is answered differently and a server can be missing."""

import asyncio
from collections.abc import AsyncIterator

import nats
import pytest

from shared.bus.connection import open_bus
from shared.bus.provisioner import provision
from shared.bus.server import NatsCluster
from shared.topology import Limits
from tests.conftest import eventually
from tests.executor.conftest import Begin, World, call
from tests.executor.standin import Standin, refuse, text_stream
from tests.executor.test_limits import most_in
from tests.executor.test_turns import A_WINDOW, LIMIT, WINDOW, crowd

pytestmark = pytest.mark.cluster


@pytest.fixture
async def world(nats_cluster: NatsCluster) -> AsyncIterator[World]:
    """In place of the one server's."""
    async with Standin() as provider:
        client = await nats.connect(nats_cluster.urls, max_reconnect_attempts=-1, reconnect_time_wait=0.1)
        await provision(client, Limits(replicas=3))
        yield World(nats_cluster.servers[0], await open_bus(client), provider)
        await client.close()


async def test_a_call_waits_comes_back_and_is_settled_once(begin: Begin) -> None:
    """A 429, the wait as a scheduled message, a copy meanwhile, the answer: two attempts, both accounted for."""
    world = await begin()
    world.provider.then(refuse(429, "later", {"retry-after": "1.2"}), text_stream("here ", "it is"))
    command = await world.send(call(stream=True))
    await world.send(command)
    settled = await world.settled(command, within_s=20)
    await world.send(command)
    assert (settled.text, settled.attempts, settled.unknown) == ("here it is", 2, ())
    assert [one.fault.code for one in settled.failed] == ["rate_limited"]
    assert len(world.provider.seen) == 2


async def test_a_replica_that_is_gone_is_not_noticed(begin: Begin, nats_cluster: NatsCluster) -> None:
    """One server of three is killed while calls are asked: each is settled, none is bought twice."""
    world = await begin()
    before = [await world.send(call()) for _ in range(5)]
    nats_cluster.servers[0].kill()
    try:
        after = [await world.send(call()) for _ in range(5)]
        for command in (*before, *after):
            settled = await world.settled(command, within_s=30)
            assert (settled.outcome, settled.attempts, settled.unknown) == ("answered", 1, ())
        assert len(world.provider.seen) == 10
    finally:
        await nats_cluster.servers[0].start()
        await nats_cluster.settled()


async def test_a_limit_holds_and_tenants_take_turns_on_three_replicas(world: World) -> None:
    """A hundred calls of one tenant wait, three of another are through within a few windows; none is one too many."""
    async with crowd(world, LIMIT, replicas=3) as calls:
        calls.ask("flood", 100)
        await eventually(lambda: calls.waited >= 90, within_s=30)
        before = calls.of("flood")
        await asyncio.wait_for(asyncio.gather(*(calls.one("small") for _ in range(3))), 60)
        assert calls.of("flood") - before <= 5 * A_WINDOW
        assert most_in([at for at, _ in calls.granted], WINDOW.seconds) <= WINDOW.most
