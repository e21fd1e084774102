"""Keys and what they may spend, over real processes: two gateways, two executors, the simulator's own ledger."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from shared.access.book import KeyBook, NewKey
from shared.bus.connection import open_bus
from shared.contracts.access import Allowance, Scope
from tests.system import System, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "a-secret-of-a-test-long-enough-to-count"
WORKFLOW: dict[str, Any] = {
    "workflow": [
        {
            "type": "inline",
            "tasks": [{"model": "medium_ai", "prompt": "Say a word about lakes.", "config": {"max_tokens": 60}}],
        }
    ]
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(tmp_path_factory: Any) -> AsyncIterator[System]:
    folder: Path = tmp_path_factory.mktemp("guarded")
    environment = {"SEGUE_AUTH": "keys", "SEGUE_KEY_SECRET": SECRET}
    async with System(folder, copies={"executor": 2, "gateway": 2}, environment=environment) as running:
        yield running


async def book(system: System) -> KeyBook:
    return KeyBook(await open_bus(system.client), [SECRET.encode()], lambda: datetime.now(UTC))


async def key(system: System, tenant: str, *scopes: Scope, **limits: Any) -> NewKey:
    return await (await book(system)).create(
        name="test",
        tenant=tenant,
        scopes=scopes or (Scope.CHAT, Scope.WORKFLOWS, Scope.READ),
        allowance=Allowance(**limits),
        expires_at=None,
        by="a test",
    )


def bearing(made: NewKey) -> dict[str, str]:
    return {"Authorization": f"Bearer {made.text}"}


async def spent(system: System) -> float:
    return sum(float(entry.get("cost_usd") or 0.0) for entry in await system.ledger())


async def test_many_at_once_never_overspend_a_budget(guarded: System) -> None:
    """A hundred at once, over two gateways and two executors, with money for ten.

    By the provider's own ledger never more is spent; the others are told why; nothing stays held.
    """
    system = guarded
    free = await key(system, "free")
    before = await spent(system)
    one = await system.post("/workflow", WORKFLOW, **bearing(free))
    assert one.status_code == 200, one.text
    price = await spent(system) - before
    assert price > 0

    budget = 10 * price
    made = await key(system, "poor", usd_per_day=budget)
    before = await spent(system)
    gateways = [gateway.url for gateway in system.running("gateway")]
    answers = await asyncio.gather(
        *(
            system.http.post(f"{gateways[number % 2]}/workflow", json=WORKFLOW, headers=bearing(made))
            for number in range(100)
        )
    )
    taken = await spent(system) - before
    statuses = Counter(answer.status_code for answer in answers)
    print(f"price {price:.9f} budget {budget:.9f} spent {taken:.9f} {dict(statuses)}")
    assert set(statuses) == {200, 402}, statuses
    assert taken <= budget + 1e-12
    assert 5 <= statuses[200] <= 10
    refused = next(answer.json() for answer in answers if answer.status_code == 402)
    assert refused["error"]["code"] == "budget_exceeded"
    assert "US dollars a day" in refused["detail"]

    async def nothing_held() -> bool:
        used = await (await book(system)).used(f"key.{made.key.id}")
        return not used.account.held

    await eventually(nothing_held)
    used = await (await book(system)).used(f"key.{made.key.id}")
    assert abs(used.account.day_nano_usd - taken * 1e9) < statuses[200] + 1


async def test_only_so_many_runs_go_on_at_the_same_time(guarded: System) -> None:
    """Over two gateways: three of twelve get in, the others are told to come back; later there is room again."""
    system = guarded
    made = await key(system, "busy", concurrent_runs=3)
    asking = {"workflow": [{"type": "inline", "tasks": [{"approve": {"message": "may I?"}}]}]}
    gateways = [gateway.url for gateway in system.running("gateway")]
    answers = await asyncio.gather(
        *(
            system.http.post(f"{gateways[number % 2]}/workflow?wait=false", json=asking, headers=bearing(made))
            for number in range(12)
        )
    )
    assert Counter(answer.status_code for answer in answers) == {202: 3, 429: 9}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["error"]["code"] == "too_many_runs"
    assert int(refused.headers["retry-after"]) >= 1
    assert "x-segue-run-id" not in refused.headers

    assert (await (await book(system)).used(f"key.{made.key.id}")).runs == 3
    for answer in answers:
        if answer.status_code == 202:
            where = f"{gateways[0]}/runs/{answer.json()['run_id']}/cancel"
            assert (await system.http.post(where, json={}, headers=bearing(made))).status_code in (200, 202)

    async def nobody() -> bool:
        return (await (await book(system)).used(f"key.{made.key.id}")).runs == 0

    await eventually(nobody)
    assert (await system.post("/workflow", WORKFLOW, **bearing(made))).status_code == 200


async def test_requests_a_minute_are_counted_over_all_gateways(guarded: System) -> None:
    """Never more in any minute, whichever gateway they come to."""
    system = guarded
    made = await key(system, "hasty", requests_per_minute=5)
    gateways = [gateway.url for gateway in system.running("gateway")]
    began = time.monotonic()
    answers = await asyncio.gather(
        *(
            system.http.post(f"{gateways[number % 2]}/workflow?wait=false", json=WORKFLOW, headers=bearing(made))
            for number in range(20)
        )
    )
    counts = Counter(answer.status_code for answer in answers)
    assert time.monotonic() - began < 60
    assert counts[202] == 5
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["error"]["code"] == "rate_limited"
    assert 1 <= int(refused.headers["retry-after"]) <= 60


async def test_a_revoked_key_is_refused_by_every_gateway_within_a_second(guarded: System) -> None:
    """Both have just answered it, so both know it by heart, and would not read it again for a minute.

    Of some keys one is enough, as a process may stand still; where a look takes a second, the next look counts.
    """
    system = guarded
    gateways = [gateway.url for gateway in system.running("gateway")]

    async def within_a_second() -> bool:
        made = await key(system, "gone")
        for url in gateways:
            assert (await system.http.get(f"{url}/models", headers=bearing(made))).status_code == 200
        assert await (await book(system)).revoke(made.key.id) is not None
        revoked, looks = time.monotonic(), 0

        async def refused() -> bool:
            nonlocal looks
            looks += 1
            answers = [await system.http.get(f"{url}/models", headers=bearing(made)) for url in gateways]
            return all(answer.status_code == 401 for answer in answers)

        await eventually(refused)
        return time.monotonic() - revoked < 1.0 or looks <= 2

    await eventually(within_a_second)


async def test_what_a_dead_executor_held_is_counted_once_and_held_no_more(tmp_path: Path) -> None:
    """Killed anywhere around an attempt, a fresh executor goes on.

    Before the claim nothing was sent, and nothing is counted; with a claim and no end the attempt is unknown, and what
    it held is spent; settled, it is what it cost. In the end nothing is held.
    """
    environment = {"SEGUE_AUTH": "keys", "SEGUE_KEY_SECRET": SECRET}
    points = {"executor.held": False, "executor.claimed": True, "executor.answered": True, "executor.settled": False}
    async with System(tmp_path, copies={"executor": 0}, environment=environment) as system:
        for point, unknown in points.items():
            made = await key(system, "unlucky", usd_per_day=1.0)
            armed = system.start("executor", SEGUE_FAULT=point)
            await system.ready(armed)
            asked = asyncio.create_task(system.post("/workflow", WORKFLOW, **bearing(made)))
            while armed.alive:
                assert not asked.done() or point == "executor.settled", point
                await asyncio.sleep(0.01)
            held = (await (await book(system)).used(f"key.{made.key.id}")).account.held
            assert len(held) == (0 if point == "executor.settled" else 1), point
            fresh = system.start("executor")
            answer = await asked
            assert answer.status_code == 200, answer.text
            used = (await (await book(system)).used(f"key.{made.key.id}")).account
            assert not used.held, point
            lost = next(iter(held.values())).nano_usd if unknown else 0
            facts = await system.facts(answer.json()["run_id"])
            if not any(name.endswith(".reconciled") for name in facts):  # after two seconds what was found is spent
                assert abs(used.day_nano_usd - lost - answer.json()["cost_usd"] * 1e9) < 2, point
            fresh.kill()


async def test_a_role_that_is_not_allowed_is_not_asked(guarded: System) -> None:
    """At the door where the caller names it; by the executor where the system would choose it."""
    system = guarded
    made = await key(system, "narrow", models=("fast_ai",))
    named = await system.post("/workflow", WORKFLOW, **bearing(made))
    assert named.status_code == 403
    assert "medium_ai" in named.json()["detail"]
    chosen = await system.post("/chat", {"message": "How are you?"}, **bearing(made))
    assert chosen.status_code in (200, 403)
    asked = chosen.json()
    if chosen.status_code == 200:
        assert "safeguard" in asked["model_used"]  # the fallback that is allowed


async def test_a_schedule_is_held_to_the_key_that_wrote_it(guarded: System) -> None:
    """It is no way around a key's models; its runs take from the key's budget, and end when that is used up."""
    system = guarded
    made = await key(system, "clockwork", models=["medium_ai"], usd_per_day=0.0000001)

    async def put(path: str, body: dict[str, Any]) -> int:
        answer = await system.http.put(f"{system.gateway.url}{path}", json=body, headers=bearing(made))
        return answer.status_code

    for model in ("thinking_ai", "medium_ai"):
        task = {"model": model, "prompt": "Say a word about clocks.", "output_variable": "word"}
        template = {"description": "a word", "workflow": [{"type": "inline", "tasks": [task]}]}
        assert await put(f"/templates/{model}", template) == 201
    assert await put("/schedules/dear", {"template": "thinking_ai", "every": "1s"}) == 403
    assert await put("/schedules/cheap", {"template": "medium_ai", "every": "1s"}) == 201

    async def ended() -> bool:
        schedule = (await system.http.get(f"{system.gateway.url}/schedules/cheap", headers=bearing(made))).json()
        if schedule["last_run"] is None:
            return False
        run = (await system.http.get(f"{system.gateway.url}/runs/{schedule['last_run']}", headers=bearing(made))).json()
        return run.get("state") == "failed" and "budget" in str(run)

    await eventually(ended)
    await system.http.delete(f"{system.gateway.url}/schedules/cheap", headers=bearing(made))
    assert not [one for one in await system.ledger() if "about clocks" in str(one["asked"])]
