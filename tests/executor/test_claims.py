"""Whether an attempt's executor still works on it: silence speaks against it only while everybody else can be heard."""

import asyncio
import os
import signal
import time
from datetime import UTC, datetime

import pytest
from nats.aio.msg import Msg

from services.executor import claims
from services.executor.claims import STILL, Claims
from services.executor.running import Running
from shared import subjects
from shared.contracts.events import AttemptStarted
from tests.conftest import eventually
from tests.executor.conftest import World, run

CLAIM = "other.claim"
STARTED = AttemptStarted(
    run=run(),
    call="answer",
    attempt=1,
    role="medium_ai",
    provider="openrouter",
    model="vendor/medium_ai",
    claimed_by=CLAIM,
    started_at=datetime.now(UTC),
)


@pytest.fixture
def asking(world: World, monkeypatch: pytest.MonkeyPatch) -> Claims:
    """Whoever asks, and soon takes silence for an answer."""
    monkeypatch.setattr(claims, "ANSWER_WITHIN_S", 0.2)
    return Claims(world.bus, Running(), lambda: datetime.now(UTC))


async def test_who_is_gone_or_says_nothing_while_the_bus_answers_is_dead(world: World, asking: Claims) -> None:
    async def dead() -> bool:
        return not await asking.may_still_work(STARTED)

    await eventually(dead)
    heard: list[str] = []

    async def silent(msg: Msg) -> None:
        heard.append(msg.subject)

    await world.bus.client.subscribe(subjects.working(CLAIM), cb=silent)
    await eventually(dead)
    assert heard


async def test_nobody_is_taken_for_dead_because_the_one_who_asks_stood_still(world: World, asking: Claims) -> None:
    """The answer lies unread in its own process when the time for it is over."""

    async def works(msg: Msg) -> None:
        await msg.respond(STILL)
        time.sleep(3 * claims.ANSWER_WITHIN_S)  # noqa: ASYNC251 - the whole process stands still

    await world.bus.client.subscribe(subjects.working(CLAIM), cb=works)
    assert await asking.may_still_work(STARTED)


async def test_nobody_is_taken_for_dead_while_the_server_stands_still(world: World, asking: Claims) -> None:
    """Who is there answers, and it does not come through."""

    async def works(msg: Msg) -> None:
        await msg.respond(STILL)

    await world.bus.client.subscribe(subjects.working(CLAIM), cb=works)
    await world.bus.client.flush()
    pid = world.server.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        asked = asyncio.create_task(asking.may_still_work(STARTED))
        await asyncio.sleep(3 * claims.ANSWER_WITHIN_S)  # for how long
    finally:
        os.kill(pid, signal.SIGCONT)
    assert await asked


async def test_nobody_is_taken_for_dead_while_the_server_is_away(world: World, asking: Claims) -> None:
    world.server.kill()
    await eventually(lambda: not world.bus.client.is_connected)
    assert await asking.may_still_work(STARTED)
    await world.server.start()
    await eventually(lambda: world.bus.client.is_connected)


async def test_a_connection_is_still_heard_after_the_server_stood_still_for_longer_than_it_is_waited_for(
    world: World, asking: Claims, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody waits for any more comes when the server goes on, over the connection that everybody uses."""

    async def works(msg: Msg) -> None:
        await msg.respond(STILL)

    monkeypatch.setattr(claims, "SERVER_WITHIN_S", 0.3)
    await world.bus.client.subscribe(subjects.working(CLAIM), cb=works)
    await world.bus.client.flush()
    connections = world.bus.client.stats["reconnects"]
    pid = world.server.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        assert await asking.may_still_work(STARTED)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert (await world.bus.jetstream.request(subjects.working(CLAIM), timeout_s=5)).data == STILL
    assert world.bus.client.stats["reconnects"] == connections
