"""The bus as a front door when something is full, slow or killed: askers are told, nothing is lost or done twice."""

import asyncio
import json
import os
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nats
import nats.errors
from nats.aio.client import Client

from shared.access.book import KeyBook
from shared.bus.accounts import Publisher
from shared.bus.connection import open_bus
from shared.contracts.access import Allowance, Tenant
from shared.topology import Limits
from tests.system import System, eventually

ACME = Publisher("acme", "acme-app", "acme-password")


async def outside(system: System) -> Client:
    assert system.nats is not None
    return await nats.connect(
        system.nats.url, user=ACME.user, password=ACME.password, max_reconnect_attempts=-1, reconnect_time_wait=0.1
    )


async def once(
    client: Client, subject: str, body: object, message_id: str | None = None, *, within_s: float = 20
) -> dict[str, Any]:
    headers = {"Nats-Msg-Id": message_id} if message_id else None
    answer = await client.request(subject, json.dumps(body).encode(), timeout=within_s, headers=headers)
    found: dict[str, Any] = json.loads(answer.data)
    return found


async def insist(client: Client, subject: str, body: object, message_id: str | None = None) -> dict[str, Any]:
    """Ask as an outside system should: the same question again until there is an answer that decides something."""
    while True:
        try:
            found = await once(client, subject, body, message_id, within_s=2)
        except (nats.errors.Error, OSError):
            await asyncio.sleep(0.1)
            continue
        if found["ok"] or "retry_after_s" not in found:
            return found
        await asyncio.sleep(0.1)


async def completed(client: Client, run_id: str) -> bool:
    found = await insist(client, f"segue.read.{run_id}", {})
    return bool(found["ok"]) and found.get("answer", {}).get("outcome") == "completed"


async def test_a_full_queue_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    """Of a tenant's share and of the whole queue: with when to come back; what was taken is answered."""
    limits = Limits(max_queue_depth=6, max_queue_depth_per_tenant=4)
    async with System(tmp_path, copies={"categorizer": 0}, publishers=[ACME], limits=limits) as system:
        client = await outside(system)
        taken = [await once(client, "segue.chat", {"message": f"Question {n}"}) for n in range(4)]
        share = await once(client, "segue.chat", {"message": "One more"})
        assert (share["ok"], share["status"]) == (False, 429)
        assert share["retry_after_s"] >= 1
        taken += [await once(client, "segue.chat", {"message": f"{n}", "priority": "high"}) for n in range(2)]
        full = await once(client, "segue.chat", {"message": "Too much", "priority": "high"}, "kept-1")
        assert (full["ok"], full["status"]) == (False, 503)
        assert "nothing was kept" in full["detail"]
        timers = await system.client.jetstream().stream_info("FINISHES", subjects_filter="segue.timer.*")
        assert len(timers.state.subjects or {}) == len(taken) == 6
        await system.ready(system.start("categorizer"))
        again = {"message": "Too much", "priority": "high"}
        assert (await insist(client, "segue.chat", again, "kept-1"))["ok"]
        for begun in taken:
            await eventually(lambda begun=begun: completed(client, begun["run_id"]))  # type: ignore[misc]
        await client.close()


async def test_gateways_killed_under_questions_lose_none_and_ask_none_twice(tmp_path: Path) -> None:
    """Two gateways, one killed and one that stands still; every question is said again until it is answered."""
    async with System(tmp_path, copies={"gateway": 3}, publishers=[ACME]) as system:
        client = await outside(system)
        gateways = system.running("gateway")

        async def ask(number: int) -> str:
            begun = await insist(client, "segue.chat", {"message": f"What is {number}?"}, f"q-{number}")
            assert begun["ok"], begun
            return str(begun["run_id"])

        asked = [asyncio.create_task(ask(number)) for number in range(150)]
        while sum(task.done() for task in asked) < 20:
            await asyncio.sleep(0.005)
        gateways[0].kill()
        os.kill(gateways[1].pid, signal.SIGSTOP)
        runs = await asyncio.gather(*asked)
        os.kill(gateways[1].pid, signal.SIGCONT)
        assert len(set(runs)) == 150
        for run_id in runs:
            await eventually(lambda run_id=run_id: completed(client, run_id))  # type: ignore[misc]
        info = await system.client.jetstream().stream_info("EVENTS", subjects_filter="segue.event.acme.*.accepted")
        assert list((info.state.subjects or {}).values()) == [1] * 150
        assert await asyncio.gather(*(ask(number) for number in range(0, 150, 10))) == runs[::10]
        await client.close()


async def test_a_server_that_is_killed_takes_the_door_with_it_and_back(tmp_path: Path) -> None:
    """The gateway answers again on the new connection, and what was asked is there."""
    async with System(tmp_path, publishers=[ACME]) as system:
        assert system.nats is not None
        client = await outside(system)
        before = await insist(client, "segue.chat", {"message": "Before"}, "before")
        system.nats.kill()
        asking = asyncio.create_task(insist(client, "segue.chat", {"message": "During"}, "during"))
        await system.nats.start()
        during = await asking
        for begun in (before, during):
            await eventually(lambda begun=begun: completed(client, begun["run_id"]))  # type: ignore[misc]
        await client.close()


async def test_without_a_gateway_nobody_pretends(tmp_path: Path) -> None:
    """The asker's request fails at its own end; said again later it is taken."""
    async with System(tmp_path, publishers=[ACME]) as system:
        client = await outside(system)
        gateway = system.gateway
        gateway.terminate()
        assert gateway.gone(20)
        try:
            await client.request("segue.chat", b'{"message": "x"}', timeout=1)
        except (nats.errors.NoRespondersError, nats.errors.TimeoutError):
            pass
        else:
            raise AssertionError("somebody answered")
        await system.ready(system.start("gateway"))
        begun = await insist(client, "segue.chat", {"message": "x"}, "x")
        await eventually(lambda: completed(client, begun["run_id"]))
        await client.close()


async def test_a_tenants_limits_hold_at_this_door_too(tmp_path: Path) -> None:
    """Requests a minute, and roles that it may not ask: told with when to come back; other tenants go on."""
    rival = Publisher("rival", "rival-app", "rival-password")
    async with System(tmp_path, publishers=[ACME, rival]) as system:
        bus, now = await open_bus(system.client), datetime.now(UTC)
        allowance = Allowance(requests_per_minute=1, models=("medium_ai",))
        await KeyBook(bus, (), lambda: now).write_tenant(
            Tenant(name="acme", allowance=allowance, written_at=now, by="a test")
        )
        client = await outside(system)

        async def limited() -> bool:
            return (await once(client, "segue.chat", {"message": "x"})).get("status") == 429

        await eventually(limited)
        refused = await once(client, "segue.chat", {"message": "x"})
        assert (refused["ok"], refused["retry_after_s"] > 0) == (False, True)
        flow = {"workflow": [{"type": "linear", "tasks": [{"model": "fast_ai", "prompt": "x"}]}]}
        assert (await once(client, "segue.workflow", flow))["status"] == 403
        assert system.nats is not None
        other = await nats.connect(system.nats.url, user=rival.user, password=rival.password)
        assert (await once(other, "segue.chat", {"message": "x"}))["ok"]
        await client.close()
        await other.close()
