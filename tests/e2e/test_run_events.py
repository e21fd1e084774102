"""Following a run: every event once and in order, however often the reader, or the gateway, goes away."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from shared.contracts.ids import run_id_of_key
from tests.system import System, eventually

LENGTH = 60


def flow(count: int = LENGTH) -> dict[str, Any]:
    tasks = [{"model": "fast_ai", "prompt": f"say {n}", "output_variable": f"o{n}"} for n in range(count)]
    return {"workflow": [{"type": "inline", "tasks": tasks}]}


async def begun(system: System, body: dict[str, Any], key: str) -> tuple[str, "asyncio.Task[httpx.Response]"]:
    """Begin a workflow; returns its run once it is accepted, and its answer to come."""
    asked = asyncio.create_task(system.post("/workflow", body, **{"Idempotency-Key": key}))
    run_id = run_id_of_key("default", key)

    async def there() -> bool:
        return (await system.http.get(f"{system.gateway.url}/runs/{run_id}")).status_code == 200

    await eventually(there)
    return run_id, asked


async def follow(
    system: System, run_id: str, after: int = 0, *, tokens: bool = False, slowly_s: float = 0.0
) -> AsyncIterator[dict[str, Any]]:
    """Yield events until the stream ends, with what stands in each."""
    headers = {"Last-Event-ID": str(after)} if after else {}
    url = f"{system.gateway.url}/runs/{run_id}/events?tokens={str(tokens).lower()}"
    async with system.http.stream("GET", url, headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        name, seq, data = "", 0, ""
        async for line in answer.aiter_lines():
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("id: "):
                seq = int(line[4:])
            elif line.startswith("data: "):
                data = line[6:]
            elif not line and name:
                yield {"event": name, "seq": seq, "data": json.loads(data)}
                name, seq, data = "", 0, ""
                if slowly_s:
                    await asyncio.sleep(slowly_s)


async def truth(system: System, run_id: str) -> list[str]:
    """The run's facts by name, as the log has them, in order."""
    return list(await system.facts(run_id))


async def test_a_run_is_followed_from_its_beginning_to_its_end(tmp_path: Path) -> None:
    """Live, and again when it is over: the same facts with the same ids; pieces of answers besides."""
    async with System(tmp_path, profile="fast") as system:
        body = flow(4)
        body["workflow"][0]["tasks"][0]["approve"] = "May I?"
        run_id, asked = await begun(system, body, "followed")
        seen = []
        async for one in follow(system, run_id, tokens=True):
            seen.append(one)
            if one["event"] == "asked":  # nothing is written before somebody reads
                assert (await system.post(f"/runs/{run_id}/approve", {})).status_code == 200
        assert (await asked).status_code == 200
        facts = [one for one in seen if one["seq"]]
        assert [one["data"]["fact"] for one in facts] == await truth(system, run_id)
        assert [one["event"] for one in facts][:2] == ["accepted", "plan"]
        assert (facts[-1]["event"], seen[-1]["event"]) == ("ended", "done")
        assert facts[-1]["data"]["data"]["outcome"] == "completed"
        assert {one["event"] for one in seen} >= {"attempt", "settled", "token"}
        texts = "".join(one["data"]["text"] for one in seen if one["event"] == "token" and one["data"]["call"] == "0-3")
        settled = next(one for one in facts if one["data"]["fact"] == "call.task.0-3.settled")
        assert settled["data"]["data"]["text"].endswith(texts)
        again = [one async for one in follow(system, run_id)]
        assert [one["seq"] for one in again if one["seq"]] == [one["seq"] for one in facts]
        behind = [one async for one in follow(system, run_id, facts[3]["seq"])]
        assert [one["seq"] for one in behind if one["seq"]] == [one["seq"] for one in facts[4:]]
        nothing = [one["event"] async for one in follow(system, run_id, facts[-1]["seq"])]
        assert nothing == ["done"]


async def test_who_was_cut_off_goes_on_where_he_was(tmp_path: Path) -> None:
    """Twenty readers that leave at random and come back, some of them slow, and a gateway killed in between."""
    chance = random.Random(3)
    async with System(tmp_path, copies={"gateway": 1}) as system:
        run_id, asked = await begun(system, flow(), "cut")

        async def reader(number: int) -> list[int]:
            seen: list[int] = []
            while True:
                try:
                    slowly = 0.01 if number % 5 == 0 else 0.0
                    async for one in follow(system, run_id, seen[-1] if seen else 0, slowly_s=slowly):
                        if one["seq"]:
                            seen.append(one["seq"])
                        if one["event"] == "ended":
                            return seen
                        if chance.random() < 0.03:
                            break  # the connection is closed with the generator
                except (httpx.HTTPError, AssertionError, StopIteration):
                    await asyncio.sleep(0.1)

        readers = [asyncio.create_task(reader(number)) for number in range(20)]
        await asyncio.sleep(0.4)
        old = system.gateway
        system.start("gateway")
        old.kill()
        await system.ready(system.gateway)
        found = await asyncio.wait_for(asyncio.gather(*readers), 60)
        asked.cancel()
        count = len(await truth(system, run_id))
        for seen in found:
            assert seen == sorted(set(seen)), "each once, in order"
            assert len(seen) == count, "and all of them"


async def test_what_is_not_there_and_what_is_no_place_is_refused(tmp_path: Path) -> None:
    async with System(tmp_path) as system:
        assert (await system.http.get(f"{system.gateway.url}/runs/nobody/events")).status_code == 404
        assert (await system.http.get(f"{system.gateway.url}/runs/a.b/events")).status_code == 404
        run_id = (await system.chat("What is one plus one?"))["run_id"]
        wrong = await system.http.get(f"{system.gateway.url}/runs/{run_id}/events?after=abc")
        assert (wrong.status_code, "whole number" in wrong.json()["detail"]) == (422, True)
        chat = [one["event"] async for one in follow(system, run_id)]
        assert chat[0] == "accepted"
        assert chat[-2:] == ["ended", "done"]
