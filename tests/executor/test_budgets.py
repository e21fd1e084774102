"""What a key or a tenant may spend, as the executor keeps it: held, settled, given back, counted once."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.executor.attempts import Policy, Rule
from services.executor.budgets import Budgets, Holding
from shared.access.accounts import usd
from shared.access.book import KeyBook
from shared.access.records import Records
from shared.bus.jetstream import JetStream
from shared.config.providers import Route
from shared.contracts.access import Account, Allowance, Hold, Tenant
from shared.contracts.commands import ExecuteCall
from shared.contracts.conversation import Parameters
from shared.contracts.ids import Purpose
from shared.prices import Override, PriceBook
from tests.conftest import eventually
from tests.executor.conftest import TENANT, Begin, World, call, run
from tests.executor.standin import answer, refuse

PRICES = PriceBook({f"vendor/{role}": Override(input=10, output=10) for role in ("medium_ai", "fast_ai")})
PROMPT_USD, ANSWER_USD = 16 * 1e-5, 100 * 1e-5
"""The most of a call of these tests: a prompt of twelve bytes and its envelope; an answer of 100 tokens."""


async def limited(world: World, **limits: Any) -> None:
    tenant = Tenant(name=TENANT, allowance=Allowance(**limits), written_at=datetime.now(UTC), by="a test")
    await KeyBook(world.bus, (), lambda: datetime.now(UTC)).write_tenant(tenant)


async def at_work(begin: Begin, world: World, limits: Mapping[str, Any] | None = None, **given: Any) -> World:
    """Begin, with an executor that keeps budgets."""
    if limits is not None:
        await limited(world, **limits)
    records = Records(world.bus)
    await records.start()
    began = datetime.now(UTC)  # and stays so: no day turns meanwhile
    budgets = Budgets(world.bus, records, PRICES, now=lambda: began)
    return await begin(budgets=budgets, prices=PRICES, **given)


async def account(world: World) -> Account:
    found, _ = await world.bus.budgets.get(f"money.tenant.{TENANT}", Account)
    return found or Account()


async def test_what_it_cost_takes_the_place_of_what_was_held(begin: Begin, world: World) -> None:
    """While it is asked the most is held, afterwards nothing."""
    await at_work(begin, world, {"usd_per_day": 1.0, "tokens_per_day": 10_000})
    held: list[Account] = []

    async def looking(writer: asyncio.StreamWriter) -> None:
        held.append(await account(world))
        await answer(cost=0.0004)(writer)

    world.provider.then(looking)
    settled = await world.do(call())
    assert settled.outcome == "answered"
    (hold,) = held[0].held.values()
    assert usd(hold.nano_usd) == pytest.approx(PROMPT_USD + ANSWER_USD, abs=2e-9)
    assert hold.tokens == 116
    after = await account(world)
    assert (usd(after.day_nano_usd), after.day_tokens, after.held) == (0.0004, 15, {})


async def test_a_budget_that_is_used_up_is_a_fault_and_nobody_is_asked(begin: Begin, world: World) -> None:
    """Nothing is claimed, and nobody stands in: another model costs money too."""
    await at_work(begin, world, {"usd_per_day": 0.001}, fallbacks={"medium_ai": ["fast_ai"]})
    settled = await world.do(call())
    assert settled.fault is not None
    assert (settled.fault.code, settled.fault.status) == ("budget_exceeded", 402)
    assert "0.001 US dollars a day" in settled.fault.message
    assert (settled.attempts, world.provider.seen) == (0, [])
    assert (await account(world)).held == {}


async def test_tokens_have_a_budget_of_their_own(begin: Begin, world: World) -> None:
    await at_work(begin, world, {"tokens_per_day": 100})
    settled = await world.do(call())
    assert settled.fault is not None
    assert (settled.fault.code, settled.fault.status) == ("budget_exceeded", 429)


async def test_what_others_hold_is_waited_for(begin: Begin, world: World) -> None:
    """Both fit, but not with what they might cost: the second goes when the first has turned out cheaper."""
    await at_work(begin, world, {"usd_per_day": 0.0015})
    together = [0]
    most = [0]

    async def slowly(writer: asyncio.StreamWriter) -> None:
        together[0] += 1
        most[0] = max(most[0], together[0])
        await asyncio.sleep(0.3)
        together[0] -= 1
        await answer(cost=0.0001)(writer)

    world.provider.then(slowly, slowly)
    settled = await asyncio.gather(world.do(call()), world.do(call()))
    assert [one.outcome for one in settled] == ["answered", "answered"]
    assert most == [1]
    assert [one.attempts for one in settled] == [1, 1], "waiting is no attempt"
    assert usd((await account(world)).day_nano_usd) == pytest.approx(0.0002)


async def test_every_attempt_is_held_and_settled_by_itself(begin: Begin, world: World) -> None:
    """One that cost nothing, one whose cost nobody said (counted whole), and one that answered."""
    await at_work(begin, world, {"usd_per_day": 1.0}, policy=Policy(rules={"transient": Rule(3)}, base_s=0.01))
    world.provider.then(refuse(503), answer(text="x", cost=None, finish_reason="error"), answer(cost=0.0002))
    settled = await world.do(call())
    assert settled.outcome == "answered"
    assert settled.attempts == 3
    after = await account(world)
    assert after.held == {}
    assert usd(after.day_nano_usd) == pytest.approx(settled.cost_usd, abs=0.0012)


async def test_a_model_without_a_price_is_not_asked_for_a_budget_in_dollars(begin: Begin, world: World) -> None:
    """Nobody could say when to stop."""
    await limited(world, usd_per_month=5.0)
    records = Records(world.bus)
    await records.start()
    await begin(budgets=Budgets(world.bus, records, PriceBook()))
    settled = await world.do(call())
    assert settled.fault is not None
    assert (settled.fault.code, "SEGUE_PRICES" in settled.fault.message) == ("price_unknown", True)


async def test_roles_that_are_not_allowed_are_left_out_of_the_chain(begin: Begin, world: World) -> None:
    """Whoever stands in answers where that is allowed; the system's own decisions are nobody's to forbid."""
    await at_work(begin, world, {"models": ("fast_ai",)}, fallbacks={"medium_ai": ["fast_ai"]})
    settled = await world.do(call())
    assert (settled.outcome, settled.role) == ("answered", "fast_ai")
    decision = await world.do(call(purpose=Purpose.DECISION, call="categorize"))
    assert (decision.outcome, decision.role) == ("answered", "medium_ai")
    await limited(world, models=())

    async def refused() -> bool:
        found = await world.do(call())
        return found.fault is not None and (found.fault.code, found.fault.status) == ("model_not_allowed", 403)

    await eventually(refused)


async def test_whoever_has_no_budget_costs_nothing(begin: Begin, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one question to the bus more than an executor without budgets asks, once the tenant is known."""
    asked: list[str] = []
    request = JetStream.request

    async def counting(self: JetStream, subject: str, *arguments: Any, **named: Any) -> Any:
        asked.append(subject)
        return await request(self, subject, *arguments, **named)

    await at_work(begin, world)
    await world.do(call())
    monkeypatch.setattr(JetStream, "request", counting)
    await world.do(call(run().model_copy(update={"key": None})))
    with_budgets = [subject for subject in asked if "budgets" in subject or "keys" in subject]
    assert with_budgets == []


