"""A limit under load, by the provider's own ledger: what it was asked is in no window more than allowed."""

import asyncio
import random
import time

from bench.limits.ledger import asked, most_in, used
from services.executor.limits import Limit
from shared.contracts.message import ChatMessage
from simulator.testing import simulator
from tests.executor.conftest import Begin, World, call, route, run
from tests.executor.test_limits import provisioned

WINDOW_S, TOKENS = 10, 6_000
LASTS_S = 28.0


async def test_in_no_window_more_tokens_are_taken_than_allowed(begin: Begin, world: World) -> None:
    """Three executors, two tenants, calls of many sizes, some refused: and most of what is allowed is taken."""
    limit = Limit("tested", (), tokens_per_minute=TOKENS, token_window_s=WINDOW_S)
    await provisioned(world, limit)
    chance = random.Random(1)
    async with simulator(profile="fast", seed=1) as provider:
        await provider.faults({"fault": {"kind": "rate_limit"}, "times": 5})
        for _ in range(3):
            await begin(
                limits={"tested": limit},
                routes={"medium_ai": route("medium_ai", provider.url, limit="tested")},
            )
        began = time.time()
        for number in range(160):
            text = f"question {number}: " + "word " * chance.randrange(50, 500)
            await world.send(
                call(
                    run(tenant=("a", "b")[number % 2], lasts_s=120),
                    messages=(ChatMessage(role="user", content=text),),
                    max_tokens=chance.choice([100, 400]),
                )
            )
        await asyncio.sleep(began + LASTS_S - time.time())
        entries, ended = await provider.ledger(), time.time()
    times = asked(entries)
    _, tokens = most_in(times, WINDOW_S)
    assert tokens <= TOKENS
    _, share = used(times, (1, TOKENS), WINDOW_S, ended)
    assert share > 0.3, "else the limit was not what held it back"
    assert sum(1 for one in entries if one["status"] == 429) == 5
