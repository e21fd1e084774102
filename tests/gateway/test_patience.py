"""Silent and slow clients: they cost nobody an answer, and are let go."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator

from services.gateway.http import patience
from services.gateway.http.patience import Patient
from shared.bus.server import NatsServer
from tests.gateway.conftest import Stage
from tests.gateway.guarded import guarded
from tests.gateway.serving import serving

HEAD = b"POST /chat HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


class Hasty(Patient):
    head_within_s = 0.3
    first_within_s = 2.0


@contextlib.asynccontextmanager
async def connected(base: object) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(base.host, base.port)  # type: ignore[attr-defined]
    try:
        yield reader, writer
    finally:
        writer.close()


async def test_a_thousand_idle_connections_cost_no_answer(stage: Stage) -> None:
    """Half of them silent, half with a head that never ends; every request beside them is answered."""
    async with stage() as (http, _), contextlib.AsyncExitStack() as open_ones:
        for number in range(1_000):
            _, writer = await open_ones.enter_async_context(connected(http.base_url))
            if number % 2:
                writer.write(HEAD + b"X-Slow: ")
        for _ in range(20):
            answer = await asyncio.wait_for(http.post("/chat", json={"message": "hello"}), timeout=30)
            assert answer.status_code == 200


async def test_a_head_that_comes_a_byte_at_a_time_is_not_waited_for(own_nats_server: NatsServer) -> None:
    """A slow loris is told so, however often it sends another byte."""
    async with (
        asyncio.timeout(30),  # each byte of many would put the end off
        serving(own_nats_server.url, http=Hasty) as http,
        connected(http.base_url) as (reader, writer),
    ):
        writer.write(HEAD + b"X-Slow: ")
        with contextlib.suppress(ConnectionError):
            while not reader.at_eof():
                writer.write(b"x")
                await writer.drain()
                with contextlib.suppress(TimeoutError):
                    line = await asyncio.wait_for(reader.readline(), 0.05)
                    assert line.startswith(b"HTTP/1.1 408")
                    break


async def test_a_connection_that_says_nothing_is_closed(own_nats_server: NatsServer) -> None:
    async with serving(own_nats_server.url, http=Hasty) as http, connected(http.base_url) as (reader, _):
        assert await asyncio.wait_for(reader.read(), 20) == b""


async def test_blank_lines_after_an_answer_do_not_hold_a_connection(own_nats_server: NatsServer) -> None:
    """They begin no request, and still the next one has to come."""
    async with serving(own_nats_server.url, http=Hasty) as http, connected(http.base_url) as (reader, writer):
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.write(b"\r\n")
        rest = await asyncio.wait_for(reader.read(), 20)
        assert b"HTTP/1.1 408" in rest


async def test_a_request_takes_as_long_as_it_takes(stage: Stage) -> None:
    """The times are for heads: an answer that takes longer than they do is waited for."""
    async with stage(takes=False, http=Hasty) as (http, backstage):
        asked = asyncio.create_task(http.post("/chat", json={"message": "hello"}))
        await asyncio.sleep(2.5)  # longer than both
        assert not asked.done()
        await backstage.begin()
        assert (await asked).status_code == 200


async def test_a_head_without_end_is_cut_off(own_nats_server: NatsServer) -> None:
    async with serving(own_nats_server.url) as http, connected(http.base_url) as (reader, writer):
        writer.write(HEAD)
        with contextlib.suppress(ConnectionError):
            for _ in range(40):
                writer.write(b"X-Long: " + b"y" * 8_000 + b"\r\n")
                await writer.drain()
        assert (await reader.readline()).startswith(b"HTTP/1.1 431")


async def test_at_the_bound_an_idle_connection_makes_room(own_nats_server: NatsServer) -> None:
    """Whoever asks something is answered; of those who say nothing one goes."""
    async with (
        serving(own_nats_server.url, connections=3) as http,
        connected(http.base_url) as (one, _),
        connected(http.base_url) as (two, _),
        connected(http.base_url) as (three, _),
    ):
        assert (await http.get("/health")).status_code in (200, 503)
        done, _ = await asyncio.wait(
            [asyncio.create_task(reader.read()) for reader in (one, two, three)],
            timeout=20,
            return_when=asyncio.FIRST_COMPLETED,
        )
        assert len(done) == 1


async def test_a_body_without_a_key_is_never_read(own_nats_server: NatsServer) -> None:
    """401 comes before the body, however large it says it is, and the connection is closed."""
    async with guarded(own_nats_server, takes=False) as (http, _), connected(http.base_url) as (reader, writer):
        writer.write(HEAD + b"Content-Length: 10000000000\r\n\r\n" + b"x" * 1_000)
        answer = await asyncio.wait_for(reader.read(), 20)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 401")
        assert b"connection: close" in head.lower()
        assert "API key" in json.loads(body)["detail"]


def test_there_is_room_for_as_many_connections_as_the_system_gives() -> None:
    assert patience.patient(100).most == 100
    assert os.name == "nt" or 1 <= patience.patient(10**9).most < 10**9
