"""Listening: everything is heard by everyone, from one subscription; who is too slow is told that something is lost."""

import asyncio
from typing import Any

import pytest
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NothingCame

from shared import subjects
from shared.bus.connection import Bus
from shared.bus.hearing import Ear
from shared.contracts.message import Run
from tests.bus.ground import Ground, accepted, facts_of
from tests.bus.test_live import live_of
from tests.conftest import eventually


def token_of(run: Run, call: str) -> str:
    return subjects.token(run.tenant, run.run_id, call)


async def hear(ear: Ear, count: int) -> list[str]:
    """Return the subjects of the next messages."""
    got: list[str] = []
    async with asyncio.timeout(30):
        while len(got) < count:
            got += [msg.subject for msg in (await ear.next()).messages]
    return got


async def look(ear: Ear, within_s: float = 30.0) -> None:
    """Wait until the ear says that there may be something on the log."""
    async with asyncio.timeout(within_s):
        while not (await ear.next(60.0)).look:
            pass


async def known_to(listening: Bus, speaking: Bus) -> None:
    """Return once what `speaking` says comes to where `listening` has subscribed so far.

    Servers of a cluster tell each other of subscriptions a moment after they have them, in their order: so when a last
    one is answered, those before it are known.
    """
    marker = listening.client.new_inbox()

    async def answer(msg: Msg) -> None:
        await msg.respond(b"")

    async def answered() -> bool:
        try:
            await speaking.client.request(marker, b"", timeout=1)
        except (NoRespondersError, NothingCame):
            return False
        return True

    subscription = await listening.client.subscribe(marker, cb=answer)
    await eventually(answered)
    await subscription.unsubscribe()


async def test_a_listener_hears_everything_and_is_told_to_look(ground: Ground) -> None:
    run, bus, writer = ground.run(), ground.buses[0], await ground.bus()
    async with bus.hearing.listen(live_of(run).all, token_of(run, "*")) as ear:
        await known_to(bus, writer)
        await writer.log.write(facts_of(run).accepted, accepted(run))
        await writer.client.publish(token_of(run, "c"), b"tok")
        assert sorted(await hear(ear, 2)) == [live_of(run).accepted, token_of(run, "c")]
        quiet = await ear.next(0.01)
        assert (quiet.messages, quiet.look, quiet.lost) == ([], True, False)  # nothing for a while: look yourself
        bus.hearing.reconnected()
        assert (await ear.next(60.0)).lost  # what was said meanwhile is lost
    assert bus.hearing.listening == (0, 0)


async def test_of_hints_only_is_known_that_they_were(ground: Ground) -> None:
    """However many and however large, they take no room: the log has them."""
    run, bus = ground.run(), ground.buses[0]
    async with bus.hearing.listen(hints=[live_of(run).all], most_bytes=1) as ear:
        await bus.client.flush()
        for n in range(50):
            await bus.client.publish(f"{live_of(run).prefix}.n{n}", bytes(10_000))
        await look(ear)
        assert (await ear.next(0.01)).messages == []


async def test_many_listeners_share_a_subscription(ground: Ground) -> None:
    """Each hears everything from when it began; the last one that leaves ends it."""
    run, bus = ground.run(), ground.buses[0]
    ready, go = asyncio.Semaphore(0), asyncio.Event()

    async def listener(bus: Bus) -> list[str]:
        async with bus.hearing.listen(token_of(run, "*")) as ear:
            ready.release()
            await go.wait()
            return await hear(ear, 3)

    listeners = [asyncio.create_task(listener(bus)) for _ in range(20)]
    for _ in range(20):
        await ready.acquire()
    assert bus.hearing.listening == (20, 1)
    await bus.client.flush()
    go.set()
    for n in range(3):
        await bus.client.publish(token_of(run, f"c{n}"), b"")
    for heard in await asyncio.gather(*listeners):
        assert heard == [token_of(run, f"c{n}") for n in range(3)]
    assert bus.hearing.listening == (0, 0)


async def test_whoever_goes_while_a_subject_is_opened_leaves_it_to_the_others(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two come at once; the one that subscribes for both is cancelled before that is done."""
    run, bus = ground.run(), ground.buses[0]
    subject, begun, subscribe = token_of(run, "c"), asyncio.Event(), bus.client.subscribe

    async def held(asked: str, **options: Any) -> Subscription:
        if asked == subject and not begun.is_set():
            begun.set()
            await asyncio.Event().wait()
        return await subscribe(asked, **options)

    async def listens() -> None:
        async with bus.hearing.listen(subject):
            pass

    monkeypatch.setattr(bus.client, "subscribe", held)
    first = asyncio.create_task(listens())
    await begun.wait()
    asyncio.get_running_loop().call_soon(first.cancel)
    async with asyncio.timeout(30), bus.hearing.listen(subject) as ear:
        await bus.client.publish(subject, b"tok")
        assert await hear(ear, 1) == [subject]
    assert first.cancelled()
    assert bus.hearing.listening == (0, 0)


async def test_a_listener_that_is_too_slow_is_told_that_something_is_lost(ground: Ground) -> None:
    """It keeps what came first, within its bound; another one on the same subject loses nothing."""
    run, bus = ground.run(), ground.buses[0]
    async with (
        bus.hearing.listen(token_of(run, "*"), most_bytes=2_000) as slow,
        bus.hearing.listen(token_of(run, "*")) as other,
    ):
        await bus.client.flush()
        for n in range(5):
            await bus.client.publish(token_of(run, f"n{n}"), bytes(400))
        assert len(await hear(other, 5)) == 5
        heard = await slow.next()
        assert ([msg.subject[-2:] for msg in heard.messages], heard.lost, heard.look) == (["n0", "n1"], True, True)
        await bus.client.publish(token_of(run, "n9"), b"")
        assert await hear(slow, 1) == [token_of(run, "n9")]


async def test_answers_come_to_who_asked(ground: Ground) -> None:
    bus, other = ground.buses[0], await ground.bus()
    async with bus.hearing.listen() as one, bus.hearing.listen() as two:
        await known_to(bus, other)
        await other.client.publish(two.inbox, b"to two")
        assert await hear(two, 1) == [two.inbox]
        assert (await one.next(0.01)).messages == []
    await other.client.publish(one.inbox, b"nobody is there any more")
