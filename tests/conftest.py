"""Real nats-servers for every test: one a session, one of its own, a cluster of three."""

import asyncio
import inspect
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any

import nats
import pytest
from hypothesis import HealthCheck, settings
from nats.aio.client import Client

from shared.bus import server as server_module
from shared.bus.server import NatsCluster, NatsServer

# Test processes that run side by side pick their free ports from ranges of their own: between looking and listening,
# another one could take the same.
_worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
_width = 1_500
server_module._PORTS = range(20_000 + _width * (int(_worker) % 8), 20_000 + _width * (int(_worker) % 8 + 1))

# How long one example takes says how busy the machine is, not whether the code is right.
examples = int(os.environ.get("SEGUE_TEST_EXAMPLES", "100"))
settings.register_profile("segue", deadline=None, max_examples=examples, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("segue")


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One server for the whole session. Streams made on it need names of their own: other tests share it."""
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    _run(server.start())
    yield server
    server.kill()


@pytest.fixture(scope="session")
def nats_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsCluster]:
    """Three servers in one JetStream cluster for the whole session; whoever kills one starts it again."""
    cluster = NatsCluster(tmp_path_factory.mktemp("nats-cluster"))
    _run(cluster.start())
    yield cluster
    cluster.kill()


@pytest.fixture
async def own_nats_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NatsServer]:
    """A server for this test alone: to be killed, restarted, filled, or to hold the streams by their real names."""
    server = NatsServer(tmp_path_factory.mktemp("own-nats"))
    await server.start()
    yield server
    server.kill()


@pytest.fixture
async def client(nats_server: NatsServer) -> AsyncIterator[Client]:
    """A connection to the session's server."""
    connection = await nats.connect(nats_server.url, max_reconnect_attempts=-1)
    yield connection
    await connection.close()


async def eventually(fact: Callable[[], bool | Awaitable[bool]], within_s: float = 40.0) -> float:
    """Return, in seconds, how long it took until `fact` was true; fail when that takes longer than `within_s`."""
    began = time.monotonic()
    while True:
        late = time.monotonic() - began > within_s  # looked at before the fact: this process may stand still in between
        seen = fact()
        if await seen if inspect.isawaitable(seen) else seen:
            return time.monotonic() - began
        if late:
            pytest.fail(f"not true within {within_s} s: {inspect.getsource(fact).strip()}")
        await asyncio.sleep(0.005)


def _run(start: Coroutine[Any, Any, None]) -> None:
    """Run on a loop of its own: a session's server outlives the loop of every test."""
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(start)
    finally:
        loop.close()
