"""A gateway over a real nats-server, served by uvicorn on a free port, with a stand-in for the services behind it."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import pytest

from shared.bus.jetstream import JetStream
from shared.bus.server import NatsServer
from shared.topology import Limits
from tests.gateway.backstage import Backstage
from tests.gateway.serving import serving

Client = httpx.AsyncClient
Stage = Callable[..., AbstractAsyncContextManager[tuple[Client, Backstage]]]


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the bus waited for while the machine stands still for some seconds: an answer that is late is not lost.

    What becomes of a lost one is shown in `test_errors`, which is less patient, and in the bus's own tests.
    """
    defaults = JetStream.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "timeout_s", 10.0)


@pytest.fixture
def stage(own_nats_server: NatsServer) -> Stage:
    """Return how to set everything up: `async with stage(max_queue_depth=2, waiting=1) as (http, backstage)`."""

    @asynccontextmanager
    async def set_up(
        *, limits: Limits | None = None, takes: bool = True, timeout_s: float = 20, **bounds: Any
    ) -> AsyncIterator[tuple[Client, Backstage]]:
        async with (
            Backstage(own_nats_server.url, limits or Limits(), takes=takes) as backstage,
            serving(own_nats_server.url, timeout_s=timeout_s, **bounds) as http,
        ):
            yield http, backstage
        assert not backstage.broken

    return set_up
