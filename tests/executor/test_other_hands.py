"""Calls that were in other hands before: of dead executors, of living ones, of a server that died meanwhile."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from nats.aio.msg import Msg

from services.executor import claims, settlement, taxonomy
from services.executor.claims import STILL
from services.executor.providers import Answered
from services.executor.roster import Roster
from services.executor.settlement import Ledger
from shared import subjects
from shared.bus.delivery import Delivery, Done, Retry
from shared.bus.errors import Unavailable
from shared.bus.log import Log, Written
from shared.contracts.commands import ExecuteCall
from shared.contracts.events import CallSettled
from tests.conftest import eventually
from tests.executor.conftest import TENANT, Begin, World, call, run
from tests.executor.standin import answer, when
from tests.executor.test_unreadable_calls import buried


async def test_an_attempt_of_a_dead_executor_is_unknown(begin: Begin) -> None:
    """Its claim is on the log and nobody answers for it: the next attempt is made, the lost one is listed."""
    world = await begin()
    command = call()
    await world.claimed(command, 1)
    settled = await world.do(command)
    assert (settled.outcome, settled.attempts, settled.cost_known) == ("answered", 2, False)
    assert [(one.attempt, one.reserved_usd) for one in settled.unknown] == [(1, 0.5)]


async def test_a_call_that_kills_executors_is_given_up(begin: Begin) -> None:
    """After four attempts whose outcome died, nobody tries it again."""
    world = await begin()
    command = call()
    for number in (1, 2, 3, 4):
        await world.claimed(command, number)
    settled = await world.do(command)
    assert settled.fault is not None
    assert (settled.fault.type, settled.fault.code, settled.attempts) == ("fatal", "executor_died", 4)
    assert world.provider.seen == []


async def test_a_call_that_this_code_cannot_deal_with_fails_and_is_buried(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its run is told after some deliveries, instead of waiting for its deadline."""
    world = await begin()

    async def bug(*_: object) -> None:
        raise IndexError("nobody thought of this")

    monkeypatch.setattr(Roster, "passing", bug)
    command = call(run(lasts_s=600))
    settled = await world.do(command)
    assert settled.fault is not None
    assert (settled.fault.type, settled.fault.code, settled.attempts) == ("fatal", "internal_error", 0)
    assert "IndexError" in settled.fault.message
    headers = (await buried(world)).headers or {}
    assert any("nobody thought of this" in value for value in headers.values())