async def test_a_copy_that_loses_its_claim_gives_its_own_hold_back(begin: Begin, world: World) -> None:
    """The other one's stays until it is settled."""
    await at_work(begin, world, {"usd_per_day": 1.0}, takes=False)
    budgets, route = world.executor.budgets, world.executor.roster.routes["medium_ai"]
    command = call()
    mine, other = await held(budgets, command, route, "mine"), await held(budgets, command, route, "other")
    await budgets.give_back(mine)
    assert [name.rpartition(".")[2] for name in (await account(world)).held] == ["other"]
    await budgets.give_back(other)
    after = await account(world)
    assert (after.held, after.day_nano_usd) == ({}, 0)


async def held(budgets: Budgets, command: ExecuteCall, route: Route, claim: str) -> Holding:
    found = await budgets.hold(command, route, 1, claim)
    assert isinstance(found, Holding)
    assert found.accounts == (f"tenant.{TENANT}",)
    return found


async def test_a_limit_that_is_taken_away_meanwhile_leaves_nothing_held(begin: Begin, world: World) -> None:
    await at_work(begin, world, {"usd_per_day": 1.0})

    async def freeing(writer: asyncio.StreamWriter) -> None:
        await KeyBook(world.bus, (), lambda: datetime.now(UTC)).forget_tenant(TENANT)
        records = world.executor.budgets.records
        assert records is not None
        while await records.tenant(TENANT) is not None:
            await asyncio.sleep(0.01)
        await answer(cost=0.0004)(writer)

    world.provider.then(freeing)
    assert (await world.do(call())).outcome == "answered"
    after = await account(world)
    assert (usd(after.day_nano_usd), after.held) == (0.0004, {})


async def test_what_was_forgotten_is_counted_by_whoever_looks_next(begin: Begin, world: World) -> None:
    """A hold whose time is over is spent: nobody will say any more that it was not."""
    old = Hold(nano_usd=500_000_000, tokens=7, until=datetime.now(UTC) - timedelta(seconds=1))
    forgotten = Account(held={"r.task.0-0.1.c": old})
    await world.bus.budgets.put(f"money.tenant.{TENANT}", forgotten, 0)
    await at_work(begin, world, {"usd_per_day": 1.0})
    world.provider.then(answer(cost=0.25))
    await world.do(call())
    after = await account(world)
    assert (usd(after.day_nano_usd), after.held) == (0.75, {})


async def test_settings_that_change_who_answers_are_not_handed_on_for_a_budget(begin: Begin, world: World) -> None:
    """A list of other models would be asked at another price; what bounds nothing passes."""
    await at_work(begin, world, {"usd_per_day": 1.0})
    refused = await world.do(call(parameters=Parameters(extra={"models": ["vendor/dear"], "user": "ada"})))
    assert refused.fault is not None
    assert (refused.fault.code, refused.fault.status, "models" in refused.fault.message) == (
        "model_not_allowed",
        403,
        True,
    )
    assert world.provider.seen == []
    assert (await world.do(call(parameters=Parameters(extra={"user": "ada"})))).outcome == "answered"
