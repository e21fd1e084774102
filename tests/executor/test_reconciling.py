"""Attempts of unknown cost: their provider is asked, what it says is written down once, and nothing is booked twice."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from services.executor import claims, reconciling
from services.executor.providers.inquiries import Found, NeverArrived, NotYet, read_generation, read_tagged
from services.executor.providers.wire import Reply
from shared import subjects
from shared.contracts.commands import ExecuteCall, ReconcileAttempt, UnknownAttempt
from shared.contracts.events import AttemptReconciled, CallSettled, CallWrittenOff
from shared.contracts.message import Fault
from simulator.testing import Simulator, simulator
from tests.conftest import eventually
from tests.executor.conftest import Begin, World, call, route
from tests.executor.standin import Reply as Answer
from tests.executor.standin import answer, delta, json_reply, when

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with simulator() as started:
        yield started


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is waited for as long as in earnest."""
    monkeypatch.setattr(reconciling, "FIRST_AFTER_S", 0.1)
    monkeypatch.setattr(reconciling, "WATCH_S", 0.1)
    monkeypatch.setattr(reconciling, "NEVER_ARRIVED_AFTER_S", 0.3)


async def found(world: World, command: ExecuteCall, number: int) -> AttemptReconciled:
    """Wait for what reconciliation says of an attempt."""
    subject = subjects.facts(command.run).reconciled(command.purpose, command.call, number)
    await eventually(lambda: world.bus.log.exists(subject))
    fact = await world.bus.log.read(subject, AttemptReconciled)
    assert fact is not None
    return fact


async def settled_by_others(world: World, command: ExecuteCall, *unknown: int) -> None:
    """Write that somebody else settled a call."""
    fact = CallSettled(
        run=command.run,
        call=command.call,
        purpose=command.purpose,
        outcome="failed",
        fault=Fault(type="logical", code="task_timeout", message="not done in time"),
        role=command.role,
        asked_role=command.role,
        cost_known=not unknown,
        unknown=tuple(UnknownAttempt(attempt=one, role=command.role, provider="openrouter") for one in unknown),
    )
    facts = subjects.facts(command.run)
    await world.write(facts.settled(command.purpose, command.call), fact)


async def nothing_left(world: World) -> bool:
    return await world.queued() == 0


async def test_a_cut_stream_costs_what_its_provider_says(begin: Begin, sim: Simulator) -> None:
    """Settled with unknown cost, and a moment later it is known to the cent."""
    world = await begin(routes={"medium_ai": route("medium_ai", sim.url)})
    await sim.faults({"fault": {"kind": "cut_stream", "after_chunks": 1}})
    command = call(stream=True)
    settled = await world.do(command)
    assert (settled.outcome, settled.cost_known, settled.asks) == ("answered", False, (1,))
    fact = await found(world, command, 1)
    cut, whole = await sim.ledger()
    assert cut["cost_usd"] > 0
    assert (fact.found, fact.by, fact.cost_usd) == (True, "provider", cut["cost_usd"])
    assert fact.usage.completion_tokens == cut["completion_tokens"]
    assert settled.cost_usd == pytest.approx(whole["cost_usd"], abs=1e-12)
    await eventually(lambda: nothing_left(world))


async def test_an_answer_without_a_cost_is_asked_after_too(begin: Begin, sim: Simulator) -> None:
    world = await begin(routes={"medium_ai": route("medium_ai", sim.url)})
    await sim.faults({"fault": {"kind": "usage", "missing": True}})
    command = call()
    settled = await world.do(command)
    assert (settled.outcome, settled.cost_known, settled.asks) == ("answered", False, (1,))
    assert (await found(world, command, 1)).cost_usd == (await sim.ledger())[0]["cost_usd"]


async def test_one_that_never_arrived_cost_nothing(begin: Begin, sim: Simulator) -> None:
    """Its executor died between the claim and the request: said only once it can be no longer on its way."""
    world = await begin(routes={"medium_ai": route("medium_ai", sim.url)})
    command = call()
    await world.claimed(command, 1)
    settled = await world.do(command)
    assert [one.attempt for one in settled.unknown] == [1]
    fact = await found(world, command, 1)
    assert (fact.found, fact.cost_usd, fact.model) == (False, 0.0, "vendor/medium_ai")
    await eventually(lambda: nothing_left(world))


