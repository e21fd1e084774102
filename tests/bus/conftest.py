"""A stream of its own for a test, on one server and on three, and pools that are drained when the test ends."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

import nats
import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo, RetentionPolicy, StreamConfig
from nats.js.errors import NoStreamResponseError, NotFoundError

from shared.bus.delivery import Bury, Delivery, Handler, Observer, Recreate, Source, Verdict
from shared.bus.pull import StandingPull
from shared.bus.server import NatsCluster, NatsServer
from tests.bus.ground import ground, hosts, mortal, mortals  # noqa: F401 - fixtures

_numbers = count(1)
SHARES = {"high": 0.6, "medium": 0.3, "low": 0.1}
ACK_WAIT_S = 10.0
"""Longer than a busy machine stands still: a message comes again for what the test does, and for nothing else."""
AT_ONCE_S = 8.0
"""Too soon for a message that was left to `ACK_WAIT_S`, and later than a machine that stood still meanwhile."""


@dataclass(frozen=True, slots=True)
class Servers:
    """What a test runs on."""

    urls: list[str]
    replicas: int


@pytest.fixture(params=["single", pytest.param("cluster", marks=pytest.mark.cluster)])
def servers(request: pytest.FixtureRequest) -> Servers:
    if request.param == "single":
        server: NatsServer = request.getfixturevalue("nats_server")
        return Servers([server.url], 1)
    cluster: NatsCluster = request.getfixturevalue("nats_cluster")
    return Servers(cluster.urls, 3)


@dataclass
class Seen:
    """An observer that keeps everything."""

    taken_ones: list[Delivery] = field(default_factory=list)
    redelivered_ones: list[Delivery] = field(default_factory=list)
    settled_ones: list[tuple[Delivery, Verdict, float]] = field(default_factory=list)
    stalls: list[str] = field(default_factory=list)
    recreations: list[str] = field(default_factory=list)
    on_taken: Callable[[], None] = lambda: None

    def taken(self, delivery: Delivery) -> None:
        self.taken_ones.append(delivery)
        self.on_taken()

    def redelivered(self, delivery: Delivery) -> None:
        self.redelivered_ones.append(delivery)

    def settled(self, delivery: Delivery, verdict: Verdict, took_s: float) -> None:
        self.settled_ones.append((delivery, verdict, took_s))

    def stalled(self, source: str) -> None:
        self.stalls.append(source)

    def recreated(self, source: str) -> None:
        self.recreations.append(source)


class Arena:
    """A work queue with a consumer for each of high, medium and low, and the pools that feed on it."""

    def __init__(self, client: Client, urls: list[str], replicas: int) -> None:
        self.client = client
        self.urls = urls
        self.stream = f"T{next(_numbers)}"
        self.replicas = replicas
        self.ack_wait_s = ACK_WAIT_S
        self.js: JetStreamContext = client.jetstream()
        self.pools: list[tuple[StandingPull, Client]] = []
        self.buried: list[tuple[Delivery, str]] = []

    def source(self, name: str, **options: object) -> Source:
        consumer = ConsumerConfig(
            durable_name=f"c-{name}",
            filter_subject=f"{self.stream}.{name}",
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=self.ack_wait_s,
            max_deliver=-1,
            max_ack_pending=10_000,
        ).evolve(**options)
        return Source(self.stream, consumer, SHARES[name], name)

    async def declare(self, names: Sequence[str] = tuple(SHARES), **options: object) -> None:
        await self.js.add_stream(
            StreamConfig(
                name=self.stream,
                subjects=[f"{self.stream}.*"],
                retention=RetentionPolicy.WORK_QUEUE,
                num_replicas=self.replicas,
            )
        )
        for name in names:
            await self.js.add_consumer(self.stream, self.source(name, **options).consumer)

    async def hand_out_again_after(self, ack_wait_s: float) -> None:
        """Have the consumers wait so long for a word about a message: for tests that lose some, or look what comes."""
        self.ack_wait_s = ack_wait_s
        for name in SHARES:
            await self.js.add_consumer(self.stream, self.source(name).consumer)

    async def led_by_one(self) -> None:
        """Have one server lead the stream and all consumers: when it stands still, no source is ahead of the others."""
        if self.replicas == 1:
            return
        stream = (await self.js.stream_info(self.stream)).cluster
        assert stream is not None
        ask = json.dumps({"placement": {"preferred": stream.leader}}).encode()
        async with asyncio.timeout(60):
            for name in SHARES:
                while (there := (await self.info(name)).cluster) is None or there.leader != stream.leader:
                    stepdown = f"$JS.API.CONSUMER.LEADER.STEPDOWN.{self.stream}.c-{name}"
                    await self.client.request(stepdown, ask, timeout=15)
                    await asyncio.sleep(0.2)

    async def publish(self, name: str, n: int = 1, first: int = 0) -> None:
        """Publish the numbers `first` to `first + n - 1`, and wait until they are stored."""
        sent = [self._store(f"{self.stream}.{name}", str(i).encode()) for i in range(first, first + n)]
        for i in range(0, n, 100):
            await asyncio.gather(*sent[i : i + 100])

    async def _store(self, subject: str, body: bytes) -> None:
        """Publish as soon as our server knows of the stream: in a cluster it may hear of it a moment later."""
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(NoStreamResponseError):
                    await self.js.publish(subject, body)
                    return
                await asyncio.sleep(0.02)

    async def pool(
        self,
        handler: Handler,
        *,
        places: int,
        names: Sequence[str] = tuple(SHARES),
        observer: Observer | None = None,
        bury: Bury | None = None,
        recreate: Recreate | None = None,
        told: bool = True,
    ) -> StandingPull:
        """Start a pool on a connection of its own, told when that one reconnects unless `told` is False."""

        async def reconnected() -> None:
            if told:
                await pool.on_reconnect()

        connection = await connect(self.urls, reconnected)
        pool = StandingPull(
            connection,
            [self.source(name) for name in names],
            handler,
            places=places,
            name=f"{self.stream}-{len(self.pools)}",
            bury=bury or self.bury,
            recreate=recreate,
            observer=observer,
        )
        self.pools.append((pool, connection))
        await pool.start()
        return pool

    async def bury(self, delivery: Delivery, reason: str) -> None:
        self.buried.append((delivery, reason))

    async def info(self, name: str) -> ConsumerInfo:
        info: ConsumerInfo = await self.js.consumer_info(self.stream, f"c-{name}")
        return info

    async def ack_pending(self, name: str) -> int:
        """Messages that the server thinks somebody works on."""
        return (await self.info(name)).num_ack_pending or 0

    async def left(self) -> int:
        """Messages that the work queue still has."""
        return (await self.js.stream_info(self.stream)).state.messages

    async def empty(self) -> bool:
        return await self.left() == 0

    async def close(self) -> None:
        draining = [asyncio.create_task(pool.drain(0.0)) for pool, _ in self.pools]
        await asyncio.sleep(0)
        for name in SHARES:
            with contextlib.suppress(NotFoundError):
                await self.js.delete_consumer(self.stream, f"c-{name}")  # ends all requests: no need to wait for them
        await asyncio.gather(*draining)
        for _, connection in self.pools:
            await connection.close()
        await self.js.delete_stream(self.stream)
        await self.client.close()


async def connect(urls: list[str], reconnected: Callable[[], Awaitable[None]] | None = None) -> Client:
    """Connect as a service does, but quick to try again."""

    async def ignore(_: Exception) -> None:
        """Tests kill servers; nats-py reports each attempt to reconnect as an error."""

    return await nats.connect(
        urls, max_reconnect_attempts=-1, reconnect_time_wait=0.02, error_cb=ignore, reconnected_cb=reconnected
    )


@pytest.fixture
async def arena(servers: Servers) -> AsyncIterator[Arena]:
    """On one server and on three."""
    arena = Arena(await connect(servers.urls), servers.urls, servers.replicas)
    await arena.declare()
    yield arena
    await arena.close()


@pytest.fixture
async def own_arena(own_nats_server: NatsServer) -> AsyncIterator[Arena]:
    """On a server that the test may kill."""
    arena = Arena(await connect([own_nats_server.url]), [own_nats_server.url], 1)
    await arena.declare()
    yield arena
    await arena.close()
