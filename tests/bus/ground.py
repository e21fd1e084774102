"""The provisioned topology on one server and on three, and buses on it as services have them."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NothingCame
from nats.js import JetStreamContext
from nats.js.errors import ServiceUnavailableError

from shared.bus.connection import Bus, open_bus, options
from shared.bus.provisioner import provision
from shared.bus.server import NatsCluster, NatsServer
from shared.contracts.commands import ChatRequest, SubmitRequest
from shared.contracts.events import RunAccepted, RunCategorized
from shared.contracts.ids import Category, Priority, new_run_id
from shared.contracts.message import Run
from shared.subjects import Facts, events
from shared.topology import EVENTS, Feed, Limits

_tenants = count(1)
ANSWERED_WITHIN_S = 6.0
"""Longer than a busy machine stands still: a question that is asked again finds its own first answer, which is right,
and not what tests on servers that nobody kills are about."""
_as_declared: dict[str, Limits] = {}
"""By server: what was provisioned there last, so that it is not asked for again."""


@dataclass
class Ground:
    """What a test stands on. Its tenant is its own, so that tests share servers and streams."""

    servers: Sequence[NatsServer]
    buses: list[Bus] = field(default_factory=list)
    mortal: bool = False
    """Whether the test kills servers: then answers get lost, and questions are soon asked again."""
    tenant: str = field(default_factory=lambda: f"t{next(_tenants)}")

    @property
    def replicas(self) -> int:
        return len(self.servers)

    @property
    def url(self) -> str:
        return ",".join(server.url for server in self.servers)

    async def bus(self) -> Bus:
        """Return a bus on a connection of its own, made as services make theirs."""

        async def reconnected() -> None:
            await bus.reconnected()

        client: Client = await nats.connect(**options(self.url, "test", reconnected=reconnected))
        bus = await open_bus(client)
        bus.jetstream._patience_s = 60
        if not self.mortal:
            bus.jetstream._timeout_s = ANSWERED_WITHIN_S
        self.buses.append(bus)
        return bus

    async def provision(self, **limits: Any) -> None:
        """Declare the topology, with the usual limits where none are said; nothing to do when it is so already."""
        wanted = Limits(replicas=self.replicas, **limits)
        if _as_declared.get(self.url) != wanted:
            client: Client = await nats.connect(self.url.split(","))
            await provision(client, wanted)
            await client.close()
            _as_declared[self.url] = wanted

    def js(self) -> JetStreamContext:
        return self.buses[0].client.jetstream(timeout=5)

    def run(self, run_id: str | None = None, *, lasts_s: float = 300, tenant: str | None = None) -> Run:
        now = datetime.now(UTC)
        return Run(
            run_id=run_id or new_run_id(),
            tenant=tenant or self.tenant,
            priority=Priority.HIGH,
            born_at=now,
            deadline_at=now + timedelta(seconds=lasts_s),
        )

    async def stored(self, stream: str, subject: str) -> int:
        """Return how many messages are on a subject, by the stream's leader, as soon as there is one."""
        body = json.dumps({"subjects_filter": subject}).encode()
        while True:
            with contextlib.suppress(TimeoutError):
                msg = await self.buses[0].jetstream.request(f"$JS.API.STREAM.INFO.{stream}", body, timeout_s=1)
                if msg.data and "state" in (answer := json.loads(msg.data)):
                    return int((answer["state"].get("subjects") or {}).get(subject, 0))
            await asyncio.sleep(0.02)

    async def leader(self, stream: str = EVENTS) -> NatsServer:
        """Return the server that leads a stream: the one whose death is felt."""
        if self.replicas == 1:
            return self.servers[0]
        info = await self.js().stream_info(stream)
        assert info.cluster is not None
        return next(server for server in self.servers if server.name == info.cluster.leader)

    async def close(self) -> None:
        await asyncio.gather(*(bus.client.close() for bus in self.buses))


def facts_of(run: Run) -> Facts:
    return events(run.tenant, run.run_id)


async def fetched(
    subscription: JetStreamContext.PullSubscription, count: int = 1, *, within_s: float = 30
) -> list[Msg]:
    """Fetch so many messages, as soon as the consumer has a leader: on a cluster, one just declared has none yet."""
    msgs: list[Msg] = []
    async with asyncio.timeout(within_s):
        while len(msgs) < count:
            try:
                msgs += await subscription.fetch(count - len(msgs), timeout=1)
            except ServiceUnavailableError:
                await asyncio.sleep(0.02)
            except NothingCame:
                continue
    return msgs


def accepted(run: Run, message: str = "hello") -> RunAccepted:
    return RunAccepted(run=run, request=ChatRequest(message=message), by="categorizer")


def categorized(run: Run, reason: str) -> RunCategorized:
    return RunCategorized(run=run, category=Category.M, reason=reason, context_tokens=1)


def request(run: Run, message: str = "hello") -> SubmitRequest:
    return SubmitRequest(run=run, request=ChatRequest(message=message))


ON_ONE_AND_THREE = ["single", pytest.param("cluster", marks=pytest.mark.cluster)]


@pytest.fixture(params=ON_ONE_AND_THREE)
def hosts(request: pytest.FixtureRequest) -> Sequence[NatsServer]:
    """The session's servers: one, then three."""
    if request.param == "single":
        server: NatsServer = request.getfixturevalue("nats_server")
        return [server]
    cluster: NatsCluster = request.getfixturevalue("nats_cluster")
    return cluster.servers


@pytest.fixture
async def ground(hosts: Sequence[NatsServer]) -> AsyncIterator[Ground]:
    """On the session's servers, which nobody kills."""
    async for ground in _made(hosts):
        yield ground


@pytest.fixture(params=ON_ONE_AND_THREE)
def mortals(request: pytest.FixtureRequest, tmp_path: Path) -> Sequence[NatsServer]:
    """A server of the test's own, then the session's three: whoever kills one starts it again."""
    if request.param == "single":
        return [NatsServer(tmp_path)]
    cluster: NatsCluster = request.getfixturevalue("nats_cluster")
    return cluster.servers


@pytest.fixture
async def mortal(mortals: Sequence[NatsServer]) -> AsyncIterator[Ground]:
    """On servers that the test may kill."""
    own = [server for server in mortals if not server.running]
    for server in own:
        await server.start()
    async for ground in _made(mortals, mortal=True):
        yield ground
    for server in own:
        server.kill()


async def _made(servers: Sequence[NatsServer], *, mortal: bool = False) -> AsyncIterator[Ground]:
    ground = Ground(servers, mortal=mortal)
    await ground.provision()
    await ground.bus()
    yield ground
    await ground.close()


async def taken(ground: Ground, feed: Feed, within_s: float = 30) -> Msg:
    """Take the next message of a service's consumer, by hand, and leave it un-acked."""
    subscription = await ground.js().pull_subscribe_bind(feed.durable, stream=feed.stream)
    (msg,) = await fetched(subscription, within_s=within_s)
    await subscription.unsubscribe()
    return msg


async def done_with(ground: Ground, feed: Feed) -> None:
    await (await taken(ground, feed)).ack_sync(timeout=30)


def due(in_s: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=in_s)
