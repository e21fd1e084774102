"""An answer stands for the very same call, for whoever may ask for it; and for nothing else."""

from typing import Any

import pytest
from pydantic import SecretStr

from services.executor.caching import answered, kept, key_of, may_cache
from shared.config.providers import Instance
from shared.contracts.cache import CachedAnswer
from shared.contracts.commands import ExecuteCall
from shared.contracts.events import CallSettled
from shared.contracts.message import ChatMessage
from shared.topology import CACHE
from tests.conftest import eventually
from tests.executor.conftest import TENANT, Begin, World, call, route, run
from tests.executor.standin import answer, refuse

ASKED = ("openrouter", "http://x", "maker/model")


def test_it_is_for_calls_that_ask_or_are_deterministic() -> None:
    assert may_cache(call(cache=True), {"temperature": 0.9})
    assert not may_cache(call(cache=False), {"temperature": 0})
    assert may_cache(call(), {"temperature": 0})
    assert may_cache(call(temperature=0.0), {"temperature": 0.9})
    assert not may_cache(call(temperature=0.5), {"temperature": 0})
    assert not may_cache(call(), {})


@pytest.mark.parametrize(
    "different",
    [
        {"messages": (ChatMessage(role="user", content="how are you!"),)},
        {"messages": (ChatMessage(role="system", content="x"), ChatMessage(role="user", content="how are you?"))},
        {"temperature": 0.1},
        {"max_tokens": 7},
        {"top_p": 0.5},
        {"response_schema": {"type": "object"}},
    ],
)
def test_anything_else_that_the_model_is_told_is_another_call(different: dict[str, Any]) -> None:
    assert key_of(call(), ASKED, {}) != key_of(call(**different), ASKED, {})


def test_the_same_call_of_another_run_is_the_same() -> None:
    assert key_of(call(), ASKED, {}) == key_of(call(run(), call="other", note="x"), ASKED, {})
    assert key_of(call(), ASKED, {}) != key_of(call(), ASKED, {"top_k": 5})
    assert key_of(call(), ASKED, {}) != key_of(call(), (*ASKED[:2], "maker/other"), {})
    stranger = run().model_copy(update={"tenant": "stranger"})
    assert key_of(call(), ASKED, {}).split(".")[1] == key_of(call(stranger), ASKED, {}).split(".")[1]
    assert key_of(call(), ASKED, {}) != key_of(call(stranger), ASKED, {}), "what one tenant asked is no other's"


async def done(world: World, command: ExecuteCall) -> CallSettled:
    """Have a call made, and wait until the executor is through with it: an answer is kept after it was given."""
    settled = await world.do(command)

    async def over() -> bool:
        return await world.queued() == 0

    await eventually(over)
    return settled


async def test_the_second_call_costs_nothing_and_says_what_it_saved(begin: Begin) -> None:
    world = await begin()
    first = await done(world, call(cache=True))
    second = await done(world, call(cache=True))
    assert len(world.provider.seen) == 1
    assert (second.text, second.model, second.cached, second.attempts) == (first.text, first.model, True, 0)
    assert (second.cost_usd, second.saved_usd, second.usage.total_tokens) == (0.0, first.cost_usd, 0)
    assert await world.attempts(call(second.run)) == []
    spent = second.as_spent()
    assert (spent.reused, spent.saved_usd, spent.cost_usd) == (1, first.cost_usd, 0.0)
    assert (await done(world, call())).cached is False, "nobody asked for it, and the temperature is not 0"
    assert (await done(world, call(cache=True, max_tokens=3))).cached is False


async def test_what_is_no_whole_answer_is_not_kept(begin: Begin) -> None:
    """One that was cut short, one that failed, one that came after failures: the next call is asked again."""
    world = await begin()
    world.provider.then(answer("half", finish_reason="length"), refuse(400))
    await done(world, call(cache=True))
    await done(world, call(cache=True))
    third = await done(world, call(cache=True))
    assert (third.outcome, third.cached) == ("answered", False)
    assert len(world.provider.seen) == 3


async def test_a_known_answer_needs_no_model(begin: Begin) -> None:
    """Not even one that could be asked: it is down, and who asks does not notice."""
    world = await begin()
    await done(world, call(cache=True))
    world.provider.default = refuse(500)
    assert (await done(world, call(cache=True))).outcome == "answered"


async def test_it_can_be_switched_off(begin: Begin) -> None:
    world = await begin(caches=False)
    await done(world, call(cache=True))
    assert (await done(world, call(cache=True))).cached is False
    assert (await world.bus.client.jetstream().stream_info(f"KV_{CACHE}")).state.messages == 0


async def test_by_a_roles_temperature(begin: Begin, world: Any) -> None:
    exact = route("medium_ai", world.provider.url)
    parameters = exact.parameters.model_copy(update={"temperature": 0.0})
    await begin(routes={"medium_ai": type(exact)(**{**_fields(exact), "parameters": parameters})})
    await done(world, call())
    assert (await done(world, call())).cached is True
    assert (await done(world, call(cache=False))).cached is False


async def test_variants_do_not_answer_for_each_other(begin: Begin, world: Any) -> None:
    """Nor does which of a provider's servers was asked make a call another one."""
    bare = route("medium_ai", world.provider.url)
    there = {**_fields(bare), "others": (Instance(world.provider.url, SecretStr("another")),), "variant": "default"}
    b = type(bare)(**{**there, "model": "maker/b", "variant": "b", "weight": 1})
    await begin(routes={"medium_ai": type(bare)(**{**there, "weight": 1, "variants": (b,)})})
    models = set()
    for number in range(12):
        first, again = (run().model_copy(update={"session_id": f"s{number}"}) for _ in range(2))
        settled = await done(world, call(first, cache=True))
        models.add((settled.variant, settled.cached))
        assert (await done(world, call(again, cache=True))).cached is True
    assert len([one for one in models if not one[1]]) == 2, "each model was asked once"
    assert len(world.provider.seen) == 2


def _fields(of: Any) -> dict[str, Any]:
    return {name: getattr(of, name) for name in of.__slots__}


def test_what_is_kept_comes_back_whole() -> None:
    command = call(cache=True)
    found = CachedAnswer(
        text="t", role="fast_ai", provider="p", model="m", cost_usd=0.5, answered_at=command.run.born_at
    )
    fact = answered(command, found)
    assert kept(fact, command.run.born_at) is not None
    assert (fact.asked_role, fact.role, fact.saved_usd) == ("medium_ai", "fast_ai", 0.5)
    assert fact.run.tenant == TENANT