async def test_an_attempt_that_somebody_still_works_on_is_left_to_him(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked, the other executor says so; when it has settled the call, there is nothing left to do."""
    monkeypatch.setattr(claims, "ANSWER_WITHIN_S", 10.0)
    world = await begin()
    command = call()
    asked: list[str] = []

    async def other(msg: Msg) -> None:
        asked.append(msg.subject)
        await msg.respond(STILL)

    working = await world.bus.client.subscribe(subjects.working("other.*"), cb=other)
    started = await world.claimed(command, 1, by="other.claim")
    await world.send(command)
    await eventually(lambda: len(asked) >= 2)
    assert (world.provider.seen, await world.queued()) == ([], 1)
    fact = settlement.answered(Ledger.of(command), started, Answered("his"), took_s=0, simulated=False)
    await world.write(subjects.events(TENANT, command.run.run_id).settled(command.purpose, command.call), fact)
    await working.unsubscribe()
    await world.emptied()
    assert (await world.settled(command)).text == "his"
    assert world.provider.seen == []


def delivery(world: World, command: ExecuteCall, seq: int, *, times: int = 1) -> Delivery:
    """Return the message of a call as a consumer would hand it out."""
    return Delivery(world.subject(command), command.encode(), None, "medium", "CALLS", seq, times, 0, 0)


async def test_a_message_whose_call_waits_is_dropped(begin: Begin) -> None:
    """Its executor put the call back and died before its ack: what waits knows of the attempt that failed."""
    world = await begin(takes=False)
    command = call()
    await world.claimed(command, 1)
    later = datetime.now(UTC) + timedelta(minutes=5)
    waiting = subjects.wait(command.run, command.purpose, command.call)
    await world.bus.log.send_at(waiting, world.subject(command), command, later)
    assert await world.executor.execute(delivery(world, command, 1)) == Done()
    assert await world.executor.execute(delivery(world, command, 1, times=2)) == Done()
    assert world.provider.seen == []


async def test_the_latest_message_of_a_call_goes_on(begin: Begin) -> None:
    """Its wait is over: of two messages on the subject the later one knows more."""
    world = await begin(takes=False)
    command = call()
    await world.claimed(command, 1)
    first = await world.bus.jetstream.publish(world.subject(command), command.encode())
    second = await world.bus.jetstream.publish(world.subject(command), command.encode())
    assert await world.executor.execute(delivery(world, command, first, times=2)) == Done()
    assert world.provider.seen == []
    assert await world.executor.execute(delivery(world, command, second)) == Done()
    assert len(world.provider.seen) == 1


async def test_a_call_that_was_settled_without_an_attempt_is_not_bought(begin: Begin) -> None:
    """Its executor died between settling and its ack, and what it could not do then can be done now."""
    world = await begin(takes=False)
    command = call()
    why = settlement.fault(taxonomy.NO_PROVIDER, "no key")
    fact = settlement.failed(Ledger.of(command), why, started=None, simulated=False)
    await world.write(subjects.events(TENANT, command.run.run_id).settled(command.purpose, command.call), fact)
    assert await world.executor.execute(delivery(world, command, 1, times=2)) == Done()
    assert world.provider.seen == []


async def test_after_a_reconnect_nobody_is_taken_for_dead_at_once(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who does not answer may only not be connected again yet; after a moment he is dead."""
    world = await begin(takes=False)
    command = call()
    await world.claimed(command, 1)
    monkeypatch.setattr(claims, "BACK_WITHIN_S", 600.0)
    await world.executor.claims.reconnected()
    assert await world.executor.execute(delivery(world, command, 1, times=2)) == Retry(1.0)
    monkeypatch.setattr(claims, "BACK_WITHIN_S", 0.0)
    assert await world.executor.execute(delivery(world, command, 1, times=2)) == Done()
    assert len(world.provider.seen) == 1


async def test_the_answer_survives_a_server_that_dies_meanwhile(begin: Begin) -> None:
    """The bus is gone for longer than a message waits for its ack: one request, one settlement."""
    world = await begin()
    go = asyncio.Event()
    world.provider.then(when(go, answer("kept")))
    command = await world.send(call())
    await eventually(lambda: len(world.provider.seen) == 1)
    world.server.kill()
    await eventually(lambda: not world.bus.client.is_connected)
    go.set()
    await asyncio.sleep(3.0)  # how long it is away
    await world.server.start()
    settled = await world.settled(command)
    assert (settled.text, settled.attempts, settled.unknown) == ("kept", 1, ())
    assert len(world.provider.seen) == 1


async def test_an_answer_that_was_paid_for_is_kept_until_the_log_takes_it(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log does not answer, again and again: nothing is asked anew, the answer is written when it does."""
    world = await begin(takes=False)
    write, refusals = Log.write, 3

    async def unavailable_at_first(self: Log, subject: str, fact: Any) -> Written[Any]:
        nonlocal refusals
        if isinstance(fact, CallSettled) and refusals:
            refusals -= 1
            raise Unavailable("write", 20.0)
        return await write(self, subject, fact)

    monkeypatch.setattr(Log, "write", unavailable_at_first)
    command = call()
    assert await world.executor.execute(delivery(world, command, 1)) == Done()
    assert (await world.settled(command)).text == "hello"
    assert (refusals, len(world.provider.seen)) == (0, 1)
