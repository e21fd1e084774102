"""Processes die at random under load: every run can say what it waits for all the while, and ends, once."""

import asyncio
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from tests.system import SERVICES, System, eventually

OVER = {"completed", "failed", "denied", "cancelled"}
GRAPH: dict[str, Any] = {
    "workflow": [
        {
            "type": "graph",
            "tasks": [
                {"model": "medium_ai", "prompt": "one", "output_variable": "one"},
                {"model": "fast_ai", "prompt": "two of {one}", "output_variable": "two"},
                {"model": "fast_ai", "prompt": "three of {one}", "output_variable": "three"},
                {"model": "medium_ai", "prompt": "{two} and {three}", "output_variable": "both"},
            ],
        }
    ]
}
ASKING: dict[str, Any] = {
    "workflow": [
        {
            "type": "inline",
            "tasks": [
                {"model": "fast_ai", "prompt": "draft", "output_variable": "draft"},
                {"approve": {"message": "send {draft}?", "timeout_s": 6, "default": "approve"}},
                {"model": "fast_ai", "prompt": "send {draft}", "output_variable": "sent"},
            ],
        }
    ]
}
HARD = "Research kites, then write three posts and an e-mail, then evaluate all of it in a report."


async def test_every_run_says_what_it_waits_for_and_ends_whoever_dies(tmp_path: Path) -> None:
    chance = random.Random(7)
    copies = {name: 2 for name in SERVICES if name != "gateway"}
    async with System(tmp_path, copies=copies, profile="fast") as system:
        asked = [
            asyncio.create_task(_asked(system, number, kind, chance.random() * 6))
            for number, kind in enumerate(["chat", "hard", "graph", "asking"] * 10)
        ]
        watching = asyncio.create_task(_watched(system))
        for _ in range(10):
            await asyncio.sleep(0.8)
            victim = chance.choice([one for one in system.processes if one.alive and one.name in copies])
            victim.kill()
            system.start(victim.name)
        answers = await asyncio.gather(*asked)
        await eventually(lambda: _all_over(system, len(asked)))
        watching.cancel()
        looks = await asyncio.gather(watching, return_exceptions=True)
        assert not [one for one in looks if isinstance(one, AssertionError)], looks
        assert WAITED, "some were seen while they waited"
        assert Counter(answer.status_code for answer in answers) == {200: len(asked)}, [
            answer.text for answer in answers if answer.status_code != 200
        ]
        runs = [answer.json()["run_id"] for answer in answers]
        assert len(set(runs)) == len(asked)


WAITED: set[str] = set()
"""Everything that runs were seen to wait for."""


async def _asked(system: System, number: int, kind: str, after_s: float) -> httpx.Response:
    await asyncio.sleep(after_s)
    key = {"Idempotency-Key": f"chaos {number}"}
    match kind:
        case "chat":
            return await system.post("/chat", {"message": f"What is {number} plus one?"}, **key)
        case "hard":
            return await system.post("/chat", {"message": f"{HARD} ({number})"}, **key)
        case "graph":
            return await system.post("/workflow", GRAPH, **key)
    return await system.post("/workflow", ASKING, **key)


async def _watched(system: System) -> None:
    """Look at every run that has not ended, again and again: it names what it waits for, and until when."""
    while True:
        listed = (await system.http.get(f"{system.gateway.url}/runs?limit=200")).json()
        for line in listed.get("runs", []):
            if line["state"] in OVER:
                continue
            run = (await system.http.get(f"{system.gateway.url}/runs/{line['run_id']}")).json()
            if run["state"] in OVER:
                continue
            assert run["waits_for"], run
            until = datetime.fromisoformat(run["waits_until"])
            assert until <= datetime.fromisoformat(run["deadline_at"])
            assert until > datetime.now(UTC) - timedelta(seconds=10), run
            WAITED.add(run["waits_for"])
        await asyncio.sleep(0.1)


async def _all_over(system: System, count: int) -> bool:
    listed = (await system.http.get(f"{system.gateway.url}/runs?limit=200&state={','.join(sorted(OVER))}")).json()
    return len(listed["runs"]) == count


async def test_a_run_whose_services_are_all_stopped_is_ended_by_its_deadline(tmp_path: Path) -> None:
    """With its first task done and nobody there to go on: it fails honestly, and says what is kept and what to do."""
    async with System(tmp_path) as system:
        slow = {"match": {"contains": "two of"}, "times": "forever", "fault": {"kind": "delay", "delay_s": 30}}
        await system.faults(slow)
        body = {**GRAPH, "timeout_s": 12}
        asked = asyncio.create_task(system.post("/workflow", body, **{"Idempotency-Key": "stopped"}))

        async def first_is_done() -> bool:
            listed = (await system.http.get(f"{system.gateway.url}/runs")).json()["runs"]
            return bool(listed) and listed[0]["calls"] >= 1

        await eventually(first_is_done)
        for name in ("planner", "executor"):
            for process in system.running(name):
                process.kill()
        answer = await asked
        assert answer.status_code == 504, answer.text
        body = answer.json()
        run = (await system.http.get(f"{system.gateway.url}/runs/{body['run_id']}")).json()
        assert run["state"] == "failed"
        assert run["error"]["code"] == "deadline"
        assert "one" in run["failure"]["kept"]
        assert set(run["failure"]["not_done"]) >= {"two", "both"}
        assert any("retry" in step for step in run["failure"]["next_steps"])
        never = await system.post("/workflow", {**GRAPH, "timeout_s": 3})
        assert never.status_code == 504, never.text
        for name in ("planner", "executor"):
            system.start(name)
        await system.http.delete(f"{system.simulator.url}/__sim/faults")
        retried = await system.post(f"/runs/{body['run_id']}/retry", {})
        assert retried.status_code == 200, retried.text
