"""What is heard live is what the log has, and only that; and whoever waits for a fact gets it though hints get lost."""

import asyncio
import time

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from shared import subjects
from shared.bus import live
from shared.bus.connection import Bus
from shared.bus.server import NatsServer
from shared.contracts.events import CallSettled, RunAccepted, RunCategorized
from shared.contracts.ids import Purpose
from shared.contracts.message import Run, Unreadable
from shared.subjects import Facts
from shared.topology import EVENTS
from tests.bus.ground import Ground, accepted, categorized, facts_of
from tests.conftest import eventually


def live_of(run: Run) -> Facts:
    return subjects.live(run.tenant, run.run_id)


PROBE = b"is anybody there?"


async def hear(ground: Ground, bus: Bus, subject: str) -> list[Msg]:
    """Return a list that fills with what is heard; every server knows of the interest when this returns."""
    heard: list[Msg] = []
    known: set[bytes] = set()

    async def take(msg: Msg) -> None:
        if msg.data.startswith(PROBE):
            known.add(msg.data)
        else:
            heard.append(msg)

    await bus.client.subscribe(subject, cb=take)
    for server in ground.servers:  # in a cluster the others hear of it later than the one that was told
        client = await nats.connect(server.url)

        async def asked(client: Client = client, probe: bytes = PROBE + server.url.encode()) -> bool:
            await client.publish(subject.replace("*", "probe").replace(">", "probe"), probe)
            return probe in known

        await eventually(asked)
        await client.close()
    return heard


async def wait_for(bus: Bus, run: Run, *, within_s: float = 30, says: bytes | None = None) -> RunCategorized | None:
    """Expect a run's category, with nothing asked but `says` published live as a hint."""

    async def ask() -> None:
        if says is not None:
            await bus.client.publish(live_of(run).category, says)

    return await bus.live.expect(
        live_of(run).category,
        facts_of(run).category,
        RunCategorized,
        ask=ask,
        until=asyncio.get_running_loop().time() + within_s,
    )


# The feed


async def test_what_is_stored_is_heard_once_in_order_with_its_sequence(ground: Ground) -> None:
    run, bus, writer = ground.run(), ground.buses[0], await ground.bus()
    heard = await hear(ground, bus, live_of(run).all)
    await writer.log.write(facts_of(run).accepted, accepted(run))
    await writer.log.write(facts_of(run).category, categorized(run, "first"))
    await writer.log.write(facts_of(run).category, categorized(run, "second"))  # refused
    await writer.log.write(facts_of(run).accepted, accepted(run))  # refused
    await writer.jetstream.publish_once(facts_of(run).ended, b"{}")
    await eventually(lambda: len(heard) >= 3)
    assert [subjects.fact_of(msg.subject) for msg in heard] == ["accepted", "category", "ended"]
    assert RunCategorized.decode(heard[1].data).reason == "first"
    for msg in heard:
        stored = await bus.jetstream.last(EVENTS, msg.subject.replace("segue.live.", "segue.event."))
        assert stored is not None
        assert msg.headers is not None
        assert int(msg.headers["Nats-Sequence"]) == stored.seq
        assert stored.data == msg.data


async def test_commands_and_canaries_are_not_heard(ground: Ground) -> None:
    run, bus = ground.run(), ground.buses[0]
    heard = await hear(ground, bus, "segue.live.>")
    await bus.jetstream.publish(subjects.canary("test"), b"", headers={"Nats-TTL": "1s"})
    await bus.log.set_timer(run)
    await bus.log.take_timer_back(run.run_id)
    await bus.log.write(facts_of(run).accepted, accepted(run))
    await eventually(lambda: len(heard) >= 1)
    assert [msg.subject for msg in heard] == [live_of(run).accepted]


# Waiting for a fact


async def test_a_fact_is_heard_as_soon_as_it_is_stored(ground: Ground) -> None:
    """Asked over the connection that listens: the server knows of the listener before it has the question."""
    run, bus, writer = ground.run(), ground.buses[0], await ground.bus()
    asked = await hear(ground, writer, f"ask.{run.run_id}")

    async def answer() -> None:
        await eventually(lambda: bool(asked))
        await writer.log.write(facts_of(run).category, categorized(run, "r"))

    answering = asyncio.create_task(answer())
    began = time.monotonic()
    fact = await bus.live.expect(
        live_of(run).category,
        facts_of(run).category,
        RunCategorized,
        ask=lambda: bus.client.publish(f"ask.{run.run_id}", b""),
        until=asyncio.get_running_loop().time() + 30,
    )
    await answering
    print(f"heard after {(time.monotonic() - began) * 1e3:.1f} ms on {ground.replicas} server(s)")
    assert fact == categorized(run, "r")


async def test_a_large_fact_is_heard_whole(ground: Ground) -> None:
    run, bus, writer = ground.run(), ground.buses[0], await ground.bus()
    purpose = Purpose.DECISION
    said = CallSettled(
        run=run, call="c", purpose=purpose, outcome="answered", text="x" * 600_000, role="r", asked_role="r"
    )
    fact = await bus.live.expect(
        live_of(run).settled(purpose, "c"),
        facts_of(run).settled(purpose, "c"),
        CallSettled,
        ask=lambda: writer.log.write(facts_of(run).settled(purpose, "c"), said),
        until=asyncio.get_running_loop().time() + 30,
    )
    assert fact == said