async def test_who_does_not_know_does_not_say_that_it_never_arrived(
    begin: Begin, sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The simulator's account begins after the attempt: asked some times, it stays unknown."""
    monkeypatch.setattr(reconciling, "MOST_ASKED", 2)
    world = await begin(routes={"medium_ai": route("medium_ai", sim.url)})
    command = call()
    await world.claimed(command, 1, age_s=3600)
    assert (await world.do(command)).asks == (1,)
    await eventually(lambda: nothing_left(world))
    facts = subjects.facts(command.run)
    assert not await world.bus.log.exists(facts.reconciled(command.purpose, command.call, 1))


async def test_a_provider_that_cannot_be_asked_is_not(begin: Begin) -> None:
    """No question is kept; the attempt stays unknown, and listed."""
    world = await begin(routes={"medium_ai": route("medium_ai", "http://127.0.0.1:9", simulated=False)})
    command = call()
    await world.claimed(command, 1)
    world.executor.roster.routes = {"medium_ai": route("medium_ai", world.provider.url, simulated=False)}
    settled = await world.do(command)
    assert ([one.attempt for one in settled.unknown], settled.asks) == ([1], ())
    await eventually(lambda: nothing_left(world))


async def test_openrouter_is_asked_by_the_id_that_it_gave(begin: Begin) -> None:
    """The id came with the head of an answer that was cut; its figures are there at the second look."""
    world = await begin(routes={})
    world.executor.roster.routes = {"medium_ai": route("medium_ai", world.provider.url, simulated=False)}
    told = {
        "id": "gen-7",
        "total_cost": 0.0123,
        "native_tokens_prompt": 40,
        "native_tokens_completion": 7,
        "model": "m",
    }
    world.provider.then(
        cut("gen-7"), answer(), json_reply(404, {"error": {"code": 404}}), json_reply(200, {"data": told})
    )
    command = call(stream=True)
    settled = await world.do(command)
    assert settled.asks == (1,)
    assert settled.failed[0].generation_id == "gen-7"
    fact = await found(world, command, 1)
    assert (fact.cost_usd, fact.usage.prompt_tokens, fact.usage.completion_tokens) == (0.0123, 40, 7)
    assert world.provider.seen[-1].path == "/v1/generation?id=gen-7"
    assert world.provider.seen[-1].headers["authorization"] == "Bearer sk-secret-key"


def cut(generation_id: str) -> Answer:
    async def reply(writer: asyncio.StreamWriter) -> None:
        head = f"content-type: text/event-stream\r\nx-generation-id: {generation_id}\r\nconnection: close"
        writer.write(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode() + delta("half"))
        await writer.drain()
        writer.close()

    return reply


# Settled by others


async def test_what_a_settlement_does_not_know_comes_late(begin: Begin, sim: Simulator) -> None:
    """A task ran out of time while its executor was dead: whoever takes the call buys nothing, and books it."""
    world = await begin(routes={"medium_ai": route("medium_ai", sim.url)})
    command = call(timeout_s=5)
    await world.claimed(command, 1)
    await settled_by_others(world, command)
    await world.send(command)
    assert not (await found(world, command, 1)).found
    facts = subjects.facts(command.run)
    late = await world.bus.log.read(facts.late(command.purpose, command.call), CallWrittenOff)
    assert late is not None
    assert ([one.attempt for one in late.unknown], late.asks, late.cost_usd) == ([1], (1,), 0.0)
    await eventually(lambda: nothing_left(world))
    assert await sim.ledger() == []


async def test_an_executor_that_was_taken_for_dead_has_the_last_word_about_its_own(begin: Begin) -> None:
    """Somebody has settled the call with its attempt unknown meanwhile: it reconciles it, and books nothing twice."""
    world = await begin()
    go = asyncio.Event()
    world.provider.then(when(go, answer(cost=0.001)))
    command = await world.send(call())
    await eventually(lambda: len(world.provider.seen) == 1)
    await settled_by_others(world, command, 1)
    go.set()
    fact = await found(world, command, 1)
    assert (fact.by, fact.found, fact.cost_usd) == ("executor", True, 0.001)
    facts = subjects.facts(command.run)
    await eventually(lambda: nothing_left(world))
    assert not await world.bus.log.exists(facts.late(command.purpose, command.call))


async def test_a_claim_that_was_held_for_long_is_worth_nothing_once_the_call_is_settled(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a provider that does not know an attempt can be believed after a while."""
    monkeypatch.setattr(claims, "CLAIM_STANDS_S", 600.0)
    world = await begin()
    fresh, old, open_still = call(), call(), call()
    for command in (fresh, old):
        await settled_by_others(world, command)
    look = world.executor.claims.lapsed
    aged = claims.CLAIM_STANDS_S + 1
    assert not await look(await world.claimed(fresh, 1), fresh.purpose)
    assert await look(await world.claimed(old, 1, age_s=aged), old.purpose)
    assert not await look(await world.claimed(open_still, 1, age_s=aged), open_still.purpose)


async def test_an_attempt_of_a_call_that_was_taken_over_is_watched(begin: Begin, sim: Simulator) -> None:
    """Who it was taken over from settles without it, and its executor dies: nobody is given the call any more."""
    world = await begin(routes={"medium_ai": route("medium_ai", sim.url)})
    command = call()
    await world.claimed(command, 1)
    second = await world.claimed(command, 2)
    await world.executor.reconciliation.watch(second, command.purpose)
    await settled_by_others(world, command, 1)
    assert not (await found(world, command, 2)).found
    facts = subjects.facts(command.run)
    late = await world.bus.log.read(facts.late(command.purpose, command.call), CallWrittenOff)
    assert late is not None
    assert [one.attempt for one in late.unknown] == [2]


async def test_a_question_that_comes_again_changes_nothing(begin: Begin, sim: Simulator) -> None:
    world = await begin(routes={"medium_ai": route("medium_ai", sim.url)})
    await sim.faults({"fault": {"kind": "reset"}})
    command = call()
    settled = await world.do(command)
    first = await found(world, command, 1)
    asked = len(await sim.ledger())
    of = (command.run, command.purpose, command.call, 1)
    again = ReconcileAttempt(
        run=command.run,
        call=command.call,
        purpose=command.purpose,
        attempt=UnknownAttempt(attempt=1),
        settled_at=settled.settled_at or NOW,
    )
    await world.bus.log.send(subjects.reconcile(*of), again)
    await eventually(lambda: nothing_left(world))
    assert await found(world, command, 1) == first
    assert len(await sim.ledger()) == asked


# What providers say


@pytest.mark.parametrize(
    ("status", "data", "started_at", "expected"),
    [
        (200, b'{"data": [], "complete_since": 1.5}', NOW, NeverArrived()),
        (200, b'{"data": [], "complete_since": 99999999999}', NOW, NotYet),
        (200, b'{"data": [], "complete_since": 1.5}', None, NotYet),
        (200, b'{"data": []}', NOW, NotYet),
        (200, b'{"data": [{"total_cost": 1, "running": true}], "complete_since": 1}', NOW, NotYet),
        (200, b'{"data": [{"total_cost": 1}, {"total_cost": 0.5}], "complete_since": 1}', NOW, Found(cost_usd=1.5)),
        (200, b'{"data": [{"total_cost": 1}, {}], "complete_since": 1}', NOW, Found()),
        (500, b"oops", NOW, NotYet),
        (200, b"[]", NOW, NotYet),
    ],
)
def test_what_the_simulator_says(status: int, data: bytes, started_at: datetime | None, expected: object) -> None:
    said = read_tagged(Reply(status, {}, data), started_at)
    assert said == expected if not isinstance(expected, type) else isinstance(said, expected)


def test_what_openrouter_says() -> None:
    """A request that it does not show yet is asked after again: it never says that one did not arrive."""
    assert isinstance(read_generation(Reply(404, {}, b'{"error": {}}')), NotYet)
    assert isinstance(read_generation(Reply(200, {}, b"<html>")), NotYet)
    said = read_generation(Reply(200, {}, b'{"data": {"total_cost": 0.25, "native_tokens_prompt": 3}}'))
    assert isinstance(said, Found)
    assert (said.cost_usd, said.usage.prompt_tokens) == (0.25, 3)