async def test_a_fact_from_before_anyone_listened_is_found_soon(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the first look at the log: the next one would come a minute later."""
    monkeypatch.setattr(live, "LOOK_AGAIN_S", 60.0)
    run, bus = ground.run(), ground.buses[0]
    await bus.log.write(facts_of(run).category, categorized(run, "before"))
    began = time.monotonic()
    assert await wait_for(bus, run, within_s=80) == categorized(run, "before")
    assert time.monotonic() - began < 30


async def test_a_fact_whose_hint_was_lost_is_found(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is heard at all: the log is looked at again and again."""
    run, bus, writer = ground.run(), ground.buses[0], await ground.bus()
    subscribe = bus.client.subscribe

    async def deaf(subject: str, **more: object) -> object:
        return await subscribe(f"nothing.{subject}", **more)  # type: ignore[arg-type]  # handed on as it came

    monkeypatch.setattr(bus.client, "subscribe", deaf)
    waiting = asyncio.create_task(wait_for(bus, run))
    await asyncio.wait({waiting}, timeout=0.3)  # it has looked once, in vain
    assert not waiting.done()
    await writer.log.write(facts_of(run).category, categorized(run, "r"))
    assert await asyncio.wait_for(waiting, 40) == categorized(run, "r")


async def test_a_hint_that_cannot_be_read_is_no_fact(ground: Ground) -> None:
    run, bus = ground.run(), ground.buses[0]
    assert await wait_for(bus, run, within_s=0.3, says=b"not json") is None
    await bus.log.write(facts_of(run).category, categorized(run, "r"))
    assert await wait_for(bus, run, says=b"not json") == categorized(run, "r")


async def test_at_its_deadline_it_has_nothing(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not when it would look again."""
    monkeypatch.setattr(live, "LOOK_AGAIN_S", 60.0)
    run, bus = ground.run(), ground.buses[0]
    for within_s in (0.0, 0.3):
        began = time.monotonic()
        assert await wait_for(bus, run, within_s=within_s) is None
        assert within_s <= time.monotonic() - began < within_s + 30


async def test_what_is_there_at_its_deadline_is_still_found(ground: Ground) -> None:
    run, bus = ground.run(), ground.buses[0]
    await bus.log.write(facts_of(run).category, categorized(run, "r"))
    assert await wait_for(bus, run, within_s=-5) == categorized(run, "r")


async def test_a_fact_of_a_later_version_is_an_error_not_a_wait(ground: Ground) -> None:
    run, bus = ground.run(), ground.buses[0]
    body = categorized(run, "r").encode().replace(b'"v":1', b'"v":2')
    await bus.jetstream.publish_once(facts_of(run).category, body)
    with pytest.raises(Unreadable, match="of version 2"):
        await wait_for(bus, run)


async def test_waiting_leaves_nothing_behind(ground: Ground) -> None:
    run, bus = ground.run(), ground.buses[0]
    before = len(bus.client._subs)
    for _ in range(3):
        await wait_for(bus, run, within_s=0)
    waiting = asyncio.create_task(wait_for(bus, run))
    await eventually(lambda: len(bus.client._subs) == before + 1)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert len(bus.client._subs) == before
    assert bus.live._waiting == set()


async def test_a_fact_that_came_while_the_connection_was_away_is_found(own_nats_server: NatsServer) -> None:
    """Its hint went to nobody; on reconnect everybody who waits looks at the log at once."""
    ground = Ground([own_nats_server], mortal=True)
    await ground.provision()
    bus, writer = await ground.bus(), await ground.bus()
    run = ground.run()
    waiting = asyncio.create_task(wait_for(bus, run, within_s=80))
    await eventually(lambda: bool(bus.live._waiting))
    await asyncio.wait({waiting}, timeout=0.3)  # it has looked once, in vain
    own_nats_server.kill()
    write = asyncio.create_task(writer.log.write(facts_of(run).category, categorized(run, "r")))
    await own_nats_server.start()
    assert (await asyncio.wait_for(write, 60)).mine
    began = time.monotonic()
    assert await asyncio.wait_for(waiting, 20) == categorized(run, "r")
    print(f"found {time.monotonic() - began:.2f} s after it was written")
    await ground.close()


# What is heard is there


async def test_whoever_hears_a_fact_can_read_it_from_the_log(ground: Ground) -> None:
    """The hint comes after the storing, never before."""
    bus, writer = ground.buses[0], await ground.bus()
    runs = [ground.run() for _ in range(50)]
    heard = await hear(ground, bus, subjects.live(ground.tenant, "*").accepted)
    missed: list[str] = []

    async def look() -> None:
        for n in range(len(runs)):
            await eventually(lambda n=n: len(heard) > n)  # type: ignore[misc]  # bound at once
            subject = heard[n].subject.replace("segue.live.", "segue.event.")
            if await bus.log.read(subject, RunAccepted) is None:
                missed.append(subject)

    looking = asyncio.create_task(look())
    for run in runs:
        await writer.log.write(facts_of(run).accepted, accepted(run))
    await looking
    assert missed == []
